"""Lists the audio files that a cache is made of, each with the name of its entry."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from birdclef_core.data.dataset import Dataset
from birdclef_core.data.soundscapes import Soundscapes
from birdclef_core.errors import DataError, InputError
from birdclef_core.identity import fingerprint

MIN_S_PER_RECORDING = 60.0
"""Scoring reads this much of a recording, so the cache must not keep less."""

_FORMAT = "int16 32 kHz 2"
_LIST_VERSION = 2
"""Changes when the lengths that a finished list gives may be others: lists are made again then, from the same entries."""


@dataclass(frozen=True)
class SourceList:
    """Audio files to be cached, in the order of their rows: recordings, then noise."""

    paths: list[str]
    """Absolute."""
    keys: list[str]
    """Names of their entries."""
    duration_s: NDArray[np.float64]
    """Length of what is kept of each."""
    num_recordings: int
    """How many of the rows are recordings."""
    max_s: float | None
    """Length of what is kept at most; None: everything."""
    by_use: NDArray[np.int64]
    """Rows in the order in which they get room: noise, then the recordings of rare species, which are drawn most often."""

    @property
    def fingerprint(self) -> str:
        """Name of the list: it changes with any file."""
        return fingerprint([_LIST_VERSION, self.num_recordings, self.keys])[:32]


def sources_of(dataset: Dataset, max_s: float | None) -> SourceList:
    """Return the recordings and noise files of a dataset.

    Raises InputError when `max_s` is too small, DataError when a file is not there any more.
    """
    if max_s is not None and max_s < MIN_S_PER_RECORDING:
        raise InputError(f"max_s_per_recording >= {MIN_S_PER_RECORDING:g} must hold, but got {max_s:g}.")
    recordings, noise = dataset.recordings, dataset.noise
    species_count = recordings["primary_label"].map(recordings["primary_label"].value_counts())
    return list_sources(
        dataset.root,
        pd.concat([recordings["path"], noise["path"]]),
        pd.concat([recordings["duration_s"], noise["duration_s"]]),
        num_recordings=len(recordings),
        max_s=max_s,
        by_use=np.argsort([*species_count, *([0] * len(noise))], kind="stable"),
    )


def soundscape_sources(soundscapes: Soundscapes) -> SourceList:
    """Return the files of labelled soundscapes. Raises DataError when one is not there any more."""
    files = soundscapes.files
    every = np.arange(len(files))
    return list_sources(soundscapes.root, files["path"], files["duration_s"], num_recordings=len(files), max_s=None, by_use=every)


def list_sources(
    root: Path, paths: pd.Series, duration_s: pd.Series, *, num_recordings: int, max_s: float | None, by_use: NDArray[np.int64]
) -> SourceList:
    """Return files under `root` with the keys that they have now. Raises DataError when one is not there."""
    folder = str(root.resolve())
    absolute = [os.path.join(folder, path) for path in paths]  # noqa: PTH118 - Path takes ten times as long
    keys = [source_key(path, max_s) for path in absolute]
    return SourceList(absolute, keys, duration_s.clip(upper=max_s).to_numpy(), num_recordings, max_s, by_use)


def source_key(path: str, max_s: float | None) -> str:
    """Return the name of a file's entry: a hash of its path, size and time of change. Raises DataError when it is not there."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a hundred thousand of them at every start
    except OSError as error:
        raise DataError(f"{path} must be there to be decoded, but: {error.strerror}.") from error
    identity = f"{_FORMAT}\0{path}\0{status.st_size}\0{status.st_mtime_ns}\0{max_s}"
    return hashlib.blake2b(identity.encode(errors="surrogateescape"), digest_size=16).hexdigest()
