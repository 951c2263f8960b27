"""Soundscapes whose windows of 5 s are labelled: a second validation set, much nearer to the task than single recordings.

Shapes: C species, R windows that are scored.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from birdclef_core.data.audio_files import list_audio, read_headers
from birdclef_core.data.metadata import NOT_SPECIES, parse_labels
from birdclef_core.errors import DataError
from birdclef_core.findings import Finding
from birdclef_core.taxonomy import LabelSpace

WINDOW_S = 5
"""A row of the labels is about so many seconds, up to the end second in its id."""

_PLACES = (
    ("test_soundscapes", "test_soundscapes_labels.csv", "labels"),
    ("train_soundscapes", "train_soundscapes_labels.csv", "labels"),
    ("train_soundscapes", "train_soundscape_labels.csv", "birds"),
)
"""Folder, its labels, their column; the last as in 2021."""
_RULE_AUDIO = "every labelled window lies in a soundscape that can be opened"
_RULE_SPECIES = "every label of a soundscape is a species of the label space"


@dataclass(frozen=True)
class Soundscapes:
    """Labelled windows and the files that they are of."""

    root: Path
    files: pd.DataFrame
    """One row a file: path (relative to root), duration_s."""
    windows: pd.DataFrame
    """One row a window, in the order of the labels: row_id, file (row of `files`), end_s, labels (tuples; empty: nothing is
    heard)."""
    findings: tuple[Finding, ...]

    def truth(self, label_space: LabelSpace) -> NDArray[np.uint8]:
        """(R, C), 0 or 1. Labels outside the label space count nothing: `unknown_labels` names them."""
        truth_RC = np.zeros((len(self.windows), len(label_space)), dtype=np.uint8)
        for row, labels in enumerate(self.windows["labels"]):
            truth_RC[row, [label_space.index[code] for code in labels if code in label_space.index]] = 1
        return truth_RC

    def identity(self) -> dict[str, list]:
        """What a score on them depends on, wherever they lie."""
        names = self.files["path"].str.rsplit("/", n=1).str[-1]
        rows = {name: self.windows[name].tolist() for name in self.windows}
        return {"name": names.tolist(), "duration_s": self.files["duration_s"].tolist(), **rows}

    def unknown_labels(self, label_space: LabelSpace) -> tuple[Finding, ...]:
        """The labels that no head of this label space can find."""
        labels = self.windows["labels"].explode().dropna()
        counts = labels[~labels.isin(label_space.index)].value_counts()
        cases = [f"{code} ({count} windows)" for code, count in counts.items()]
        return (Finding.of(_RULE_SPECIES, cases, "they are not scored, and hearing them is no mistake."),) if cases else ()


def load_soundscapes(root: Path) -> Soundscapes | None:
    """The labelled soundscapes of a data folder; None where there are none.

    Read are `test_soundscapes/` with `test_soundscapes_labels.csv`, or `train_soundscapes/` likewise, with the columns row_id (name
    of the file without extension, `_`, end second of the window) and labels (species codes with spaces, commas or semicolons
    between them, or nothing); of 2021 `train_soundscape_labels.csv`, whose ids are the first part of a file's name. A window
    without audio is left out, with a finding. Raises DataError for a column that is missing, an id that is not of this form or
    comes twice, or where no window is left.
    """
    for folder, name, column in _PLACES:
        if (root / name).is_file():
            return _read(root, folder, root / name, column)
    return None


def _read(root: Path, folder: str, labels_csv: Path, column: str) -> Soundscapes:
    windows = _read_labels(labels_csv, column)
    files = pd.DataFrame({"path": list_audio(root, folder)}, dtype=object)
    files = pd.concat([files, read_headers(root, list(files["path"]))], axis=1)
    stems = files["path"].str.rsplit("/", n=1).str[-1].str.rsplit(".", n=1).str[0]
    found = windows["stem"].map(_files_by_stem(list(stems), list(windows["stem"].unique())))
    lasts_s = found.map(files["duration_s"].where(files["error"] == "", -1.0)).fillna(-1.0)
    usable = windows["end_s"] <= lasts_s + WINDOW_S / 2
    if not usable.any():
        raise DataError(
            f"At least one window of {labels_csv} must have audio in {root / folder}, but none has. Add it, or rename the labels."
        )
    lost = windows["row_id"][~usable]
    meaning = f"left out of the scored windows; the audio is looked for in {root / folder}."
    findings = (Finding.of(_RULE_AUDIO, lost, meaning),) if len(lost) else ()
    windows = windows.assign(file=found)[usable].reset_index(drop=True)
    used = np.unique(windows["file"].astype(int))
    windows["file"] = np.searchsorted(used, windows["file"].astype(int))
    kept = files.loc[used, ["path", "duration_s"]].reset_index(drop=True)
    return Soundscapes(root, kept, windows[["row_id", "file", "end_s", "labels"]], findings)


def _read_labels(path: Path, column: str) -> pd.DataFrame:
    raw = pd.read_csv(path, dtype=str, keep_default_na=False)
    missing = [name for name in ("row_id", column) if name not in raw.columns]
    if missing:
        raise DataError(f"{path} must have the columns {', '.join(missing)}, but has {', '.join(raw.columns)}.")
    parts = raw["row_id"].str.extract(r"^(?P<stem>.+)_(?P<end_s>\d+)$")
    for fault, rows in (("be <file>_<end second>", parts["stem"].isna()), ("come once", raw["row_id"].duplicated())):
        if rows.any():
            line = int(rows.to_numpy().argmax())
            raise DataError(f"Every row_id must {fault}, but line {line + 2} of {path} has {raw['row_id'][line]!r}.")
    labels = [_species(path, row_id, text) for row_id, text in zip(raw["row_id"], raw[column], strict=True)]
    return pd.DataFrame({"row_id": raw["row_id"], "stem": parts["stem"], "end_s": parts["end_s"].astype(int), "labels": labels})


def _species(path: Path, row_id: str, text: str) -> tuple[str, ...]:
    try:
        return tuple(code for code in parse_labels(text) if code not in NOT_SPECIES)
    except ValueError as error:
        raise DataError(f"Labels must be codes such as `amecro gretit1`, but {row_id} of {path} has {text!r}.") from error


def _files_by_stem(stems: list[str], wanted: list[str]) -> dict[str, int]:
    """The file of each wanted name: the one called so, else the only one whose name goes on after it with `_`."""
    exact = {stem: place for place, stem in enumerate(stems)}
    found = {}
    for name in wanted:
        longer = [place for place, stem in enumerate(stems) if stem.startswith(f"{name}_")]
        if name in exact:
            found[name] = exact[name]
        elif len(longer) == 1:
            found[name] = longer[0]
    return found
