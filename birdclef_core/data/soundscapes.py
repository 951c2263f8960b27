"""Soundscapes whose windows of 5 s are labelled: a second validation set, much nearer to the task than single recordings.

Shapes: C species, R windows that are scored.
"""

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from birdclef_core.data.audio_files import read_headers
from birdclef_core.data.folder_walk import AUDIO_SUFFIXES, OTHER_SUFFIXES, suffix_of, walk_audio
from birdclef_core.data.labels import NOT_SPECIES, parse_labels, spell_as
from birdclef_core.data.listing import unread_findings
from birdclef_core.data.tables import Table, is_there, read_table
from birdclef_core.errors import DataError
from birdclef_core.findings import Finding
from birdclef_core.taxonomy import LabelSpace

WINDOW_S = 5
"""A row of the labels is about this many seconds, up to its end second."""

SOUNDSCAPE_LABELS = {
    "test_soundscapes_labels.csv": "test_soundscapes",
    "train_soundscapes_labels.csv": "train_soundscapes",
    "train_soundscape_labels.csv": "train_soundscapes",
}
"""Tables of labels (the last of 2021) and the folders of their audio, in the order in which they are looked for."""
LABEL_COLUMNS = ("labels", "birds", "primary_label")
"""What the years call the column of the labels."""

_ROW_ID = re.compile(r"^(?P<stem>.+)_(?P<end_s>\d+)$")
_BY_TIMES = ("filename", "start", "end")
_TIME = re.compile(r"^(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)$")


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
        """Return (R, C), 0 or 1. Labels outside the label space count nothing: `unknown_labels` names them."""
        truth_RC = np.zeros((len(self.windows), len(label_space)), dtype=np.uint8)
        for row, labels in enumerate(self.windows["labels"]):
            truth_RC[row, [label_space.index[code] for code in labels if code in label_space.index]] = 1
        return truth_RC

    def of_files(self, rows: Collection[int]) -> "Soundscapes | None":
        """Return only some of the files, by their rows, with their windows and without findings; None when there are none."""
        if not rows:
            return None
        kept = sorted(rows)
        windows = self.windows[self.windows["file"].isin(kept)].reset_index(drop=True)
        place = {row: index for index, row in enumerate(kept)}
        return Soundscapes(
            self.root,
            self.files.loc[kept].reset_index(drop=True),
            windows.assign(file=windows["file"].map(place)),
            (),
        )

    def identity(self) -> dict[str, list]:
        """Return what a score on them depends on, wherever they lie."""
        names = self.files["path"].str.rsplit("/", n=1).str[-1]
        rows = {name: self.windows[name].tolist() for name in self.windows}
        return {"name": names.tolist(), "duration_s": self.files["duration_s"].tolist(), **rows}

    def spelled_as(self, label_space: LabelSpace) -> "Soundscapes":
        """Return the same with labels as the label space writes them, where only the composition of accents differs."""
        written = self.windows["labels"].explode().dropna().unique()
        new = {label: same for label in written if (same := spell_as(label, label_space.species)) != label}
        if not new:
            return self
        labels = [tuple(dict.fromkeys(new.get(code, code) for code in item)) for item in self.windows["labels"]]
        return replace(self, windows=self.windows.assign(labels=pd.Series(labels, index=self.windows.index, dtype=object)))

    def unknown_labels(self, label_space: LabelSpace) -> tuple[Finding, ...]:
        """Return a finding on the labels that no head of this label space can find."""
        labels = self.windows["labels"].explode().dropna()
        counts = labels[~labels.isin(label_space.index)].value_counts()
        if counts.empty:
            return ()
        cases = [f"{code} ({count} {'window' if count == 1 else 'windows'})" for code, count in counts.items()]
        fault = "[label of soundscapes is of a species|labels of soundscapes are of species] outside the label space"
        meaning = "not scored; hearing them is no mistake."
        return (Finding.of("unscored_label", fault, cases, meaning, level="note"),)


def find_soundscapes(root: Path) -> tuple[Path, Path] | None:
    """Return the table of labels of a data folder's soundscapes and the folder of their audio; None where there is no table.

    Raises DataError when something else than a file has the table's name.
    """
    for name, folder in SOUNDSCAPE_LABELS.items():
        if is_there(root / name):
            return root / name, root / folder
    return None


