"""Reads a file as mono samples at 32 kHz, block by block, with or without its mean.

Shapes: T samples, C channels.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.data.audio_stream import AudioStream
from birdclef_core.data.decode import Decoding
from birdclef_core.errors import DataError
from birdclef_core.inference.procedure import Procedure

_STEP = 2**17
"""Samples of each channel that are decoded at once."""


class SoundFile:
    """The sound of one file, to be read once from its beginning."""

    def __init__(self, path: Path, procedure: Procedure) -> None:
        """Open a file. Raises DataError when it cannot be decoded or holds no samples."""
        self._path = path
        self._decoding = Decoding(path) if procedure.remove_mean else None
        self.faults: tuple[str, ...] = ()
        """What is wrong with the file although it can be used, such as an end that is missing; known when it has been read."""

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield the samples in order, in [-1, 1]. Raises DataError when the file cannot be read or has changed meanwhile."""
        if self._decoding is None:
            yield from self._as_recorded()
        else:
            self.faults = tuple(fault.text for fault in self._decoding.faults)
            yield from self._decoding.blocks()

    def _as_recorded(self) -> Iterator[NDArray[np.float32]]:
        """Yield the samples with the recording's mean in them, in one pass."""
        try:
            with AudioStream(self._path, verify=True) as stream:
                count = 0
                for wave_T in _resampled(_mono_blocks(stream), stream.sample_rate_hz):
                    count += len(wave_T)
                    yield np.clip(wave_T, -1.0, 1.0)
                if not count:
                    raise DataError("has no samples")
                stream.check_unchanged()
                self.faults = tuple(fault.text for fault in stream.faults)
        except DataError as error:
            raise DataError(f"{self._path} must be audio that can be decoded, but it {error}.") from error


def _mono_blocks(stream: AudioStream) -> Iterator[NDArray[np.float32]]:
    """Yield the mean of the channels; what is not a number becomes 0, and what is infinite full scale."""
    while len(wave_TC := stream.read(_STEP)):
        if not np.isfinite(wave_TC).all():
            wave_TC = np.clip(np.nan_to_num(wave_TC, nan=0.0, posinf=1.0, neginf=-1.0), -1.0, 1.0)
        yield wave_TC[:, 0] if wave_TC.shape[1] == 1 else wave_TC.mean(axis=1)


def _resampled(blocks: Iterator[NDArray[np.float32]], rate_hz: int) -> Iterator[NDArray[np.float32]]:
    if rate_hz == SAMPLE_RATE_HZ:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")
    for wave_T in blocks:
        yield stream.resample_chunk(wave_T)
    yield stream.resample_chunk(np.empty(0, dtype=np.float32), last=True)
