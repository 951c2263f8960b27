"""Augmentation of waveforms in training: noise and gain of single clips, and time shift after mixing.

The order is that of the 2023 solution: coloured noise, background noise, gain. Each noise is measured against the sum of the clip and the
noises before it. Parameters are drawn on the host by a CPU generator (`draw_*`), so that nothing waits for the device. A CPU takes
clips one by one, because its cache can hold a clip but not a batch; a GPU takes all at once. Waveforms are changed in place (`*_`): a
batch of them is large, and on a CPU, memory for a second one costs more than the augmentation.

Shapes: B clips, X stretches that are shifted by themselves, M noises or clips an effect was drawn for, T samples.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from birdclef_core.audio.coloured_noise import COLOURED_NOISE, ColouredNoise, NoiseMeasure, coloured_noise
from birdclef_core.audio.host_draws import chosen, rows_of, to_device, uniform
from birdclef_core.augment_config import AugmentConfig
from birdclef_core.config import SAMPLE_RATE_HZ

_TINY = 1e-6
_SEED_LIMIT = 2**62
_LN_10_OVER_20 = 0.11512925464970229


@dataclass(frozen=True)
class BackgroundNoise:
    """Background noise for the clips of a batch, on the host. A clip may get several noises, in the order in which they stand here."""

    clip_M: Tensor
    """int64, the clip that each noise is added to."""
    wave_MT: Tensor
    """The noises, at any level."""
    snr_db_M: Tensor
    """Decibels (RMS) from the noise up to the sum of the clip and its noises so far."""


@dataclass(frozen=True, kw_only=True)
class WaveAugment:
    """Parameters drawn for the clips of a batch, on the host."""

    noise_kind_B: Tensor
    """int64, which of the kinds of coloured noise that the config names; -1: none."""
    noise_level_B: Tensor
    """Level of the noise, as the `measure` of its kind says."""
    noise_seed: int
    gain_db_B2: Tensor
    """Gain before and after a transition; without one the two are equal."""
    transition_B2: Tensor
    """Sample at which the transition begins, and the number of samples that it takes."""


@dataclass(frozen=True)
class ClipAugment:
    """Parameters drawn for one clip, as plain numbers."""

    noise: ColouredNoise | None
    noise_level: float
    background: tuple[tuple[int, float], ...]
    """Row of `BackgroundNoise.wave_MT` and signal-to-noise ratio of each noise."""
    gain_db: tuple[float, float]
    transition: tuple[float, float]


def draw_wave_augment(config: AugmentConfig, batch_size: int, num_samples: int, generator: torch.Generator) -> WaveAugment:
    """Draw coloured noise and gain for each clip; `generator` is on the CPU. A clip has one gain, a transition, or neither."""
    noise_kind_B, noise_level_B = torch.full((batch_size,), -1), torch.zeros(batch_size)
    noisy_M = rows_of(chosen(config.coloured_noise_prob, batch_size, generator))
    if len(noisy_M):
        kinds = COLOURED_NOISE[config.coloured_noise]
        weight, low, high = (torch.tensor([getattr(kind, name) for kind in kinds]) for name in ("weight", "low", "high"))
        kind_M = torch.multinomial(weight, len(noisy_M), replacement=True, generator=generator)
        noise_kind_B[noisy_M] = kind_M
        noise_level_B[noisy_M] = torch.lerp(low[kind_M], high[kind_M], torch.rand(len(noisy_M), generator=generator))
    gain_db_B2 = uniform(-config.gain_db, config.gain_db, batch_size, 2, generator=generator)
    which_B = torch.rand(batch_size, generator=generator)
    is_constant_B = which_B < config.gain_prob
    gain_db_B2[:, 1] = torch.where(is_constant_B, gain_db_B2[:, 0], gain_db_B2[:, 1])
    gain_db_B2[which_B >= config.gain_prob + config.gain_transition_prob] = 0
    span_B = SAMPLE_RATE_HZ * uniform(config.gain_transition_s_min, config.gain_transition_s_max, batch_size, generator=generator)
    begin_B = torch.rand(batch_size, generator=generator) * (num_samples + span_B) - span_B
    return WaveAugment(
        noise_kind_B=noise_kind_B,
        noise_level_B=noise_level_B,
        noise_seed=int(torch.randint(_SEED_LIMIT, (), generator=generator)),
        gain_db_B2=gain_db_B2,
        transition_B2=torch.stack((begin_B, span_B), dim=1),
    )


def augment_waves_(wave_BT: Tensor, drawn: WaveAugment, background: BackgroundNoise, config: AugmentConfig) -> Tensor:
    """Augment all clips at once, as `augment_clip_` does one by one, but with other random numbers in the noise. Return wave_BT itself."""
    device, generator = wave_BT.device, torch.Generator(wave_BT.device).manual_seed(drawn.noise_seed)
    for number, kind in enumerate(COLOURED_NOISE[config.coloured_noise]):
        clip_M = rows_of(drawn.noise_kind_B == number)
        if len(clip_M):
            noise_MT = coloured_noise(kind.colour, len(clip_M), wave_BT.shape[1], generator)
            _add_noise_(wave_BT, clip_M, noise_MT, kind.measure, to_device(drawn.noise_level_B[clip_M], device))
    noise_MT, snr_db_M = (to_device(part, device) for part in (background.wave_MT, background.snr_db_M))
    for row_M in _rounds(background.clip_M):
        row = to_device(row_M, device)
        _add_noise_(wave_BT, background.clip_M[row_M], noise_MT[row].float(), "rms_snr_db", snr_db_M[row])
    is_changing_B = drawn.gain_db_B2[:, 0] != drawn.gain_db_B2[:, 1]
    wave_BT *= _db_to_factor(to_device(drawn.gain_db_B2[:, 0].masked_fill(is_changing_B, 0), device))[:, None]
    if is_changing_B.any():
        _fade_(wave_BT, rows_of(is_changing_B), drawn)
    return wave_BT


def by_clip(drawn: WaveAugment, background: BackgroundNoise, config: AugmentConfig) -> Iterator[ClipAugment]:
    """Yield the parameters of each clip."""
    own: list[list[tuple[int, float]]] = [[] for _ in range(len(drawn.noise_kind_B))]
    for row, (clip, snr_db) in enumerate(zip(background.clip_M.tolist(), background.snr_db_M.tolist(), strict=True)):
        own[clip].append((row, snr_db))
    noises = zip(drawn.noise_kind_B.tolist(), drawn.noise_level_B.tolist(), own, strict=True)
    gains = zip(drawn.gain_db_B2.tolist(), drawn.transition_B2.tolist(), strict=True)
    for (kind, level, rows), ((before_db, after_db), (begin, span)) in zip(noises, gains, strict=True):
        noise = None if kind < 0 else COLOURED_NOISE[config.coloured_noise][kind]
        yield ClipAugment(noise, level, tuple(rows), (before_db, after_db), (begin, span))


def augment_clip_(wave_T: Tensor, drawn: ClipAugment, background_MT: Tensor, generator: torch.Generator) -> Tensor:
    """Add coloured noise, then background noise, and apply the gain, on a CPU. Return wave_T itself.

    `generator` makes the coloured noise. Noise that is measured against a silent clip adds nothing, and so does silent noise.
    """
    if drawn.noise is not None:
        (noise_T,) = coloured_noise(drawn.noise.colour, 1, len(wave_T), generator)
        if drawn.noise.measure == "rms":
            factor = drawn.noise_level / max(_rms(noise_T), _TINY)
        else:
            level = _peak if drawn.noise.measure == "peak_snr_db" else _rms
            factor = level(wave_T) / max(level(noise_T), _TINY) * 10 ** (-drawn.noise_level / 20)
        wave_T.add_(noise_T, alpha=factor)
    for row, snr_db in drawn.background:
        noise_T = background_MT[row].float()
        wave_T.add_(noise_T, alpha=_rms(wave_T) / max(_rms(noise_T), _TINY) * 10 ** (-snr_db / 20))
    _change_gain_(wave_T, *drawn.gain_db, *drawn.transition)
    return wave_T


def shift_waves_(wave_XT: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Roll the stretches that are chosen by a random share of their length, what leaves at the end coming back at the start. Return
    wave_XT itself."""
    shifted_M = rows_of(chosen(config.time_shift_prob, len(wave_XT), generator))
    for row, share in zip(shifted_M.tolist(), torch.rand(len(shifted_M), generator=generator).tolist(), strict=True):
        wave_XT[row] = torch.roll(wave_XT[row], int(share * wave_XT.shape[1]))
    return wave_XT


