"""Makes the windows that trials are scored on: of the validation recordings, the same for every trial, and of labelled
soundscapes.

Shapes: B windows, T samples, C species, R rows that are scored, W windows in all.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.data.buffers import WaveBuffers, pinned
from birdclef_core.data.dataset import Dataset
from birdclef_core.data.prefetch import READER_THREADS, Prefetcher
from birdclef_core.data.soundscapes import WINDOW_S, Soundscapes
from birdclef_core.data.targets import validation_truth
from birdclef_core.data.wave_cache import WaveCache
from birdclef_core.taxonomy import LabelSpace


@dataclass(frozen=True)
class WindowBatch:
    """Windows that are scored together."""

    wave_BT: Tensor
    """int16, the windows."""
    recording_B: Tensor
    """int64, row of `truth_RC` that each window belongs to."""


class Windows(ABC):
    """Windows in batches, with the truth of the rows they belong to. May be iterated many times.

    Its threads start with it and end when nothing refers to it any more.
    """

    def __init__(
        self,
        truth_RC: NDArray[np.uint8],
        group_R: NDArray,
        row_W: NDArray[np.int64],
        start_W: NDArray[np.int64],
        clip_samples: int,
        batch_size: int,
        side: int = 0,
    ) -> None:
        """Take window W from sample `start_W` of row `row_W`, and `side` samples before and after it."""
        self.truth_RC = truth_RC
        """0 or 1 for each row and species."""
        self.group_R = group_R
        """Equal for rows that are alike in more than their species, because they are of one group of the split or of one soundscape."""
        self._row_W, self._start_W, self._batch_size = row_W, start_W, batch_size
        self._clip_samples, self._side = clip_samples + 2 * side, side
        self._prefetcher = Prefetcher(self._make, threads=READER_THREADS, depth=2 * READER_THREADS)
        self._waves = WaveBuffers(self._prefetcher.in_use)

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-self.num_windows // self._batch_size)

    @property
    def num_windows(self) -> int:
        """Number of windows."""
        return len(self._row_W)

    def __iter__(self) -> Iterator[WindowBatch]:
        return self._prefetcher.batches(range(0, self.num_windows, self._batch_size))

    def _make(self, first: int) -> WindowBatch:
        row_B = self._row_W[first : first + self._batch_size]
        wave_BT = self._waves.take(len(row_B), self._clip_samples)
        for wave_T, row, start in zip(wave_BT.numpy(), row_B, self._start_W[first : first + self._batch_size], strict=True):
            self._fill(wave_T, int(row), int(start))
        return WindowBatch(wave_BT, pinned(row_B))

    @abstractmethod
    def _fill(self, wave_T: NDArray[np.int16], row: int, start: int) -> None:
        """Write the window of `row` from sample `start` into `wave_T`."""


class EvaluationWindows(Windows):
    """The windows of the validation recordings, the same for every trial with the same window length.

    The first `max_s` seconds of each validation recording are cut into windows of `clip_s`, the last one padded with zeros. A
    recording shorter than a window is repeated to fill it. One that could not be decoded is a window of silence, so that every
    trial has the same rows.
    """

    def __init__(
        self,
        dataset: Dataset,
        cache: WaveCache,
        label_space: LabelSpace,
        clip_s: float,
        *,
        max_s: float = 60.0,
        batch_size: int,
        side: int = 0,
    ) -> None:
        """Find the windows of the validation recordings whose primary species is in `label_space`. `side`: samples around each window that
        are read too."""
        self.rows_R, truth_RC = validation_truth(dataset, label_space)
        """Rows of `dataset.recordings` that are scored."""
        self._cache = cache
        clip_samples = round(clip_s * SAMPLE_RATE_HZ)
        self._used_R = np.minimum(cache.recording_samples[self.rows_R], round(max_s * SAMPLE_RATE_HZ))
        windows_R = np.maximum(1, -(-self._used_R // clip_samples))
        row_W = np.repeat(np.arange(len(self.rows_R)), windows_R)
        start_W = np.concatenate([np.arange(count) for count in windows_R] or [np.empty(0, np.int64)]) * clip_samples
        group_R = dataset.recordings["group"].to_numpy(dtype=object)[self.rows_R]
        super().__init__(truth_RC, group_R, row_W, start_W, clip_samples, batch_size, side)

    def _fill(self, wave_T: NDArray[np.int16], row: int, start: int) -> None:
        _fill_around(wave_T, self._cache, int(self.rows_R[row]), start, int(self._used_R[row]), self._side)


class SoundscapeWindows(Windows):
    """Every labelled window of the soundscapes. Its rows are those of `soundscapes.windows`.

    `context_s` more is read on each side for models that need it (a SED head on 10 s scores the 5 s in the middle). What lies
    outside the file is zeros.
    """

    def __init__(
        self, soundscapes: Soundscapes, cache: WaveCache, label_space: LabelSpace, *, context_s: float = 0.0, batch_size: int
    ) -> None:
        windows = soundscapes.windows
        self._cache, self._file_R = cache, windows["file"].to_numpy()
        start_R = np.rint((windows["end_s"].to_numpy() - WINDOW_S - context_s) * SAMPLE_RATE_HZ).astype(np.int64)
        clip_samples = round((WINDOW_S + 2 * context_s) * SAMPLE_RATE_HZ)
        truth_RC = soundscapes.truth(label_space)
        super().__init__(truth_RC, self._file_R, np.arange(len(windows)), start_R, clip_samples, batch_size)

    def _fill(self, wave_T: NDArray[np.int16], row: int, start: int) -> None:
        file = int(self._file_R[row])
        _fill_from(wave_T, self._cache, file, start, self._cache.num_samples(file))


class PredictionWindows(Windows):
    """Windows of any recordings, each a row of its own, with what lies around them. A recording that is shorter than a window is repeated."""

    def __init__(
        self,
        cache: WaveCache,
        row_W: NDArray[np.int64],
        start_W: NDArray[np.int64],
        window_samples: int,
        *,
        num_species: int,
        batch_size: int,
        side: int = 0,
    ) -> None:
        """`side`: samples around each window that are read too."""
        self._cache, self._source_W = cache, row_W
        nothing_WC = np.zeros((len(row_W), num_species), np.uint8)
        super().__init__(nothing_WC, row_W, np.arange(len(row_W)), start_W, window_samples, batch_size, side)

    def _fill(self, wave_T: NDArray[np.int16], row: int, start: int) -> None:
        source = int(self._source_W[row])
        _fill_around(wave_T, self._cache, source, start, self._cache.num_samples(source), self._side)


def _fill_around(wave_T: NDArray[np.int16], cache: WaveCache, row: int, start: int, used: int, side: int) -> None:
    """Fill `wave_T` with the window that begins at sample `start`, and `side` samples before and after it. `used`: samples of the recording
    that count; one that has fewer than a window is repeated, also around the window."""
    if 0 < used < len(wave_T) - 2 * side:
        wave_T[:] = np.resize(np.roll(cache.read(row, 0, used), side), len(wave_T))
    else:
        _fill_from(wave_T, cache, row, start - side, used)


def _fill_from(wave_T: NDArray[np.int16], cache: WaveCache, row: int, start: int, used: int) -> None:
    """Fill `wave_T` with the sound from sample `start`; what lies outside the first `used` samples is zeros."""
    from_sample, to_sample = (min(max(0, place), used) for place in (start, start + len(wave_T)))
    wave_T[:] = 0
    wave_T[from_sample - start :][: to_sample - from_sample] = cache.read(row, from_sample, to_sample - from_sample)


def window_grid(
    num_samples_R: NDArray[np.int64], rows_R: NDArray[np.int64], window_samples: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return row and first sample of the windows of recordings, side by side from each beginning.

    A rest that is shorter than a window is left out, but a recording that is shorter has one window. One without samples has none.
    """
    counts_R = np.where(num_samples_R > 0, np.maximum(1, num_samples_R // window_samples), 0)
    starts = np.concatenate([np.arange(count) for count in counts_R] or [np.empty(0, np.int64)]).astype(np.int64)
    return np.repeat(rows_R, counts_R), starts * window_samples
