"""Decodes any audio file to mono float32 at the rate of the models, the same way for training, scoring and the cache.

Shapes: T samples, C channels.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.data.audio_stream import AudioStream
from birdclef_core.data.containers.layout import Fault
from birdclef_core.errors import DataError

INT16_SCALE = 32_768
"""int16 = float * INT16_SCALE, and back; 1.0 itself becomes 32767."""

_BLOCK = 131_072  # Samples converted at once: what fits into the processor's cache.
_MOST_VALUES = 2**26
"""A recording with more samples, counted over all channels, is decoded twice instead of being held in memory: from 11 minutes of
stereo at 48 kHz, which take 256 MiB."""
_STEP = 2**17
"""Samples of each channel that are decoded at once in such a recording."""
_NO_LIMIT = 2**62
"""Samples that no file has."""


class Decoding:
    """One recording as mono samples at 32 kHz, in blocks that follow each other.

    Values that are not a number become 0 and infinite ones full scale, channels are averaged, the mean of the recording is
    removed, soxr's high-quality resampler changes the rate, and what then exceeds full scale is clipped. The samples do not
    depend on the size of the blocks.
    """

    def __init__(self, path: Path, *, max_s: float | None = None) -> None:
        """Decode `path`, or its first `max_s` seconds. A long recording is decoded again by `blocks`.

        Raises DataError when it cannot be decoded, holds no samples, or changes meanwhile.
        """
        self._path, self._max_s = path, max_s
        self._has_no_numbers = False
        self._mono_T: NDArray[np.float32] | None = None
        with self._opened() as stream:
            self._rate_hz = stream.sample_rate_hz
            self._length = min(stream.num_frames, self._limit)
            is_long = self._length * stream.channels > _MOST_VALUES
            if not is_long:
                self._decode_whole(stream)
                self._finish(stream)
        if is_long:
            self._look_through()

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield the samples in order, in [-1, 1]; to be called once. Raises DataError when the file has changed meanwhile."""
        count = 0
        for wave_T in self._resampled(np.subtract(wave_T, self._mean, out=wave_T) for wave_T in self._mono_blocks()):
            count += len(wave_T)
            yield np.clip(wave_T, -1.0, 1.0, out=wave_T)
        if not count:
            yield np.zeros(1, dtype=np.float32)

    def _resampled(self, blocks: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Yield `blocks` at the rate of the models. Resampled at once, or block by block, the samples are the same."""
        if self._rate_hz == SAMPLE_RATE_HZ:
            yield from blocks
        elif self._mono_T is not None:
            for wave_T in blocks:
                yield soxr.resample(wave_T, self._rate_hz, SAMPLE_RATE_HZ, quality="HQ")
        else:
            stream = soxr.ResampleStream(self._rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")
            for wave_T in blocks:
                yield stream.resample_chunk(wave_T)
            yield stream.resample_chunk(np.empty(0, dtype=np.float32), last=True)

    @property
    def _limit(self) -> int:
        """Samples of the file that are wanted."""
        return _NO_LIMIT if self._max_s is None else round(self._max_s * self._rate_hz)

    @contextmanager
    def _opened(self) -> Iterator[AudioStream]:
        try:
            with AudioStream(self._path, verify=True) as stream:
                yield stream
        except DataError as error:
            raise DataError(f"{self._path} must be audio that can be decoded, but it {error}.") from error

    def _finish(self, stream: AudioStream) -> None:
        """Take what is known at the end of a pass."""
        if not self._length:
            raise DataError("has no samples")
        stream.check_unchanged()
        self.faults: tuple[Fault, ...] = tuple(stream.faults)
        """What is wrong with the file's structure, such as an end that is missing."""

    def _decode_whole(self, stream: AudioStream) -> None:
        """Keep the recording in memory."""
        wave_TC = stream.read(self._length)
        more = []
        left = self._limit - len(wave_TC)
        while left > 0 and len(piece_TC := stream.read(min(_STEP, left))):
            more.append(piece_TC)
            left -= len(piece_TC)
        if more:
            wave_TC = np.concatenate([wave_TC, *more])
        self._length = len(wave_TC)
        wave_T = self._mixed_down(wave_TC)
        mean = wave_T.mean() if len(wave_T) else np.float32(0)
        if not np.isfinite(mean):
            self._has_no_numbers = True
            wave_T = self._mixed_down(wave_TC)
            mean = wave_T.mean()
        self._mono_T, self._mean = wave_T, mean

    def _look_through(self) -> None:
        """Find the mean of a long recording. It takes another pass where the stated length is wrong or values are not finite."""
        while True:
            with self._opened() as stream:
                found = _Sum(lambda count: self._mixed_down(stream.read(count)), self._length)
                length = found.count
                while length < self._limit and (got := len(stream.read(min(_STEP, self._limit - length)))):
                    length += got
                is_right, self._length = length == self._length, length
                self._mean = np.float32(found.total / np.intp(max(1, length)))
                self._finish(stream)
            if is_right and not (np.isfinite(self._mean) or self._has_no_numbers):
                self._has_no_numbers = True
            elif is_right:
                return

    def _mono_blocks(self) -> Iterator[NDArray[np.float32]]:
        if self._mono_T is not None:
            wave_T, self._mono_T = self._mono_T, None
            yield wave_T
            return
        with self._opened() as stream:
            left = self._length
            while left > 0 and len(wave_TC := stream.read(min(_STEP, left))):
                left -= len(wave_TC)
                yield self._mixed_down(wave_TC)
            stream.check_unchanged()

    def _mixed_down(self, wave_TC: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the mean over channels (T,); a matrix product is ten times faster than `mean` here."""
        if self._has_no_numbers:
            finite_TC = np.nan_to_num(wave_TC, nan=0.0, posinf=1.0, neginf=-1.0)
            wave_TC = np.clip(finite_TC, -1.0, 1.0, out=finite_TC)
        channels = wave_TC.shape[1]
        return wave_TC[:, 0] if channels == 1 else wave_TC @ np.full(channels, 1 / channels, dtype=np.float32)


class _Sum:
    """The sum of a long array that is read in pieces, with the same bits as numpy's sum of the array.

    numpy halves an array until the halves are short, and adds up their sums. The pieces that are read are such halves.
    """

    def __init__(self, read: Callable[[int], NDArray[np.float32]], length: int) -> None:
        """Add up `length` values, or as many as there are."""
        self._read, self._is_over = read, False
        self.count = 0
        """Values that were there."""
        self.total = self._of(length)

    def _of(self, length: int) -> np.float32:
        if length > _STEP:
            half = length // 2 // 8 * 8
            total = self._of(half)
            return total if self._is_over else total + self._of(length - half)
        values = self._read(length)
        self._is_over = len(values) < length
        self.count += len(values)
        return np.add.reduce(values)


def decode(path: Path, *, max_s: float | None = None) -> NDArray[np.float32]:
    """Return a recording, or its first `max_s` seconds, as float32 (T,) at 32 kHz in [-1, 1]; see `Decoding`."""
    blocks = [block for block in Decoding(path, max_s=max_s).blocks() if len(block)]
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def to_int16(wave_T: NDArray[np.float32]) -> NDArray[np.int16]:
    """Return float samples in [-1, 1] as int16, rounded to the nearest step."""
    samples_T = np.empty(len(wave_T), dtype=np.int16)
    scaled = np.empty(min(len(wave_T), _BLOCK), dtype=np.float32)
    for start in range(0, len(wave_T), _BLOCK):
        part_T = wave_T[start : start + _BLOCK]
        block_T = scaled[: len(part_T)]
        np.multiply(part_T, INT16_SCALE, out=block_T)
        np.rint(block_T, out=block_T)
        np.clip(block_T, -INT16_SCALE, INT16_SCALE - 1, out=block_T)
        samples_T[start : start + len(part_T)] = block_T
    return samples_T


def num_samples_at(duration_s: float) -> int:
    """Return how many samples `decode` gives of a file that lasts `duration_s`. Of an MP3 it may be up to .1 s less."""
    return max(1, round(duration_s * SAMPLE_RATE_HZ))
