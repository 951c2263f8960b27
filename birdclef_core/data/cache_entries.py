"""Reads and writes the files of the cache: each a decoded recording with a check sum for every block, so that damage is seen.

An entry is complete blocks of little-endian int16 samples (the last one filled up with zeros), then one 64-bit sum for each
block, then the number of samples and a mark. A clip is read with two system calls and without a memory map: what a trial has read
stays in the page cache, is shared by all, and does not count as its memory.

Shapes: T samples, K blocks.
"""

import os
import threading
from collections.abc import Iterable
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
    """An entry that is missing, cut off or changed."""


def entry_path(folder: str, key: str) -> str:
    """Return where an entry lies under the cache's `audio` folder."""
    return f"{folder}/{key[:2]}/{key}.wave"


def entry_bytes(num_samples: int) -> int:
    """Return the size of an entry with `num_samples`."""
    return _num_blocks(num_samples) * (_BLOCK_BYTES + _SUM_BYTES) + _END.itemsize


def stored_samples(path: str) -> int | None:
    """Return the number of samples in an entry; None when it is missing or incomplete."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a hundred thousand of them at every start
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _END.itemsize))
            end = np.frombuffer(file.read(_END.itemsize).ljust(_END.itemsize), dtype=_END)[0]
    except OSError:
        return None
    num_samples = int(end["num_samples"])
    return num_samples if end["mark"] == _MARK and size == entry_bytes(num_samples) else None


def write_entry(path: str, blocks: Iterable[NDArray[np.int16]], scratch_dir: Path) -> int:
    """Write the samples of `blocks`, one after the other, as an entry; return how many there are.

    The file is written in `scratch_dir`, on the same disk, and moved into place. Raises OSError when it cannot be written;
    whatever `blocks` raises passes through. Nothing is left behind then.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    aside = scratch_dir / f"{os.getpid()}-{threading.get_ident()}.tmp"
    try:
        with aside.open("wb", buffering=0) as file:
            num_samples = _write_samples(file.fileno(), blocks)
        aside.replace(path)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise
    return num_samples


def read_entry(path: str, num_samples: int, start: int, length: int) -> NDArray[np.int16]:
    """Return `length` samples from `start` of an entry with `num_samples`. Raises DamagedEntry, which says what is wrong."""
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
        raise DamagedEntry("is cut off")
    samples_T = blocks_KT.reshape(-1)
    if not (_sums(samples_T, first) == sums_K).all():
        raise DamagedEntry("has changed on the disk")
    return samples_T[start - first * _BLOCK :][:length]


def _write_samples(file: int, blocks: Iterable[NDArray[np.int16]]) -> int:
    """Write samples, sums and end; return the number of samples."""
    num_samples = num_blocks = 0
    sums: list[NDArray[np.uint64]] = []
    left_T = np.empty(0, dtype=np.int16)
    for samples_T in blocks:
        num_samples += len(samples_T)
        joined_T = np.concatenate([left_T, samples_T]) if len(left_T) else samples_T
        whole_T = joined_T[: len(joined_T) // _BLOCK * _BLOCK]
        left_T = joined_T[len(whole_T) :]
        sums.append(_sums(whole_T, num_blocks))
        num_blocks += len(sums[-1])
        _write_all(file, whole_T.data)
    last_T = np.zeros(_num_blocks(len(left_T)) * _BLOCK, dtype=np.int16)
    last_T[: len(left_T)] = left_T
    sums.append(_sums(last_T, num_blocks))
    end = np.array([(num_samples, _MARK)], dtype=_END).tobytes()
    for part in (last_T.data, np.concatenate(sums).data, memoryview(end)):
        _write_all(file, part)
    return num_samples


def _num_blocks(num_samples: int) -> int:
    return -(-num_samples // _BLOCK)


def _sums(samples_T: NDArray[np.int16], first_block: int) -> NDArray[np.uint64]:
    """Return a sum for each block. Any change of one word shows, and so do zeros and a block in the place of another."""
    words_KW = samples_T.view(np.uint64).reshape(-1, _BLOCK_BYTES // 8)
    places_K = np.arange(first_block + 1, first_block + 1 + len(words_KW), dtype=np.uint64)
    return np.add.reduce(words_KW, axis=1) + places_K * _SALT


def _write_all(file: int, part: memoryview) -> None:
    data = part.cast("B")
    while len(data):
        data = data[os.write(file, data) :]
