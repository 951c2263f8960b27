"""The result of collecting, for people and scripts: numbers, findings, and lists to look at or to edit."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from birdclef_core.data.dataset import TARGET_LIST_NAME, read_target_list
from birdclef_core.data.folder_walk import OTHER_SUFFIXES, suffix_of
from birdclef_core.data.manifest import MANIFEST_NAME
from birdclef_core.data.tables import is_there
from birdclef_core.findings import Finding, inflect
from birdclef_core.inventory.merge import Merged
from birdclef_core.inventory.sources import Source
from birdclef_core.inventory.species_names import TAXONOMY_NAME

CONFLICTS_NAME = "label_conflicts.csv"
UNLABELLED_NAME = "unlabelled_audio.csv"
RENAMED_NAME = "renamed_species.csv"
UNUSABLE_NAME = "unusable.csv"


@dataclass(frozen=True)
class CollectReport:
    """What was collected."""

    manifest: Path
    sources: pd.DataFrame
    """One row a source: name, layout, path, rows (mentions of recordings), files (audio of those), noise (files)."""
    num_recordings: int
    """Recordings that can be used."""
    num_unusable: int
    """Recordings whose audio is missing or cannot be opened; they are in the manifest, and `load_dataset` judges their share."""
    num_noise: int
    num_repeated: int
    """Mentions of a recording that had been named before."""
    hours: float
    num_files: int
    num_probed: int
    """Files that were read now; the others had not changed since the last time."""
    conflicts: pd.DataFrame
    """recording_id, primary_label, decided_by (rule or override), claims: as in `label_conflicts.csv`, which can be edited and
    given as `overrides`."""
    renamed: Mapping[str, str]
    """Species codes that the taxonomy knows by another one: {old: new}."""
    findings: tuple[Finding, ...]
    elapsed_s: float

    @property
    def exit_code(self) -> int:
        """Return 1 when recordings or labels were lost, else 0."""
        return int(any(finding.level == "loses" for finding in self.findings))


def read_targets(opened: Sequence[Source]) -> tuple[str, ...]:
    """Return the codes of the first target list of the sources; none where no source has a list. Raises as `read_target_list`."""
    path = next((path for source in opened if is_there(path := source.path / TARGET_LIST_NAME)), None)
    return read_target_list(path) if path else ()


def write_lists(out: Path, targets: Sequence[str], merged: Merged, renamed: Mapping[str, str], taxonomy: pd.DataFrame) -> None:
    """Write into `out` what is worth a look, and remove lists of an earlier run that have become empty.

    `label_conflicts.csv`, `unusable.csv` (missing or damaged audio), `unlabelled_audio.csv`, `renamed_species.csv`,
    `taxonomy.csv`; and the target list, with renamed codes, where a source has one.
    """
    unusable = merged.recordings[merged.recordings["error"] != ""]
    lists = {
        CONFLICTS_NAME: merged.conflicts,
        UNUSABLE_NAME: unusable[["recording_id", "primary_label", "path", "error"]].fillna({"error": "missing"}),
        UNLABELLED_NAME: pd.DataFrame({"path": list(merged.unlabelled)}),
        RENAMED_NAME: pd.DataFrame({"old": list(renamed), "new": list(renamed.values())}),
        TAXONOMY_NAME: taxonomy.rename(columns={"code": "primary_label"}),
    }
    for name, table in lists.items():
        (out / name).unlink(missing_ok=True)
        if len(table):
            table.to_csv(out / name, index=False)
    if targets:
        codes = [renamed.get(code, code) for code in targets]
        (out / TARGET_LIST_NAME).write_text("".join(f"{code}\n" for code in dict.fromkeys(codes)), encoding="utf-8")


def describe(
    out: Path,
    opened: Sequence[Source],
    merged: Merged,
    manifest: pd.DataFrame,
    renamed: Mapping[str, str],
    findings: Sequence[Finding],
    *,
    num_files: int,
    num_probed: int,
    elapsed_s: float,
) -> CollectReport:
    """Return the report of a manifest that was written. `findings` are those of the sources."""
    recordings, noise = (manifest[manifest["kind"] == kind] for kind in ("recording", "noise"))
    usable = recordings["error"] == ""
    return CollectReport(
        manifest=out / MANIFEST_NAME,
        sources=_source_table(opened),
        num_recordings=int(usable.sum()),
        num_unusable=int((~usable).sum()),
        num_noise=int((noise["error"] == "").sum()),
        num_repeated=merged.num_repeated,
        hours=float(recordings["duration_s"].sum()) / 3600,
        num_files=num_files,
        num_probed=num_probed,
        conflicts=merged.conflicts,
        renamed=renamed,
        findings=(*findings, *_findings(out, merged, recordings, noise)),
        elapsed_s=elapsed_s,
    )


def _source_table(opened: Sequence[Source]) -> pd.DataFrame:
    rows = [
        {
            "name": source.name,
            "layout": source.layout,
            "path": str(source.path),
            "rows": int((source.claims["primary_label"] != "").sum()),
            "files": int(source.claims["path"].count()),
            "noise": len(source.noise),
        }
        for source in opened
    ]
    return pd.DataFrame(rows)


def unknown_targets(targets: Sequence[str], labels: Collection[str]) -> Finding:
    """Return a finding on target species without a recording."""
    unknown = [code for code in targets if code not in labels]
    meaning = f"training refuses the list. Correct {TARGET_LIST_NAME}, or add recordings."
    return Finding.of("unknown_target", "target species [has|have] no recording that can be used", unknown, meaning)


def _findings(out: Path, merged: Merged, recordings: pd.DataFrame, noise: pd.DataFrame) -> list[Finding]:
    bad = recordings[recordings["error"] != ""]
    bad_noise = noise[noise["error"] != ""]
    conflicts = merged.conflicts[merged.conflicts["decided_by"] == "rule"]
    codes = recordings[recordings["scientific_name"].fillna("") != ""].groupby("scientific_name")["primary_label"].unique()
    several = codes[codes.str.len() > 1]
    good = recordings[recordings["error"] == ""]
    disguised = good[good["path"].map(suffix_of).isin(OTHER_SUFFIXES)]
    found = [
        Finding.of(
            "unusable",
            "[recording has|recordings have] no audio that can be opened",
            bad["recording_id"] + ": " + bad["error"],
            f"left out of training and scoring; training refuses the data when there are many. All are listed in {out / UNUSABLE_NAME}.",
        ),
        Finding.of(
            "unusable_noise",
            "noise [file|files] cannot be used",
            bad_noise["path"] + ": " + bad_noise["error"],
            "left out of training; training refuses the data when there are many.",
        ),
        Finding.of(
            "label_conflict",
            "[recording has|recordings have] different primary labels in different sources",
            conflicts["recording_id"] + ": " + conflicts["claims"],
            f"a table counted before a folder's name, then the source that was given first. To decide otherwise, edit "
            f"{out / CONFLICTS_NAME} and give it with --overrides.",
            level="note",
        ),
        Finding.of(
            "unlabelled",
            "audio [file has|files have] no label",
            merged.unlabelled,
            f"left out: no table or folder says what is heard. All are listed in {out / UNLABELLED_NAME}.",
        ),
        Finding.of(
            "several_codes",
            "species [has|have] several codes",
            [f"{name}: {', '.join(labels)}" for name, labels in several.items()],
            "trained as different species. A taxonomy file beside a source would join them.",
            level="note",
        ),
        Finding.of(
            "wrong_extension",
            "audio [file holds|files hold] another format than the name says",
            disguised["path"] + ": is " + disguised["format"],
            "read by content.",
            level="note",
        ),
    ]
    if merged.num_only_described:
        fault = inflect("[recording is|recordings are] described by a table and found in no source", merged.num_only_described)
        found.append(Finding("only_described", "note", merged.num_only_described, fault, "left out."))
    return [finding for finding in found if finding.count]
