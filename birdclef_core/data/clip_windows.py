"""Windows of sound whose targets are known window by window: labelled soundscapes, and what a teacher has predicted.

Shapes: W windows, C species, B clips, T samples, R files.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.data.soundscapes import WINDOW_S, Soundscapes
from birdclef_core.data.wave_cache import WaveCache
from birdclef_core.errors import DataError
from birdclef_core.taxonomy import LabelSpace


@dataclass(frozen=True, kw_only=True)
class ClipWindows:
    """Windows of which a share of the clips of each batch is drawn."""

    share: float
    """Share of the clips of a batch."""
    cache: WaveCache
    names_R: NDArray[np.object_]
    """What to call the files in messages."""
    row_W: NDArray[np.int64]
    """File of each window. Windows are in the order of their files, and in a file in the order of time."""
    start_W: NDArray[np.int64]
    """First sample of each window."""
    window_samples: int
    target_WC: NDArray[np.floating]
    weight_W: NDArray[np.float32]
    """Weight of each window in the loss."""
    sampling_weight_W: NDArray[np.float64]
    """Windows are drawn in proportion to this."""
    cumulative_W: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cumulative_W", np.cumsum(self.sampling_weight_W))
        if not len(self.cumulative_W) or not self.cumulative_W[-1] > 0:
            raise DataError("At least one window must have a sampling weight above 0, but none has.")

    def drawn(self, shares: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the windows at some shares, each in [0, 1), of the sum of all sampling weights."""
        found = np.searchsorted(self.cumulative_W, shares * self.cumulative_W[-1], side="right")
        return found.clip(max=len(self.cumulative_W) - 1)

    def read(self, window: int, place: float, clip_samples: int) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
        """Return a clip (T,) and its target (C,).

        A clip that is shorter than the window lies anywhere in it, by `place` in [0, 1), and has the window's target. A longer one begins
        with the window, as far as the file is long enough, and its target is the largest of all windows that it touches. A file that
        is shorter than the clip is repeated to fill it.
        """
        row, spare = int(self.row_W[window]), self.window_samples - clip_samples
        num_samples = self.cache.num_samples(row)
        start = int(self.start_W[window])
        start += int(place * (spare + 1)) if spare > 0 else 0
        start = max(0, min(start, num_samples - clip_samples))
        clip_T = np.resize(self.cache.read(row, start, min(clip_samples, num_samples - start)), clip_samples)
        return clip_T, self._target(row, start, start + clip_samples)

    def _target(self, row: int, start: int, end: int) -> NDArray[np.float32]:
        """The largest target of the windows that lie between two samples of a file, at least in part."""
        first, last = np.searchsorted(self.row_W, [row, row + 1])
        starts = self.start_W[first:last]
        touched = np.flatnonzero((starts < end) & (starts + self.window_samples > start))
        return self.target_WC[first + touched].max(axis=0).astype(np.float32)


def labelled_windows(soundscapes: Soundscapes, cache: WaveCache, space: LabelSpace, share: float) -> ClipWindows:
    """Return the labelled windows of soundscapes that are for training, without those of which more than half could not be decoded.

    Raises DataError when none is left.
    """
    windows = soundscapes.windows.reset_index(drop=True)
    file_W, end_W = windows["file"].to_numpy(dtype=np.int64), windows["end_s"].to_numpy() * SAMPLE_RATE_HZ
    decoded_W = np.array([cache.num_samples(row) for row in range(len(soundscapes.files))])[file_W]
    order = np.lexsort((end_W, file_W))
    order = order[end_W[order] <= decoded_W[order] + WINDOW_S * SAMPLE_RATE_HZ / 2]
    if not len(order):
        raise DataError(f"No labelled soundscape of {soundscapes.root} that is for training could be decoded.")
    start_W = np.rint(end_W - WINDOW_S * SAMPLE_RATE_HZ).astype(np.int64)
    return ClipWindows(
        share=share,
        cache=cache,
        names_R=soundscapes.files["path"].to_numpy(dtype=object),
        row_W=file_W[order],
        start_W=np.maximum(start_W, 0)[order],
        window_samples=WINDOW_S * SAMPLE_RATE_HZ,
        target_WC=soundscapes.truth(space).astype(np.float32)[order],
        weight_W=np.ones(len(order), np.float32),
        sampling_weight_W=np.ones(len(order)),
    )
