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


@dataclass(frozen=True)
class Header:
    """What an audio file says of itself; `error` is empty when it can be opened."""

    duration_s: float
    size_bytes: int
    error: str


def list_audio(root: Path, folder: str) -> list[str]:
    """Paths of all audio files under root/folder, relative to root, posix, sorted."""
    start = root / folder
    return sorted(Path(path).relative_to(root).as_posix() for path in _walk(start)) if start.is_dir() else []


def locate(filenames: pd.Series, primary_labels: pd.Series, paths: Sequence[str]) -> pd.Series:
    """The path of each recording among `paths`, or None.

    `filename` may be the path under the audio folder, a name in the species' folder (2021), with or without its extension; a file
    that lies at the top of the audio folder, or whose name is a Xeno-canto number, is found wherever the table says it is. Other
    names are not looked for in other folders: `1.wav` of one species is not `1.wav` of another.
    """
    exact: dict[str, str] = {}
    anywhere: dict[str, str] = {}
    for path in paths:
        inside = path.split("/", 1)[1]
        name = inside.rsplit("/", 1)[-1]
        _remember(exact, inside, path)
        if "/" not in inside or _XENO_CANTO.match(name):
            _remember(anywhere, name, path)
    found = [
        exact.get(filename) or exact.get(f"{species}/{filename}") or anywhere.get(filename.rsplit("/", 1)[-1])
        for filename, species in zip(filenames, primary_labels, strict=True)
    ]
    return pd.Series(found, index=filenames.index, dtype=object)


def _remember(index: dict[str, str], name: str, path: str) -> None:
    index.setdefault(name, path)
    index.setdefault(name.rsplit(".", 1)[0], path)


def read_headers(root: Path, paths: Sequence[str], *, threads: int = 16) -> pd.DataFrame:
    """duration_s, size_bytes and error of each path, in order. Opening a file releases the interpreter, so threads help."""
    with ThreadPoolExecutor(threads) as pool:
        headers = list(pool.map(lambda path: _read_header(root / path), paths, chunksize=64))
    return pd.DataFrame(
        {
            "duration_s": [header.duration_s for header in headers],
            "size_bytes": [header.size_bytes for header in headers],
            "error": [header.error for header in headers],
        }
    )


def _read_header(path: Path) -> Header:
    try:
        size_bytes = path.stat().st_size
        info = soundfile.info(str(path))
    except OSError as error:
        return Header(0.0, 0, f"cannot be read: {error.strerror}")
    except soundfile.LibsndfileError as error:
        return Header(0.0, size_bytes, f"cannot be opened as audio: {error.error_string}")
    if info.frames == 0:
        return Header(0.0, size_bytes, "has no samples")
    return Header(info.frames / info.samplerate, size_bytes, "")


def _walk(folder: Path) -> Iterator[str]:
    for directory, _, names in os.walk(folder, followlinks=True):
        for name in names:
            if name.rpartition(".")[2].lower() in AUDIO_SUFFIXES and not name.startswith("."):
                yield f"{directory}/{name}"
