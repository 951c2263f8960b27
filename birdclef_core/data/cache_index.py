"""Reads and writes the finished list of a cache: which entry belongs to which row, and how long it is."""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from birdclef_core.errors import DataError
from birdclef_core.findings import Finding

_NAME = "index.npz"


@dataclass(frozen=True)
class CacheIndex:
    """One row for each audio file: recordings, then noise."""

    keys: NDArray[np.bytes_]
    """Names of the entries."""
    num_samples: NDArray[np.int64]
    """Length of each file; 0 for one that could not be decoded."""
    is_direct: NDArray[np.bool_]
    """Whether there was no room for it, so that it is decoded whenever it is read."""
    num_recordings: int
    """How many of the rows are recordings."""
    max_s: float | None
    """Length of what is used of a file at most; None: everything."""
    findings: tuple[Finding, ...]
    """Files that could not be decoded, that are damaged, and that did not fit."""
    sources: tuple[str, ...] | None = None
    """Paths of the audio files; None: in the file that the index was read from, see `read_sources`."""


def read_index(directory: Path) -> CacheIndex:
    """Return the index that `write_index` wrote, without `sources`. Raises DataError when there is none or it is damaged."""
    path = directory / _NAME
    try:
        with np.load(path) as arrays:
            notes = json.loads(str(arrays["notes"]))
            return CacheIndex(
                keys=arrays["keys"],
                num_samples=arrays["num_samples"],
                is_direct=arrays["is_direct"],
                num_recordings=notes["num_recordings"],
                max_s=notes["max_s"],
                findings=tuple(Finding.restore(note) for note in notes["findings"]),
            )
    except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
        raise DataError(f"A finished cache must have an index, but {path}: {error}. Build the cache first.") from error


def read_sources(directory: Path) -> tuple[str, ...]:
    """Return the paths of the audio files of a finished list; apart from the rest, because few processes need them."""
    with np.load(directory / _NAME) as arrays:
        return tuple(json.loads(arrays["sources"].tobytes()))


def write_index(directory: Path, index: CacheIndex) -> None:
    """Write an index with its `sources`; it appears complete or not at all. Raises OSError when it cannot be written."""
    notes = {
        "num_recordings": index.num_recordings,
        "max_s": index.max_s,
        "findings": [finding.as_json() for finding in index.findings],
    }
    aside = directory / f"index.{os.getpid()}.tmp"
    try:
        with aside.open("wb") as file:
            np.savez(
                file,
                keys=index.keys,
                num_samples=index.num_samples,
                is_direct=index.is_direct,
                sources=np.frombuffer(json.dumps(index.sources).encode(), dtype=np.uint8),
                notes=json.dumps(notes),
            )
        aside.replace(directory / _NAME)
    except OSError:
        with suppress(OSError):
            aside.unlink()
        raise
