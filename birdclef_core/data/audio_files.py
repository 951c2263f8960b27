"""Reads the headers of audio files, many at a time."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from birdclef_core.data.audio_stream import AudioStream
from birdclef_core.errors import DataError

_STAT_CHUNK = 256  # Files a thread takes at once: one by one, handing them out would cost more than looking.


@dataclass(frozen=True)
class Header:
    """What the structure of an audio file says."""

    duration_s: float = 0.0
    """Length of the sound that is there, which is what decoding gives, to .1 s."""
    size_bytes: int = 0
    error: str = ""
    """Why it cannot be used; empty when it can."""
    sample_rate_hz: int = 0
    channels: int = 0
    format: str = ""
    """libsndfile's name of the content, such as OGG, whatever the file is called."""
    fault: str = ""
    """What is wrong although it can be used: its end is missing, something inside is, or it states a wrong length."""


def read_headers(root: Path, paths: Sequence[str], *, threads: int = 16) -> pd.DataFrame:
    """Return duration_s, size_bytes and error of each path, in order.

    Opening a file releases the interpreter lock for a part of the time, so threads help.
    """
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
    """Return what the structure of a file says, without decoding it. Damage that only decoding shows is not seen."""
    try:
        size_bytes = path.stat().st_size
    except OSError as error:
        return Header(error=f"cannot be read: {error.strerror}")
    try:
        with AudioStream(path, verify=False) as stream:
            return Header(
                duration_s=stream.num_frames / stream.sample_rate_hz,
                size_bytes=stream.size_bytes,
                error="" if stream.num_frames else "has no samples",
                sample_rate_hz=stream.sample_rate_hz,
                channels=stream.channels,
                format=stream.format,
                fault="; ".join(fault.text for fault in stream.faults),
            )
    except DataError as error:
        return Header(size_bytes=size_bytes, error=str(error))


def stat_files(root: Path, paths: Sequence[str], *, threads: int = 16) -> pd.DataFrame:
    """Return size_bytes and mtime_ns of each path, in order; -1 for a file that is missing or cannot be reached."""

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
