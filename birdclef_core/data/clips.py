"""Draws clips: which recordings, where in them, with which noise; and reads them. Drawing is a pure function of (seed, epoch,
index).

Shapes: B clips, T samples, M noise additions.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from birdclef_core.augment_config import NoiseGroup
from birdclef_core.data.targets import MAX_BACKGROUND_S

ReadSamples = Callable[[int, int, int], NDArray[np.int16]]
"""Reads (row, start, length): samples of a recording."""


@dataclass(frozen=True)
class NoisePool:
    """The noise files that one group of a stage draws from."""

    group: NoiseGroup
    """How often and how loud the noise is."""
    rows: NDArray[np.int64]
    """Rows of `dataset.noise`."""


@dataclass(frozen=True)
class DrawnBatch:
    """What a batch is made of, before anything is read. Places are shares of what may be chosen, in [0, 1)."""

    position_B: NDArray[np.int64]
    """Position of each clip's recording in the training table."""
    place_B: NDArray[np.float64]
    """Place of each clip in its recording."""
    more_places_BK: NDArray[np.float64]
    """Other places from which a clip of a recording may be taken."""
    noise_clip_M: NDArray[np.int64]
    """The clip of the batch that each noise is added to."""
    noise_row_M: NDArray[np.int64]
    """Row of `dataset.noise`."""
    noise_place_M: NDArray[np.float64]
    """Place of the noise in its file."""
    noise_snr_db_M: NDArray[np.float32]
    """Power of the clip over that of the noise, in decibels."""
    source_B: NDArray[np.int64]
    """The windows that each clip is drawn from, by their number; -1: a recording."""
    window_B: NDArray[np.int64]
    """The window of each clip; meaningless for a clip of a recording."""


def draw_batch(
    seed: int,
    epoch: int,
    index: int,
    *,
    cumulative_weights: NDArray[np.float64],
    batch_size: int,
    noise: Sequence[NoisePool],
    candidates: int = 1,
) -> DrawnBatch:
    """Return batch `index` of `epoch`: the same for the same numbers, whatever was drawn before. `seed` may be any integer >= 0.

    A recording is drawn in proportion to the step of `cumulative_weights` at its position. With more candidates for the place of each clip,
    everything else stays as it was.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, epoch, index]))
    drawn = rng.random(batch_size) * cumulative_weights[-1]
    position_B = np.searchsorted(cumulative_weights, drawn, side="right").clip(max=len(cumulative_weights) - 1)
    place_B = rng.random(batch_size)
    clips, rows, places, ratios = [], [], [], []
    for pool in noise:
        clip_M = np.flatnonzero(rng.random(batch_size) < pool.group.prob)
        clips.append(clip_M)
        rows.append(rng.choice(pool.rows, len(clip_M)))
        places.append(rng.random(len(clip_M)))
        ratios.append(rng.uniform(pool.group.snr_db_min, pool.group.snr_db_max, len(clip_M)))
    return DrawnBatch(
        position_B=position_B,
        place_B=place_B,
        more_places_BK=rng.random((batch_size, candidates - 1)),
        noise_clip_M=np.concatenate([*clips, np.empty(0)]).astype(np.int64),
        noise_row_M=np.concatenate([*rows, np.empty(0)]).astype(np.int64),
        noise_place_M=np.concatenate([*places, np.empty(0)]),
        noise_snr_db_M=np.concatenate([*ratios, np.empty(0)]).astype(np.float32),
        source_B=np.full(batch_size, -1),
        window_B=np.zeros(batch_size, np.int64),
    )


def draw_windows(
    batch: DrawnBatch, seed: int, epoch: int, index: int, shares: Sequence[float], draw: Sequence[Callable[[NDArray], NDArray]]
) -> DrawnBatch:
    """Return a batch of which shares of the clips are windows. The other clips stay what they were.

    `draw`: for each kind of windows, the windows at numbers in [0, 1).
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, epoch, index, 1]))
    batch_size = len(batch.position_B)
    source_B = np.searchsorted(np.cumsum(shares), rng.random(batch_size), side="right")
    number_B = rng.random(batch_size)
    window_B = np.zeros(batch_size, np.int64)
    for source, at in enumerate(draw):
        window_B[source_B == source] = at(number_B[source_B == source])
    return replace(batch, source_B=np.where(source_B < len(draw), source_B, -1), window_B=window_B)


def noise_pools(
    groups: Sequence[NoiseGroup], noise_group: NDArray[np.object_], usable: NDArray[np.bool_]
) -> tuple[NoisePool, ...]:
    """Return the usable noise rows of each group. The source `*`, or one without files, means every file; a group for which there
    is no file at all is left out."""
    pools = []
    for group in groups:
        own = np.flatnonzero((noise_group == group.source) & usable)
        rows = own if group.source != "*" and len(own) else np.flatnonzero(usable)
        if len(rows):
            pools.append(NoisePool(group, rows))
    return tuple(pools)


def read_clip(read: ReadSamples, row: int, num_samples: int, place: float, clip_samples: int) -> NDArray[np.int16]:
    """Return a clip (T,) of a recording, at a uniform offset. A shorter recording is repeated from a uniform phase."""
    if num_samples >= clip_samples:
        return read(row, int(place * (num_samples - clip_samples + 1)), clip_samples)
    whole = read(row, 0, num_samples)
    return np.resize(np.roll(whole, -int(place * num_samples)), clip_samples)


def loudest(clips: Iterable[NDArray[np.int16]]) -> NDArray[np.int16]:
    """Return the clip (T,) with the most energy above the rumble of wind and engines; of clips with the same, the first.

    The energy is that of the differences of neighbouring samples: at 100 Hz a difference is a fiftieth of the sound, at 5 kHz it is as
    large. It is exact for clips of up to 60 s at 32 kHz, so that every machine chooses the same.
    """
    return max(clips, key=_energy_of_differences)


def _energy_of_differences(clip_T: NDArray[np.int16]) -> float:
    difference_T = np.diff(clip_T.astype(np.float64))
    return float(difference_T @ difference_T)


def read_mixture(
    read: ReadSamples, row: int, num_samples: int, place: float, clip_samples: int, sample_rate_hz: int
) -> NDArray[np.int16]:
    """Return the sum (T,) of up to k = floor(60 s / clip) clips in a row, so that whatever is heard in those 60 s is in the clip.

    This is self-mixup. A recording of less than k clips is heard whole, from its beginning, with zeros after its end: of 19 s in
    clips of 10 s, the first 10 s are added to the last 9 s. The 2023 solution does the same. Of a longer recording, k clips are
    read at a uniform offset. One that is not longer than a clip is read as by `read_clip`. Where the sum would exceed int16, all of
    it is made quieter, so that nothing is clipped.
    """
    parts = min(int(MAX_BACKGROUND_S * sample_rate_hz) // clip_samples, -(-num_samples // clip_samples))
    if parts < 2:
        return read_clip(read, row, num_samples, place, clip_samples)
    if num_samples < parts * clip_samples:
        samples = np.zeros(parts * clip_samples, np.int16)
        samples[:num_samples] = read(row, 0, num_samples)
    else:
        samples = read_clip(read, row, num_samples, place, parts * clip_samples)
    summed = samples.reshape(parts, clip_samples).sum(axis=0, dtype=np.int32)
    limit = np.iinfo(np.int16).max
    peak = int(np.abs(summed).max())
    if peak > limit:
        summed = np.rint(summed * (limit / peak))
    return summed.astype(np.int16)