def load_soundscapes(root: Path) -> Soundscapes | None:
    """Return the labelled soundscapes of a data folder; None where there are none.

    Read are `test_soundscapes/` with `test_soundscapes_labels.csv`, else `train_soundscapes/` with `train_soundscapes_labels.csv`
    (2021: `train_soundscape_labels.csv`). A row of the table is a window of 5 s: its columns are row_id (name of the file without
    extension, `_`, end second) and labels (2021: birds; ids begin with the first part of a file's name), or filename, start, end
    and primary_label (2026). Labels are codes with blanks, commas or semicolons between them, or nothing. A window without audio
    is left out, and a window that is there twice counts once: findings say so. Raises DataError for a table that cannot be read, a
    column that is missing, an id that is not of this form, or where no window is left.
    """
    found = find_soundscapes(root)
    if found is None:
        return None
    labels_csv, folder = found
    windows, findings = _read_windows(labels_csv)
    findings = (*findings, *_other_tables(root, labels_csv))
    audio = walk_audio(root, folder.name)
    place = _places(windows, audio.paths)
    used = np.unique(place.dropna().astype(int))
    files = pd.DataFrame({"path": [audio.paths[index] for index in used]}, index=used, dtype=object)
    files = pd.concat([files, read_headers(root, list(files["path"])).set_index(used)], axis=1)
    reasons = _why_unusable(windows, place, files, folder)
    usable = reasons == ""
    if not usable.any():
        seen = " ".join(finding.describe() for finding in unread_findings([audio]))
        raise DataError(
            f"At least one window of {labels_csv} must have audio in {folder}, but none has ({reasons.iloc[0]}). Add the audio, "
            f"correct the names, or remove the table. {seen}".rstrip()
        )
    lost = windows["row_id"][~usable] + ": " + reasons[~usable]
    lost_finding = Finding.of(
        "window_without_audio",
        "labelled [window of soundscapes has|windows of soundscapes have] no audio",
        lost,
        f"left out of the scored windows; the audio is looked for in {folder}.",
    )
    findings = (*findings, *((lost_finding,) if lost_finding.count else ()), *unread_findings([audio]))
    windows = windows.assign(file=place)[usable].reset_index(drop=True)
    used = np.unique(windows["file"].astype(int))
    windows["file"] = np.searchsorted(used, windows["file"].astype(int))
    kept = files.loc[used, ["path", "duration_s"]].reset_index(drop=True)
    return Soundscapes(root, kept, windows[["row_id", "file", "end_s", "labels"]], findings)


def _other_tables(root: Path, used: Path) -> tuple[Finding, ...]:
    others = [name for name in SOUNDSCAPE_LABELS if name != used.name and (root / name).exists()]
    if not others:
        return ()
    fault = "more [table|tables] of soundscape labels [lies|lie] in the folder"
    return (Finding.of("second_soundscapes", fault, others, f"not read: {used.name} counts.", level="note"),)


def labelled_audio(root: Path) -> list[str]:
    """Return the paths of the soundscapes that have labels, relative to root. Raises DataError as `load_soundscapes` does."""
    found = find_soundscapes(root)
    if found is None:
        return []
    windows, _ = _read_windows(found[0])
    paths = walk_audio(root, found[1].name).paths
    return [paths[index] for index in np.unique(_places(windows, paths).dropna().astype(int))]


def _places(windows: pd.DataFrame, paths: Sequence[str]) -> pd.Series:
    """Return where in `paths` the audio of each window is; NaN where it is not there."""
    stems = [path.rsplit("/", 1)[-1].rsplit(".", 1)[0] for path in paths]
    return windows["stem"].map(_files_by_stem(stems, list(windows["stem"].unique()))).astype(float)


def _why_unusable(windows: pd.DataFrame, place: pd.Series, files: pd.DataFrame, folder: Path) -> pd.Series:
    """Return why each window cannot be scored, or ""."""
    error = place.map(files["error"]).astype(object).fillna(f"no file of this name in {folder.name}")
    lasts_s = place.map(files["duration_s"].where(files["error"] == "", -1.0)).fillna(-1.0)
    beyond = (error == "") & (windows["end_s"] > lasts_s + WINDOW_S / 2)
    reasons = error.mask(beyond, "beyond the end of the file, which lasts " + lasts_s.map("{:.1f} s".format))
    return reasons.mask((reasons == "") & (windows["end_s"] <= 0), "ends where the file begins")


def _read_windows(path: Path) -> tuple[pd.DataFrame, tuple[Finding, ...]]:
    """Return row_id, stem, end_s and labels of each window, and what is odd about them."""
    source = read_table(path)
    column = next((name for name in LABEL_COLUMNS if name in source.rows), None)
    if set(_BY_TIMES) <= set(source.rows):
        source.require_columns(column or LABEL_COLUMNS[-1])
        parts, odd = _windows_by_times(source)
    else:
        source.require_columns("row_id", column or LABEL_COLUMNS[0])
        parts, odd = _windows_by_id(source), ()
    if parts.empty:
        raise DataError(
            f"{source.path} must have at least one window of {WINDOW_S} s, but has none: {odd[0].shown_examples()} Correct it, or "
            "remove the table."
        )
    texts = source.rows.loc[parts.index, column]
    labels = [_species(source, row, text) for row, text in texts.items()]
    windows = parts.assign(labels=pd.Series(labels, index=parts.index, dtype=object))
    return _merged(source, windows, odd)


