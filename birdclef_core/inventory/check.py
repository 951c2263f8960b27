"""Checks a data folder before anything is trained on it: every file is decoded, every label and the split are looked at."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from birdclef_core.data.audio_files import stat_files
from birdclef_core.data.dataset import Dataset, load_dataset
from birdclef_core.data.listing import Listing, list_folder
from birdclef_core.data.soundscapes import labelled_audio, load_soundscapes
from birdclef_core.errors import DataError
from birdclef_core.findings import LEVELS, Finding
from birdclef_core.inventory.check_files import LIMITS, file_problems
from birdclef_core.inventory.check_labels import label_problems, split_problems
from birdclef_core.inventory.measure import measure_file
from birdclef_core.inventory.problems import Problem
from birdclef_core.inventory.resumable import Progress, look_at_files
from birdclef_core.output_place import writing_to

CLEAN, LOSES_DATA, UNUSABLE = 0, 1, 2
"""Exit codes: nothing found, or notes only; recordings or labels are lost, or scores cannot be trusted; cannot be trained on."""

_NOTHING_SEEN = dict.fromkeys(("header_s", "duration_s", "peak", "mean", "rms", "clipped_share"), 0.0) | {
    **dict.fromkeys(("sample_rate_hz", "channels", "not_finite"), 0),
    **dict.fromkeys(("format", "content", "error", "cut", "gap", "length"), ""),
}
_MEASURES = "measures-2"  # The number is raised when what is measured changes.
_SAID_BY_CHECK = frozenset({"unusable", "unusable_noise", "named_twice", "unlearnt_label"})
"""Kinds of findings of `load_dataset` that the check's own rules say in more detail."""


@dataclass(frozen=True)
class CheckReport:
    """What was found."""

    root: Path
    files: pd.DataFrame
    """One row a file: path, kind (recording, noise, soundscape or unlabelled), primary_label, is_missing, absence (why it is
    missing), size_bytes, what `measure_file` sees, and problems, the kinds that are wrong with it, separated by blanks."""
    problems: tuple[Problem, ...]
    """What is wrong, the worst first."""
    refusal: str
    """Why `load_dataset` refuses the folder; empty when it takes it."""
    num_measured: int
    """Files that were decoded now; the others had not changed since the last time."""
    elapsed_s: float

    @property
    def exit_code(self) -> int:
        """Return 0, 1 or 2: see `CLEAN`, `LOSES_DATA`, `UNUSABLE`."""
        if self.refusal:
            return UNUSABLE
        return LOSES_DATA if any(problem.finding.level == "loses" for problem in self.problems) else CLEAN


