"""Which rows and columns a submission has, and which audio each row is of.

Shapes: R rows, C species.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.data.folder_walk import suffix_of
from birdclef_core.data.tables import read_table
from birdclef_core.errors import DataError, InputError
from birdclef_core.inference.results.formats import AudioFile

ROW_ID = "row_id"
WINDOW_S = 5
"""A row is about this many seconds, up to its end second."""
SHOWN = 3
"""Names that an error shows."""

_ROW_ID = re.compile(r"^(?P<stem>.+)_(?P<end_s>\d{1,7})$", re.ASCII)


@dataclass(frozen=True)
class Rows:
    """The rows and columns of a submission."""

    row_ids: tuple[str, ...]
    """`<file stem>_<end second>`, each once."""
    species: tuple[str, ...]
    """The columns behind `row_id`."""

    @cached_property
    def stems(self) -> tuple[str, ...]:
        """The file of each row, as `stem_of` writes it."""
        return tuple(composed(row_id.rpartition("_")[0]) for row_id in self.row_ids)

    @cached_property
    def start_R(self) -> NDArray[np.int64]:
        """The sample at which the window of each row begins."""
        ends_s = np.array([int(row_id.rpartition("_")[2]) for row_id in self.row_ids], dtype=np.int64)
        return (ends_s - WINDOW_S) * SAMPLE_RATE_HZ

    @cached_property
    def by_stem(self) -> dict[str, NDArray[np.int64]]:
        """The rows of each file."""
        found: dict[str, list[int]] = {}
        for row, stem in enumerate(self.stems):
            found.setdefault(stem, []).append(row)
        return {stem: np.array(rows, dtype=np.int64) for stem, rows in found.items()}


def read_sample(path: Path, known: Sequence[str]) -> Rows:
    """Return the rows and columns of a sample submission. `known`: the species of the model.

    Raises DataError for a table that cannot be read, whose first column is not row_id, with a row twice, an id that is not
    `<file stem>_<end second>` with an end second that is a multiple of 5, or no column that is a species of the model.
    """
    table = read_table(path, dtype=str)
    first, *species = table.rows.columns
    if first != ROW_ID or not species or not all(species):
        raise DataError(
            f"The columns of {path} must be {ROW_ID} and then species, but are {', '.join(table.rows.columns[: SHOWN + 1])}."
        )
    if not set(species) & set(known):
        raise DataError(
            f"At least one column of {path} must be a species of the model, but none is: it has {', '.join(species[:SHOWN])}, and the "
            f"model knows {', '.join(known[:SHOWN])}."
        )
    row_ids = table.rows[ROW_ID].tolist()
    seen: dict[str, int] = {}
    for row, row_id in enumerate(row_ids):
        parts = _ROW_ID.match(row_id)
        if not parts or not (end_s := int(parts["end_s"])) or end_s % WINDOW_S:
            raise DataError(
                f"Every {ROW_ID} must be <file stem>_<end second> with an end second that is a multiple of {WINDOW_S}, but line "
                f"{table.line(row)} of {path} has {row_id!r}."
            )
        key = f"{composed(parts['stem'])}_{end_s}"
        if key in seen:
            raise DataError(
                f"Every {ROW_ID} of {path} must be there once, but lines {seen[key]} and {table.line(row)} have {row_id!r}."
            )
        seen[key] = table.line(row)
    return Rows(tuple(row_ids), tuple(species))


def rows_of_audio(num_windows: Mapping[str, int], species: Sequence[str]) -> Rows:
    """Return the rows of files of which the number of windows is known, in the order of the files and of time."""
    row_ids = [f"{stem}_{WINDOW_S * (number + 1)}" for stem, count in num_windows.items() for number in range(count)]
    return Rows(tuple(row_ids), tuple(species))


def by_stem(files: Iterable[AudioFile]) -> dict[str, AudioFile]:
    """Return files by their stems. Raises InputError when two have the same, because their rows would have the same ids."""
    found: dict[str, AudioFile] = {}
    for audio in files:
        stem = stem_of(audio)
        if stem in found:
            raise InputError(
                f"Every file must have a name of its own, as row ids are made of them, but {found[stem].label} and {audio.label} have "
                "the same."
            )
        found[stem] = audio
    return found


def require_audio(rows: Rows, stems: Iterable[str], place: Path, sample: Path) -> None:
    """Raise InputError when rows are of files that are not among `stems`."""
    known = set(stems)
    foreign = [stem for stem in rows.by_stem if stem not in known]
    if foreign:
        count = sum(len(rows.by_stem[stem]) for stem in foreign)
        raise InputError(
            f"Every row of {sample} must be of a file in {place}, but {count:,} of {len(rows.row_ids):,} are of {len(foreign):,} files that "
            f"are not there, such as {', '.join(foreign[:SHOWN])}. Give the folder that has them, or take only the sample's columns and "
            "a row for every window of the audio: --rows audio."
        )


def stem_of(audio: AudioFile) -> str:
    """Return what row ids call a file: its name without extension."""
    return stem_of_name(audio.path.name)


def stem_of_name(name: str) -> str:
    """Return a file's name or path without folders and extension; letters with accents are composed, as systems write them differently."""
    name = name.rsplit("/", 1)[-1]
    return composed(name[: -len(suffix_of(name)) - 1] if suffix_of(name) else name)


def composed(text: str) -> str:
    """Return a text with each letter and its accent as one character."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)