def _rounds(clip_M: Tensor) -> Iterator[Tensor]:
    """Yield the first noises of all clips, then the second ones, and so on: the rows of `clip_M`, each clip at most once a round."""
    rounds: list[list[int]] = []
    seen: dict[int, int] = {}
    for row, clip in enumerate(clip_M.tolist()):
        seen[clip] = seen.get(clip, -1) + 1
        if seen[clip] == len(rounds):
            rounds.append([])
        rounds[seen[clip]].append(row)
    yield from map(torch.tensor, rounds)


def _add_noise_(wave_BT: Tensor, clip_M: Tensor, noise_MT: Tensor, measure: NoiseMeasure, level_M: Tensor) -> None:
    """Add noise m at its level to clip clip_M[m] (on the host); no clip comes twice."""
    row_M = to_device(clip_M, wave_BT.device)
    own_MT = wave_BT.index_select(0, row_M)
    if measure == "rms":
        factor_M = level_M / _rms_of_each(noise_MT).clamp(min=_TINY)
    else:
        size = _peak_of_each if measure == "peak_snr_db" else _rms_of_each
        factor_M = size(own_MT) / size(noise_MT).clamp(min=_TINY) * _db_to_factor(-level_M)
    wave_BT.index_copy_(0, row_M, own_MT.addcmul_(noise_MT, factor_M[:, None]))