def check(
    root: Path,
    *,
    target_species: Path | None = None,
    max_bad_share: float = 0.05,
    fold: int = 0,
    store: Path | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Decode every file of a BirdCLEF-shaped or collected folder and return what is wrong, and what that does to training.

    The arguments are those of `load_dataset`, so that the split is the one that is trained on, and whatever `load_dataset` leaves
    out is said. Of soundscapes, those with labels are decoded. `store` is a folder in which measurements are kept: after an
    interruption, a check goes on there; later, it decodes only what changed. `threads`: one a core by default. `progress` gets
    (files done, files in all). Raises nothing because of data: a folder that cannot be used is a report with `refusal`.
    """
    started = time.monotonic()
    try:
        listing = list_folder(root)
    except DataError as error:
        return CheckReport(root, pd.DataFrame(), (), str(error), 0, time.monotonic() - started)
    files, num_measured = _measure(root, listing, store, threads or len(os.sched_getaffinity(0)), progress)
    dataset, refusal = None, ""
    try:
        dataset = load_dataset(root, target_species=target_species, max_bad_share=max_bad_share, fold=fold)
    except DataError as error:
        refusal = str(error)
    problems = [*file_problems(files), *label_problems(root, listing)]
    if dataset is not None:
        problems += split_problems(dataset, files)
    problems += [Problem(finding) for finding in _what_loading_says(root, listing, dataset, refusal)]
    found = [problem for problem in problems if problem.finding.count]
    found.sort(key=lambda problem: LEVELS.index(problem.finding.level))
    files["problems"] = _problems_of(files["path"], found)
    return CheckReport(root, files, tuple(found), refusal, num_measured, time.monotonic() - started)


def write_check(report: CheckReport, out: Path) -> tuple[Path, Path]:
    """Write check.json (the problems) and check.csv (the files) into `out` and return their paths.

    Raises InputError when they cannot be written.
    """
    content = {
        "root": str(report.root),
        "exit_code": report.exit_code,
        "refusal": report.refusal,
        "num_files": len(report.files),
        "limits": LIMITS,
        "problems": [{**item.finding.as_json(), "text": item.finding.summary()} for item in report.problems],
    }
    json_path, csv_path = out / "check.json", out / "check.csv"
    with writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        json_path.write_text(text, encoding="utf-8", errors="backslashreplace")
        report.files.to_csv(csv_path, index=False, errors="backslashreplace")
    return json_path, csv_path


def check_lines(report: CheckReport) -> list[str]:
    """Return what a terminal shows: of each problem a line with level, kind and meaning, then its examples, each in a line."""
    lines = []
    for problem in report.problems:
        finding = problem.finding
        lines.append(f"{finding.level} ({finding.kind}): {finding.summary()}")
        lines += [f"    {example}" for example in finding.examples]
        if (more := finding.count - len(finding.examples)) and finding.examples:
            lines.append(f"    and {more:,} more")
    return lines


def _what_loading_says(root: Path, listing: Listing, dataset: Dataset | None, refusal: str) -> list[Finding]:
    """Return findings of loading that no rule of the check has; where loading was refused, those that come before it."""
    if dataset is not None:
        return [finding for finding in dataset.findings if finding.kind not in _SAID_BY_CHECK]
    findings = list(listing.findings)
    try:
        soundscapes = load_soundscapes(root)
    except DataError as error:
        if str(error) != refusal:
            fault = "[table|tables] of soundscape labels cannot be used"
            findings.append(Finding.of("soundscapes_refused", fault, [str(error)], "training refuses the data."))
    else:
        findings += soundscapes.findings if soundscapes else ()
    return findings


def _measure(
    root: Path, listing: Listing, store: Path | None, threads: int, progress: Progress | None
) -> tuple[pd.DataFrame, int]:
    """Return one row for each file that the folder names or holds, missing ones too, and how many were decoded."""
    files = _files(root, listing)
    there = files[~files["is_missing"]]
    stats = stat_files(root, list(there["path"])).set_index(there.index)
    files["size_bytes"] = stats["size_bytes"].reindex(files.index, fill_value=0).clip(lower=0)
    wanted = stats.assign(path=[str(root.absolute() / path) for path in there["path"]], deep=False)
    seen, num_measured = look_at_files(
        wanted,
        lambda path, _: measure_file(Path(path)),
        sees=list(_NOTHING_SEEN),
        store=store and store / _MEASURES,
        threads=threads,
        progress=progress,
    )
    return files.join(seen.drop(columns="path").set_index(there.index)).fillna(_NOTHING_SEEN), num_measured


def _files(root: Path, listing: Listing) -> pd.DataFrame:
    recordings = listing.recordings
    named = pd.DataFrame(
        {
            "path": recordings["path"].where(recordings["path"].notna(), recordings["filename"]).astype(str),
            "kind": "recording",
            "primary_label": recordings["primary_label"],
            "is_missing": recordings["path"].isna(),
            "absence": recordings["absence"],
        }
    )
    try:
        soundscapes = labelled_audio(root)
    except DataError:
        soundscapes = []  # Loading says why.
    paths = {"noise": list(listing.noise["path"].astype(str)), "soundscape": soundscapes, "unlabelled": list(listing.unlabelled)}
    others = [
        pd.DataFrame(
            {"path": pd.Series(listed, dtype=str), "kind": kind, "primary_label": "", "is_missing": False, "absence": ""}
        )
        for kind, listed in paths.items()
        if listed
    ]
    return pd.concat([named, *others], ignore_index=True).drop_duplicates("path", ignore_index=True)


def _problems_of(paths: pd.Series, problems: Sequence[Problem]) -> pd.Series:
    """Return the kinds that are wrong with each file."""
    cases = pd.DataFrame([(path, item.finding.kind) for item in problems for path in item.paths], columns=["path", "kind"])
    kinds = {path: " ".join(group) for path, group in cases.groupby("path")["kind"]}
    return pd.Series([kinds.get(path, "") for path in paths], index=paths.index, dtype=str)
