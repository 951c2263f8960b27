"""A data folder as the rest of the project sees it: checked, split, with its label spaces and its identity."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from birdclef_core.data.audio_files import NOISE_FOLDER, RECORDING_FOLDERS, list_audio, locate, read_headers
from birdclef_core.data.findings import Finding, settle_unusable
from birdclef_core.data.metadata import NOT_SPECIES, metadata_path, read_metadata
from birdclef_core.data.splits import author_grouped_split
from birdclef_core.errors import DataError
from birdclef_core.identity import fingerprint
from birdclef_core.taxonomy import LabelSpace

TARGET_LIST_NAME = "target_species.txt"

_IDENTITY_COLUMNS = ("path", "primary_label", "secondary_labels", "rating", "duration_s", "size_bytes", "is_validation")
_RULE_USABLE = "every recording of the metadata has audio that can be opened"
_RULE_NOISE = "every background noise file can be opened"
_RULE_ONCE = "a file is named by one row"
_RULE_PRIMARY = "every secondary label is the primary label of some recording"
_RULE_SCORED = "every species has a validation recording"


@dataclass(frozen=True)
class Dataset:
    """Recordings that can be used, split by author, with noise and label spaces."""

    root: Path
    """The data folder."""
    recordings: pd.DataFrame
    """One row a recording, in metadata order: recording_id, path (relative to root), primary_label, secondary_labels (tuples),
    author, rating (0..5), duration_s, size_bytes, is_validation; latitude and longitude where the metadata have them."""
    noise: pd.DataFrame
    """One row a noise file: path (relative to root), group (first folder under `background_noise`, or ""), duration_s,
    size_bytes."""
    all_species: LabelSpace
    """Every primary label of a usable recording."""
    target_species: LabelSpace
    """The species to be detected: those of a list, else all."""
    fingerprint: str
    """Hash of everything in here that changes training: labels, ratings, durations, sizes, the split, the noise files."""
    findings: tuple[Finding, ...]


def load_dataset(
    root: Path,
    *,
    target_species: Path | None = None,
    max_bad_share: float = 0.05,
    validation_share: float = 0.2,
    split_seed: int = 0,
    bad_files_csv: Path | None = None,
) -> Dataset:
    """Reads and checks a BirdCLEF-shaped folder.

    Metadata: `train.csv` or `train_metadata.csv`, the complete-metadata columns too (see `read_metadata`). Audio: `train_audio`,
    `train_audios` or `train_short_audio`, with or without species folders. Noise: `background_noise`, if any. The target list has
    one code a line; without `target_species`, `target_species.txt` in the folder is taken, else all species are targets. Raises
    DataError for a folder, file, column or audio that is missing, more than `max_bad_share` unusable recordings (all are named in
    `bad_files_csv`), an unknown code in the target list, a target species without recordings, or nothing to validate on.
    """
    table = read_metadata(metadata_path(root))
    table, findings = _with_audio(root, table, max_bad_share, bad_files_csv)
    all_species = LabelSpace.of("all", set(table["primary_label"]) - NOT_SPECIES)
    target = _target_space(root, target_species, table, all_species)
    split = author_grouped_split(table["primary_label"], table["author"], share=validation_share, seed=split_seed)
    if not split.is_validation.any():
        raise DataError(
            f"Some species must have recordings of two authors, so that one is put aside for validation, but none in {root} has. "
            "Add recordings, or fill the author column of the metadata."
        )
    table["is_validation"] = split.is_validation
    noise, noise_findings = _noise(root, max_bad_share)
    findings += noise_findings + _label_findings(table, all_species)
    if unscored := [code for code in split.unscored_species if code in all_species.index]:
        findings += (Finding.of(_RULE_SCORED, unscored, "they are trained and not scored: too few recordings or authors."),)
    return Dataset(root, table, noise, all_species, target, _fingerprint(table, noise), findings)


def read_target_list(path: Path) -> tuple[str, ...]:
    """Species codes, one a line; empty lines and lines that start with # do not count."""
    if not path.is_file():
        raise DataError(f"The list of target species must exist, but {path} does not.")
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def _with_audio(
    root: Path, table: pd.DataFrame, max_bad_share: float, csv_path: Path | None
) -> tuple[pd.DataFrame, tuple[Finding, ...]]:
    """The rows whose audio can be opened, with recording_id, path, duration_s and size_bytes."""
    paths = [path for folder in RECORDING_FOLDERS for path in list_audio(root, folder)]
    if not paths:
        raise DataError(f"{root} must hold audio under {', '.join(RECORDING_FOLDERS)}, but there is none.")
    located = locate(table["filename"], table["primary_label"], paths)
    reasons = dict.fromkeys(table["filename"][located.isna()], "missing")
    table = table.assign(path=located)[located.notna()]
    findings = _repeated(table)
    table = table[~table["path"].duplicated()].reset_index(drop=True)
    headers = read_headers(root, list(table["path"]))
    table = pd.concat([table, headers], axis=1)
    bad = table["error"] != ""
    reasons.update(zip(table["path"][bad], table["error"][bad], strict=True))
    total = len(table) + sum(reason == "missing" for reason in reasons.values())
    findings += settle_unusable(
        reasons, total=total, max_share=max_bad_share, rule=_RULE_USABLE, kind="recordings", csv_path=csv_path
    )
    table = table[~bad].reset_index(drop=True)
    if table.empty:
        raise DataError(f"At least one recording of {root} must be usable, but none is.")
    table.insert(0, "recording_id", _recording_ids(table["path"]))
    return table.drop(columns=["filename", "error"]), findings