def _change_gain_(wave_T: Tensor, before_db: float, after_db: float, begin: float, span: float) -> None:
    """Apply a gain that moves, linearly in decibels, from one value to the other within `span` samples from `begin` on."""
    if before_db != after_db:
        first, last = (min(max(0, round(place)), len(wave_T)) for place in (begin, begin + span))
        slope_db = (after_db - before_db) / span
        wave_T[:first] *= 10 ** (before_db / 20)
        factor_T = torch.arange(last - first, dtype=torch.float32).mul_(slope_db).add_(before_db + slope_db * (first - begin))
        wave_T[first:last] *= factor_T.mul_(_LN_10_OVER_20).exp_()
        wave_T[last:] *= 10 ** (after_db / 20)
    elif before_db:
        wave_T *= 10 ** (before_db / 20)


def _fade_(wave_BT: Tensor, clip_M: Tensor, drawn: WaveAugment) -> None:
    """Apply gains that move, linearly in decibels, from one value to another."""
    row_M = to_device(clip_M, wave_BT.device)
    gain_db_M2, transition_M2 = (to_device(part[clip_M], wave_BT.device) for part in (drawn.gain_db_B2, drawn.transition_B2))
    begin_M1, span_M1 = transition_M2.split(1, dim=1)
    before_M1, after_M1 = gain_db_M2.split(1, dim=1)
    ramp_MT = ((torch.arange(wave_BT.shape[1], device=wave_BT.device) - begin_M1) / span_M1).clamp(0, 1)
    factor_MT = _db_to_factor(torch.lerp(before_M1, after_M1, ramp_MT))
    wave_BT.index_copy_(0, row_M, wave_BT.index_select(0, row_M) * factor_MT)


def _rms(wave_T: Tensor) -> float:
    return float(torch.linalg.vector_norm(wave_T)) / max(1, len(wave_T)) ** 0.5


def _peak(wave_T: Tensor) -> float:
    return float(wave_T.abs().amax())


def _rms_of_each(wave_MT: Tensor) -> Tensor:
    return torch.linalg.vector_norm(wave_MT, dim=1) / wave_MT.shape[1] ** 0.5


def _peak_of_each(wave_MT: Tensor) -> Tensor:
    return wave_MT.abs().amax(dim=1)


def _db_to_factor(db: Tensor) -> Tensor:
    return torch.exp(db * _LN_10_OVER_20)
