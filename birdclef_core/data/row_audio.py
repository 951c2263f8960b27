"""Finds the audio file of each row of a metadata table, however the table writes its path."""

import re
import unicodedata
from collections.abc import Iterator, Sequence

import pandas as pd

from birdclef_core.data.folder_walk import AUDIO_SUFFIXES, OTHER_SUFFIXES, RECORDING_FOLDERS, suffix_of
from birdclef_core.data.recording_names import xeno_canto_id

_XENO_CANTO = re.compile(r"XC\d+\b")
_FIRST_SUFFIXES = frozenset({"ogg", "mp3", "wav", "flac"})
"""Where a recording is there in several formats and the table names none, one of these counts."""


class AudioIndex:
    """Audio files by the names that a table may give them.

    `filename` may be the path under the audio folder, a name in the species' folder (2021), without its extension or with that of
    another format (`XC1.mp3` that was converted to `XC1.ogg`). A file that lies at the top of the audio folder, or whose name is a
    Xeno-canto number, is found wherever the table says it is. Other names are not looked for in other folders: `1.wav` of one
    species is not `1.wav` of another. A file that is not found this way is looked for again: with `/` in place of backslashes,
    without the folders above the audio folder, and without regard to letters' case and to how accents are composed (macOS writes
    them as NFD). At last it is looked for by its Xeno-canto number (`XC1` of the table is `XC1 - Great Tit - Parus major.mp3`).
    """

    def __init__(self, paths: Sequence[str]) -> None:
        """`paths` begin with the audio folder."""
        self._exact: dict[str, str] = {}
        self._anywhere: dict[str, str] = {}
        for path in sorted(paths, key=lambda path: suffix_of(path) not in _FIRST_SUFFIXES):
            inside = path.split("/", 1)[1]
            name = inside.rsplit("/", 1)[-1]
            _remember(self._exact, inside, path)
            if "/" not in inside or _XENO_CANTO.match(name):
                _remember(self._anywhere, name, path)
        self._by_number = {number: path for path in reversed(paths) if (number := xeno_canto_id(path))}
        self._folded_exact = _folded(self._exact)
        self._folded_anywhere = _folded(self._anywhere)

    def find(self, filename: str, species: str) -> str | None:
        """Return the path of a row's audio, None when it is not there."""
        found = _find(self._exact, self._anywhere, filename, species)
        if found:
            return found
        for spelling in _spellings(filename):
            if found := _find(self._folded_exact, self._folded_anywhere, _fold(spelling), _fold(species)):
                return found
        return self._by_number.get(xeno_canto_id(filename) or "")


def locate(filenames: pd.Series, primary_labels: pd.Series, paths: Sequence[str]) -> pd.Series:
    """Return the path of each row's audio among `paths` (see `AudioIndex`), None where it is not there."""
    index = AudioIndex(paths)
    found = [index.find(filename, species) for filename, species in zip(filenames, primary_labels, strict=True)]
    return pd.Series(found, index=filenames.index, dtype=object)


def why_missing(filenames: pd.Series, primary_labels: pd.Series, other_formats: Sequence[str]) -> list[str]:
    """Return what to say of rows without audio: `missing`, or the file that is there in a format that is not read."""
    if not other_formats:
        return ["missing"] * len(filenames)
    others = locate(filenames, primary_labels, other_formats)
    return [f"there only as {path}, a format that is not read" if path else "missing" for path in others]


def _find(exact: dict[str, str], anywhere: dict[str, str], filename: str, species: str) -> str | None:
    for name in _with_and_without_suffix(filename):
        if found := exact.get(name) or exact.get(f"{species}/{name}") or anywhere.get(name.rsplit("/", 1)[-1]):
            return found
    return None


def _with_and_without_suffix(filename: str) -> Iterator[str]:
    yield filename
    if suffix_of(filename) in AUDIO_SUFFIXES | OTHER_SUFFIXES:
        yield filename.rpartition(".")[0]


def _spellings(filename: str) -> Iterator[str]:
    """Return other ways to write the path that a table gives."""
    parts = [part for part in filename.replace("\\", "/").split("/") if part not in ("", ".")]
    yield "/".join(parts)
    for folder in RECORDING_FOLDERS:
        if folder in parts[:-1]:
            yield "/".join(parts[parts.index(folder) + 1 :])
    if len(parts) > 2:
        yield "/".join(parts[-2:])


def _remember(index: dict[str, str], name: str, path: str) -> None:
    index.setdefault(name, path)
    index.setdefault(name.rsplit(".", 1)[0], path)


def _folded(index: dict[str, str]) -> dict[str, str]:
    """Return the same names without regard to case and composition; those that would mean several files are left out."""
    folded: dict[str, str] = {}
    ambiguous: set[str] = set()
    for name, path in index.items():
        key = _fold(name)
        if folded.setdefault(key, path).rsplit(".", 1)[0] != path.rsplit(".", 1)[0]:
            ambiguous.add(key)
    return {key: path for key, path in folded.items() if key not in ambiguous}


def _fold(name: str) -> str:
    return name if name.isascii() and name.islower() else unicodedata.normalize("NFC", name).casefold()