def _repeated(table: pd.DataFrame) -> tuple[Finding, ...]:
    repeated = table["path"][table["path"].duplicated()]
    return (Finding.of(_RULE_ONCE, repeated, "the first row counts, the others are left out."),) if len(repeated) else ()


def _recording_ids(paths: pd.Series) -> pd.Series:
    """File names without extension; where several files share one, all but the first in order of their paths get -2, -3, ..."""
    stems = paths.str.rsplit("/", n=1).str[-1].str.rsplit(".", n=1).str[0]
    taken: set[str] = set(stems)
    ids = stems.copy()
    for row in stems.index[stems.duplicated()]:
        number = 2
        while f"{stems[row]}-{number}" in taken:
            number += 1
        ids[row] = f"{stems[row]}-{number}"
        taken.add(ids[row])
    return ids


def _target_space(root: Path, listed: Path | None, table: pd.DataFrame, all_species: LabelSpace) -> LabelSpace:
    path = listed or root / TARGET_LIST_NAME
    if listed is None and not path.is_file():
        return LabelSpace("target", all_species.species)
    codes = read_target_list(path)
    missing = [code for code in codes if code not in all_species.index]
    if missing:
        secondary = {code for labels in table["secondary_labels"] for code in labels}
        unknown = [code for code in missing if code not in secondary]
        what = (
            f"{', '.join(unknown)} of {path} is in no row"
            if unknown
            else f"{', '.join(missing)} of {path} is only heard in the background"
        )
        raise DataError(
            f"Every target species must have a recording of its own that can be opened, but {what}. Correct or shorten the list."
        )
    return LabelSpace.of("target", codes)


def _noise(root: Path, max_bad_share: float) -> tuple[pd.DataFrame, tuple[Finding, ...]]:
    paths = list_audio(root, NOISE_FOLDER)
    parts = [path.split("/") for path in paths]
    table = pd.DataFrame({"path": paths, "group": [part[1] if len(part) > 2 else "" for part in parts]}, dtype=object)
    table = pd.concat([table, read_headers(root, paths)], axis=1)
    bad = table["error"] != ""
    reasons = dict(zip(table["path"][bad], table["error"][bad], strict=True))
    findings = settle_unusable(reasons, total=len(table), max_share=max_bad_share, rule=_RULE_NOISE, kind="noise files")
    return table[~bad].reset_index(drop=True).drop(columns="error"), findings


def _label_findings(table: pd.DataFrame, all_species: LabelSpace) -> tuple[Finding, ...]:
    labels = table["secondary_labels"].explode().dropna()
    unknown = labels[~labels.isin(all_species.index)].value_counts()
    if unknown.empty:
        return ()
    cases = [f"{code} ({count} recordings)" for code, count in unknown.items()]
    return (Finding.of(_RULE_PRIMARY, cases, "these labels are not learnt; their recordings stay in for their other labels."),)


def _fingerprint(recordings: pd.DataFrame, noise: pd.DataFrame) -> str:
    content = {name: recordings[name].tolist() for name in _IDENTITY_COLUMNS}
    return fingerprint({"recordings": content, "noise": {name: noise[name].tolist() for name in noise.columns}})
