"""Finds the audio files of a data folder and reads their headers, many at a time."""

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import soundfile

RECORDING_FOLDERS = ("train_audio", "train_audios", "train_short_audio")
NOISE_FOLDER = "background_noise"
AUDIO_SUFFIXES = frozenset({"ogg", "mp3", "wav", "flac"})

_XENO_CANTO = re.compile(r"XC\d+\b")
_STAT_CHUNK = 256  # Files a thread takes at once: one by one, handing them out would cost more than looking.


@dataclass(frozen=True)
class Header:
    """What an audio file says of itself; `error` is empty when it can be opened."""

    duration_s: float = 0.0
    size_bytes: int = 0
    error: str = ""
    sample_rate_hz: int = 0
    channels: int = 0
    format: str = ""
    """libsndfile's name of what the file holds, such as OGG, whatever the file is called."""


def list_audio(root: Path, folder: str) -> list[str]:
    """Paths of all audio files under root/folder, relative to root, posix, sorted."""
    return sorted(_walk(root, folder))


def locate(filenames: pd.Series, primary_labels: pd.Series, paths: Sequence[str]) -> pd.Series:
    """The path of each recording among `paths` (audio folder, then the path inside of it), or None.

    `filename` may be the path under the audio folder, a name in the species' folder (2021), without its extension or with that of
    another format (`XC1.mp3` that was converted to `XC1.ogg`); a file that lies at the top of the audio folder, or whose name is
    a Xeno-canto number, is found wherever the table says it is. Other names are not looked for in other folders: `1.wav` of one
    species is not `1.wav` of another.
    """
    exact: dict[str, str] = {}
    anywhere: dict[str, str] = {}
    for path in paths:
        inside = path.split("/", 1)[1]
        name = inside.rsplit("/", 1)[-1]
        _remember(exact, inside, path)
        if "/" not in inside or _XENO_CANTO.match(name):
            _remember(anywhere, name, path)
    found = []
    for filename, species in zip(filenames, primary_labels, strict=True):
        located = _find(exact, anywhere, filename, species)
        stem, _, suffix = filename.rpartition(".")
        if located is None and suffix.lower() in AUDIO_SUFFIXES:
            located = _find(exact, anywhere, stem, species)
        found.append(located)
    return pd.Series(found, index=filenames.index, dtype=object)


def _find(exact: dict[str, str], anywhere: dict[str, str], filename: str, species: str) -> str | None:
    return exact.get(filename) or exact.get(f"{species}/{filename}") or anywhere.get(filename.rsplit("/", 1)[-1])


def xeno_canto_ids(names: pd.Series) -> pd.Series:
    """The Xeno-canto number of each file name or path, as text; NaN where the name says none.

    `XC123.ogg` and Xeno-canto's own `XC123 - Great Tit - Parus major.mp3` have one; `XC123_part2.ogg` is a piece of a recording,
    not the recording, and has none.
    """
    return names.str.rsplit("/", n=1).str[-1].str.extract(r"^XC(\d+)(?: - .*)?(?:\.\w+)?$")[0]


def unique_ids(paths: pd.Series) -> pd.Series:
    """File names without extension; where several files share one, all but the first of them get -2, -3, ..."""
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


def read_headers(root: Path, paths: Sequence[str], *, threads: int = 16) -> pd.DataFrame:
    """duration_s, size_bytes and error of each path, in order. Opening a file releases the interpreter, so threads help."""
    with ThreadPoolExecutor(threads) as pool:
        headers = list(pool.map(lambda path: read_header(root / path), paths, chunksize=64))
    return pd.DataFrame(
        {
            "duration_s": [header.duration_s for header in headers],
            "size_bytes": [header.size_bytes for header in headers],
            "error": [header.error for header in headers],
        }
    )


def read_header(path: Path) -> Header:
    """What the file says of itself, without decoding it."""
    try:
        size_bytes = path.stat().st_size
        info = soundfile.info(str(path))
    except OSError as error:
        return Header(error=f"cannot be read: {error.strerror}")
    except soundfile.LibsndfileError as error:
        return Header(size_bytes=size_bytes, error=f"cannot be opened as audio: {error.error_string}")
    fault = "" if info.frames else "has no samples"
    duration_s = info.frames / info.samplerate
    return Header(duration_s, size_bytes, fault, int(info.samplerate), int(info.channels), str(info.format))


def stat_files(root: Path, paths: Sequence[str], *, threads: int = 16) -> pd.DataFrame:
    """size_bytes and mtime_ns of each path, in order; -1 for a file that is not there or cannot be reached."""

    def look(first: int) -> list[tuple[int, int]]:
        return [_stat(root / path) for path in paths[first : first + _STAT_CHUNK]]

    with ThreadPoolExecutor(threads) as pool:
        found = [item for chunk in pool.map(look, range(0, len(paths), _STAT_CHUNK)) for item in chunk]
    return pd.DataFrame(found, columns=["size_bytes", "mtime_ns"], dtype="int64")


def _stat(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _remember(index: dict[str, str], name: str, path: str) -> None:
    index.setdefault(name, path)
    index.setdefault(name.rsplit(".", 1)[0], path)


def _walk(root: Path, folder: str) -> Iterator[str]:
    for directory, _, names in os.walk(root / folder, followlinks=True):
        inside = Path(directory).relative_to(root).as_posix()
        prefix = "" if inside == "." else f"{inside}/"
        for name in names:
            if name.rpartition(".")[2].lower() in AUDIO_SUFFIXES and not name.startswith("."):
                yield prefix + name