def _windows_by_id(source: Table) -> pd.DataFrame:
    row_ids = source.rows["row_id"]
    parts = row_ids.str.extract(_ROW_ID)
    if parts["stem"].isna().any():
        row = int(parts["stem"].isna().to_numpy().argmax())
        raise DataError(
            f"Every row_id must be <file>_<end second>, but line {source.line(row)} of {source.path} has {row_ids[row]!r}."
        )
    return pd.DataFrame({"row_id": row_ids, "stem": parts["stem"], "end_s": parts["end_s"].astype(int)})


def _windows_by_times(source: Table) -> tuple[pd.DataFrame, tuple[Finding, ...]]:
    """Return windows of a table that names a file, a start and an end; rows that are no window of `WINDOW_S` are left out."""
    rows = source.rows
    times = {name: [_seconds(source, row, name) for row in rows.index] for name in ("start", "end")}
    start_s, end_s = (pd.Series(times[name], index=rows.index, dtype=float) for name in ("start", "end"))
    is_window = (end_s - start_s == WINDOW_S) & (end_s == end_s.round())
    others = [
        f"{start} to {end} in line {source.line(row)}" for row, start, end in rows.loc[~is_window, ["start", "end"]].itertuples()
    ]
    finding = Finding.of(
        "not_a_window",
        f"[row of {source.path.name} is|rows of {source.path.name} are] not a window of {WINDOW_S} s that begins and ends at a full second",
        others,
        "left out of the scored windows.",
    )
    stems = rows["filename"].map(_stem)
    parts = pd.DataFrame({"stem": stems, "end_s": end_s})[is_window].astype({"end_s": int})
    parts.insert(0, "row_id", parts["stem"] + "_" + parts["end_s"].astype(str))
    return parts, (finding,) if finding.count else ()


def _stem(filename: str) -> str:
    name = filename.replace("\\", "/").rsplit("/", 1)[-1]
    return name.rsplit(".", 1)[0] if suffix_of(name) in AUDIO_SUFFIXES | OTHER_SUFFIXES else name


def _seconds(source: Table, row: int, column: str) -> float:
    """Return a time such as `00:00:05`, `0:05` or `5` in seconds."""
    text = source.rows[column][row]
    found = _TIME.match(text.strip())
    if not found:
        raise DataError(f"{column} must be a time such as 00:00:05, but line {source.line(row)} of {source.path} has {text!r}.")
    hours, minutes, seconds = found.groups()
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(seconds)


def _merged(source: Table, windows: pd.DataFrame, odd: Sequence[Finding]) -> tuple[pd.DataFrame, tuple[Finding, ...]]:
    """Return each window once, with the labels of all its rows."""
    repeated = windows["row_id"].duplicated()
    if not repeated.any():
        return windows.reset_index(drop=True), tuple(odd)
    first = windows[~repeated].set_index("row_id")
    several = windows[windows["row_id"].isin(windows["row_id"][repeated])].groupby("row_id", sort=False)["labels"]
    differing = [row_id for row_id, labels in several if labels.nunique() > 1]
    joined = {row_id: tuple(dict.fromkeys(code for item in labels for code in item)) for row_id, labels in several}
    first["labels"] = pd.Series(
        [joined.get(row_id, labels) for row_id, labels in first["labels"].items()], index=first.index, dtype=object
    )
    contradicting = Finding.of(
        "window_labelled_differently",
        f"[window is|windows are] labelled several times and differently in {source.path.name}",
        differing,
        "scored with all the labels of their rows together.",
    )
    same = Finding.of(
        "window_repeated",
        f"[row of {source.path.name} repeats|rows of {source.path.name} repeat] a window with the same labels",
        [row_id for row_id in windows["row_id"][repeated] if row_id not in set(differing)],
        "harmless: each window is scored once.",
        level="note",
    )
    found = tuple(finding for finding in (contradicting, same) if finding.count)
    return first.reset_index(), (*odd, *found)


def _species(source: Table, row: int, text: str) -> tuple[str, ...]:
    try:
        return tuple(code for code in parse_labels(text) if code not in NOT_SPECIES)
    except ValueError as error:
        raise DataError(
            f"Labels must be codes such as `amecro gretit1`, but line {source.line(row)} of {source.path} has {text!r}: {error}."
        ) from error


def _files_by_stem(stems: Sequence[str], wanted: Sequence[str]) -> dict[str, int]:
    """Return the file of each wanted name: the one called so, else the only one whose name goes on after it with `_`."""
    stems = [_composed(stem) for stem in stems]
    exact = {stem: place for place, stem in enumerate(stems)}
    longer: dict[str, list[int]] = {}
    for place, stem in enumerate(stems):
        for end in (index for index, letter in enumerate(stem) if letter == "_"):
            longer.setdefault(stem[:end], []).append(place)
    found = {}
    for name in wanted:
        stem = _composed(name)
        if stem in exact:
            found[name] = exact[stem]
        elif len(longer.get(stem, ())) == 1:
            found[name] = longer[stem][0]
    return found


def _composed(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)
