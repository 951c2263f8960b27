"""The part of soxr that decoding uses, for machines without soxr: a resampler by a windowed sinc, for sound in one piece or in blocks.

Where soxr is installed, it is used, and scores of files at other rates than 32 kHz are those of the project to the last digit.
Shapes: T samples.
"""

import math

import numpy as np
from numpy.typing import NDArray

_CROSSINGS = 48
"""Zero crossings of the sinc on each side."""
_KAISER_BETA = 11.0
_PASS = 0.955
"""Share of the lower of the two bandwidths that passes."""
_AT_ONCE = 2**14
"""Output samples that are computed at once."""


class ResampleStream:
    """Resamples mono sound that comes in blocks."""

    def __init__(self, in_rate: float, out_rate: float, num_channels: int, dtype: str = "float32", quality: str = "HQ") -> None:
        """Resample from `in_rate` to `out_rate`. Raises ValueError for more than one channel."""
        if num_channels != 1:
            raise ValueError(f"num_channels must be 1, but got {num_channels}.")
        common = math.gcd(int(in_rate), int(out_rate))
        self._up, self._down = int(out_rate) // common, int(in_rate) // common
        cutoff = _PASS * min(1.0, out_rate / in_rate)
        self._side = math.ceil(_CROSSINGS / cutoff)
        self._cutoff = cutoff
        self._filters: dict[int, NDArray[np.float32]] = {}
        self._held = np.zeros(self._side, dtype=np.float32)
        self._first = -self._side
        """Where `_held` begins in the sound; silence lies before the sound."""
        self._received = self._given = 0

    def resample_chunk(self, x: NDArray[np.floating], last: bool = False) -> NDArray[np.float32]:
        """Return the samples that can be computed now. With `last`, silence follows the block, and all that remain are returned."""
        self._received += len(x)
        tail = [np.zeros(self._side + 1, dtype=np.float32)] if last else []
        self._held = np.concatenate([self._held, np.asarray(x, dtype=np.float32), *tail])
        if last:
            end = round(self._received * self._up / self._down)
        else:
            # The last output of which the filter ends within what is there.
            end = max(self._given, ((self._received - self._side - 1) * self._up) // self._down)
        parts = [self._compute(first, min(first + _AT_ONCE, end)) for first in range(self._given, end, _AT_ONCE)]
        self._given = end
        needed_from = self._given * self._down // self._up - self._side
        if needed_from > self._first:
            self._held = self._held[needed_from - self._first :]
            self._first = needed_from
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)

    def _compute(self, first: int, end: int) -> NDArray[np.float32]:
        """Return output samples `first` to before `end`: phase by phase, as all samples of a phase have the same filter."""
        samples = np.empty(end - first, dtype=np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(self._held, 2 * self._side + 1)
        for offset in range(min(self._up, end - first)):
            numbers = np.arange(first + offset, end, self._up)
            places = numbers * self._down // self._up - self._side - self._first
            samples[offset :: self._up] = windows[places] @ self._filter(int(numbers[0]) * self._down % self._up)
        return samples

    def _filter(self, phase: int) -> NDArray[np.float32]:
        """The filter of outputs that lie phase / up samples behind an input sample."""
        if phase not in self._filters:
            distance = np.arange(-self._side, self._side + 1) - phase / self._up
            window = np.i0(_KAISER_BETA * np.sqrt(np.clip(1 - (distance / (self._side + 1)) ** 2, 0, 1))) / np.i0(_KAISER_BETA)
            taps = self._cutoff * np.sinc(self._cutoff * distance) * window
            self._filters[phase] = (taps / taps.sum()).astype(np.float32)
        return self._filters[phase]


def resample(x: NDArray[np.floating], in_rate: float, out_rate: float, quality: str = "HQ") -> NDArray[np.float32]:
    """Return mono sound at another rate."""
    return ResampleStream(in_rate, out_rate, 1, quality=quality).resample_chunk(x, last=True)
