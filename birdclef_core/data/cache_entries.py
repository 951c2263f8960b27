"""The files of the cache: one decoded recording each, with a check sum for every block, so that damage is seen when it is read.

An entry is whole blocks of little-endian int16 samples (the last one filled up with zeros), then one 64-bit sum a block, then
the number of samples and a mark. A clip is read with two system calls and no mapping: what a trial has read stays in the page
cache, shared by all, and does not count as its memory.

Shapes: T samples, K blocks.
"""

import os
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_BLOCK = 4096
_BLOCK_BYTES = 2 * _BLOCK
_SUM_BYTES = 8
_END = np.dtype([("num_samples", "<u8"), ("mark", "S8")])
_MARK = b"birdwav1"
_SALT = np.uint64(0x9E3779B97F4A7C15)


class DamagedEntry(Exception):
    """An entry that is missing, cut or changed."""


def entry_bytes(num_samples: int) -> int:
    """Size of the entry of so many samples."""
    return _num_blocks(num_samples) * (_BLOCK_BYTES + _SUM_BYTES) + _END.itemsize


def stored_samples(path: str) -> int | None:
    """Samples in an entry; None when it is not there or not whole."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a hundred thousand of them at every start
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _END.itemsize))
            end = np.frombuffer(file.read(_END.itemsize).ljust(_END.itemsize), dtype=_END)[0]
    except FileNotFoundError:
        return None
    num_samples = int(end["num_samples"])
    return num_samples if end["mark"] == _MARK and size == entry_bytes(num_samples) else None


def write_entry(path: str, samples_T: NDArray[np.int16], scratch_dir: Path) -> None:
    """Writes an entry aside, in `scratch_dir` on the same disk, and moves it into place. Raises OSError when the disk is full."""
    num_blocks = _num_blocks(len(samples_T))
    whole_T = samples_T[: len(samples_T) // _BLOCK * _BLOCK]
    last_T = np.zeros(num_blocks * _BLOCK - len(whole_T), dtype=np.int16)
    last_T[: len(samples_T) - len(whole_T)] = samples_T[len(whole_T) :]
    sums_K = np.concatenate([_sums(whole_T, 0), _sums(last_T, len(whole_T) // _BLOCK)])
    end = np.array([(len(samples_T), _MARK)], dtype=_END).tobytes()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    aside = scratch_dir / f"{os.getpid()}-{threading.get_ident()}.tmp"
    try:
        with aside.open("wb", buffering=0) as file:
            for part in (whole_T.data, last_T.data, sums_K.data, memoryview(end)):
                _write_all(file.fileno(), part.cast("B"))
        aside.replace(path)
    except OSError:
        with suppress(FileNotFoundError):
            aside.unlink()
        raise


def read_entry(path: str, num_samples: int, start: int, length: int) -> NDArray[np.int16]:
    """`length` samples from `start` of an entry with `num_samples`. Raises DamagedEntry, saying what is wrong."""
    first, last = start // _BLOCK, _num_blocks(start + length)
    blocks_KT = np.empty((last - first, _BLOCK), dtype=np.int16)
    sums_K = np.empty(last - first, dtype=np.uint64)
    sums_start = _num_blocks(num_samples) * _BLOCK_BYTES + first * _SUM_BYTES
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            got = os.preadv(file, [blocks_KT.data], first * _BLOCK_BYTES) + os.preadv(file, [sums_K.data], sums_start)
        finally:
            os.close(file)
    except OSError as error:
        raise DamagedEntry(f"cannot be read: {error.strerror}") from error
    if got != blocks_KT.nbytes + sums_K.nbytes:
        raise DamagedEntry("is cut")
    samples_T = blocks_KT.reshape(-1)
    if not (_sums(samples_T, first) == sums_K).all():
        raise DamagedEntry("has changed on the disk")
    return samples_T[start - first * _BLOCK :][:length]


def _num_blocks(num_samples: int) -> int:
    return -(-num_samples // _BLOCK)


def _sums(samples_T: NDArray[np.int16], first_block: int) -> NDArray[np.uint64]:
    """A sum for each whole block: any change of one word shows, and so do zeros and a block in another's place."""
    words_KW = samples_T.view(np.uint64).reshape(-1, _BLOCK_BYTES // 8)
    places_K = np.arange(first_block + 1, first_block + 1 + len(words_KW), dtype=np.uint64)
    return np.add.reduce(words_KW, axis=1) + places_K * _SALT


def _write_all(file: int, data: memoryview) -> None:
    while len(data):
        data = data[os.write(file, data) :]
