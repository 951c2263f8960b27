"""Makes batches of training clips for the device, drawn by (seed, epoch, index).

Shapes: B clips, T samples, C species, M noise additions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from birdclef_core.config import SAMPLE_RATE_HZ, StageConfig
from birdclef_core.data.buffers import WaveBuffers, pinned
from birdclef_core.data.cache import WaveCache
from birdclef_core.data.clip_windows import ClipWindows
from birdclef_core.data.clips import DrawnBatch, draw_batch, draw_windows, loudest, noise_pools, read_clip, read_mixture
from birdclef_core.data.dataset import Dataset
from birdclef_core.data.prefetch import READER_THREADS, FeedStats, Prefetcher
from birdclef_core.data.targets import training_table
from birdclef_core.errors import DataError
from birdclef_core.taxonomy import LabelSpace


@dataclass(frozen=True)
class TrainBatch:
    """Training clips as they leave the CPU. The device turns int16 into float.

    Nothing changes them in place, so that a step that ran out of memory can start again from the same batch.
    """

    wave_BT: Tensor
    """The clips: int16; for a CPU float32, with the same values."""
    target_BC: Tensor
    """float32, the target of each species."""
    weight_B: Tensor
    """float32, the weight of each clip in the loss."""
    rows_B: Tensor
    """int64, the file of each clip, as a row of `TrainFeed.clip_names`: for a recording its row of `dataset.recordings`."""
    noise_clip_M: Tensor
    """int64, the clip that each noise is added to; a clip may get several, M may be 0."""
    noise_wave_MT: Tensor
    """The noise, in the type of `wave_BT`."""
    noise_snr_db_M: Tensor
    """float32, power of the clip over that of the noise, in decibels."""


class TrainFeed:
    """Class-balanced training clips of one stage. A context manager; its threads start with it, and `close` ends them."""

    def __init__(
        self,
        dataset: Dataset,
        cache: WaveCache,
        label_space: LabelSpace,
        stage: StageConfig,
        *,
        windows: Sequence[ClipWindows] = (),
        floats: bool = False,
        threads: int = READER_THREADS,
    ) -> None:
        """Start the threads. Their number changes no batch.

        `windows` are drawn for their shares of the clips of each batch, and recordings for the rest.
        `floats` gives the waves as float32: for a CPU, where a clip is best converted while the processor's cache holds it.
        Raises DataError when no training recording has a species of `label_space`, or none of those, or of those of a source of the stage,
        could be decoded.
        """
        table = training_table(
            dataset,
            label_space,
            secondary_target=stage.secondary_target,
            class_balance=stage.class_balance,
            sources=stage.sources,
        )
        weights = np.where(cache.recording_samples[table.rows_R] > 0, table.sampling_weight_R, 0.0)
        if not weights.any():
            raise DataError(f"No training recording of the label space {label_space.name!r} could be decoded.")
        self.num_recordings = int(np.count_nonzero(weights))
        """Number of training recordings that could be decoded, of all sources."""
        self.num_batches = max(1, (stage.clips_per_epoch or self.num_recordings) // stage.batch_size)
        """Number of batches in an epoch. The last partial one is dropped, but there is at least one."""
        self._table, self._cache, self._stage = table, cache, stage
        self._cumulative_weights = np.cumsum(table.shared(weights))
        self._noise = noise_pools(stage.noise, dataset.noise["group"].to_numpy(dtype=object), cache.noise_samples > 0)
        self._windows = tuple(windows)
        names = [dataset.recordings["recording_id"].to_numpy(), *(item.names_R for item in self._windows)]
        self.clip_names = np.concatenate(names)
        """What to call the files that clips come from: recordings by their rows, then the files of the windows."""
        self._first_name = np.cumsum([0, *map(len, names)])
        self._prefetcher = Prefetcher(self._make, threads=threads, depth=2 * threads)
        dtype: Literal["int16", "float32"] = "float32" if floats else "int16"
        keep = self._prefetcher.in_use
        self._waves, self._noise_waves = WaveBuffers(keep, dtype), WaveBuffers(keep, dtype)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def waited_s(self) -> float:
        """Seconds that the consumer has waited for batches so far."""
        return self._prefetcher.stats.waited_s

    @property
    def stats(self) -> FeedStats:
        """How well the threads and the consumer have kept up with each other so far."""
        return self._prefetcher.stats

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[TrainBatch]:
        """Yield the batches of an epoch from `first_batch` on: the same ones, however many were drawn before."""
        return self._prefetcher.batches(self.drawn(epoch, index) for index in range(first_batch, self.num_batches))

    def drawn(self, epoch: int, index: int) -> DrawnBatch:
        """Return what batch `index` of `epoch` is made of."""
        drawn = self._drawn_of_recordings(epoch, index)
        if not self._windows:
            return drawn
        shares = [item.share for item in self._windows]
        return draw_windows(drawn, self._stage.seed, epoch, index, shares, [item.drawn for item in self._windows])

    def _drawn_of_recordings(self, epoch: int, index: int) -> DrawnBatch:
        return draw_batch(
            self._stage.seed,
            epoch,
            index,
            cumulative_weights=self._cumulative_weights,
            batch_size=self._stage.batch_size,
            noise=self._noise,
            candidates=self._stage.clip_candidates,
        )

    def close(self) -> None:
        """End the threads."""
        self._prefetcher.close()

    def _make(self, drawn: DrawnBatch) -> TrainBatch:
        table = self._table
        rows_B = table.rows_R[drawn.position_B]
        target_BC, weight_B = table.target_RC[drawn.position_B].toarray(), table.weight_R[drawn.position_B]
        wave_BT = self._waves.take(len(rows_B), self._stage.clip_samples)
        for clip, (wave_T, is_mixture) in enumerate(zip(wave_BT.numpy(), table.is_mixture_R[drawn.position_B], strict=True)):
            source, place = int(drawn.source_B[clip]), float(drawn.place_B[clip])
            if source < 0:
                wave_T[:] = self._read(int(rows_B[clip]), [place, *drawn.more_places_BK[clip].tolist()], bool(is_mixture))
                continue
            windows, window = self._windows[source], int(drawn.window_B[clip])
            wave_T[:], target_BC[clip] = windows.read(window, place, self._stage.clip_samples)
            weight_B[clip] = windows.weight_W[window]
            rows_B[clip] = self._first_name[source + 1] + windows.row_W[window]
        noise_wave_MT = self._noise_waves.take(len(drawn.noise_row_M), self._stage.clip_samples)
        for wave_T, row, place in zip(noise_wave_MT.numpy(), drawn.noise_row_M, drawn.noise_place_M, strict=True):
            num_samples = self._cache.num_noise_samples(row)
            wave_T[:] = read_clip(self._cache.read_noise, int(row), num_samples, float(place), len(wave_T))
        return TrainBatch(
            wave_BT=wave_BT,
            target_BC=pinned(target_BC),
            weight_B=pinned(weight_B),
            rows_B=torch.from_numpy(rows_B),
            noise_clip_M=pinned(drawn.noise_clip_M),
            noise_wave_MT=noise_wave_MT,
            noise_snr_db_M=pinned(drawn.noise_snr_db_M),
        )

    def _read(self, row: int, places: Sequence[float], is_mixture: bool) -> NDArray[np.int16]:
        """The loudest of the clips at several places of a recording."""
        num_samples, clip_samples = self._cache.num_samples(row), self._stage.clip_samples

        def read(place: float) -> NDArray[np.int16]:
            if is_mixture:
                return read_mixture(self._cache.read, row, num_samples, place, clip_samples, SAMPLE_RATE_HZ)
            return read_clip(self._cache.read, row, num_samples, place, clip_samples)

        # A recording that is not longer than a clip is heard whole from every place.
        return read(places[0]) if len(places) == 1 or num_samples <= clip_samples else loudest(map(read, places))
