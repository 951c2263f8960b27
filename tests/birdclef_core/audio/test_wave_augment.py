"""Waveforms get the noise, gain and shift that were drawn for them, clip by clip as well as all at once, the same for the same seed.

Shapes: B clips, M noises, T samples.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from birdclef_core.audio.coloured_noise import COLOURED_NOISE, ColouredNoise
from birdclef_core.audio.wave_augment import (
    BackgroundNoise,
    WaveAugment,
    augment_clip_,
    augment_waves_,
    by_clip,
    draw_wave_augment,
    shift_waves_,
)
from birdclef_core.augment_config import AugmentConfig

NOTHING = AugmentConfig(coloured_noise_prob=0, gain_prob=0, gain_transition_prob=0, time_shift_prob=0)
Apply = Callable[[Tensor, WaveAugment, BackgroundNoise, AugmentConfig], Tensor]


def one_by_one(wave_BT: Tensor, drawn: WaveAugment, background: BackgroundNoise, config: AugmentConfig) -> Tensor:
    """What a CPU does."""
    source, wave_BT = torch.Generator().manual_seed(drawn.noise_seed), wave_BT.clone()
    for wave_T, clip in zip(wave_BT, by_clip(drawn, background, config), strict=True):
        augment_clip_(wave_T, clip, background.wave_MT, source)
    return wave_BT


def at_once(wave_BT: Tensor, drawn: WaveAugment, background: BackgroundNoise, config: AugmentConfig) -> Tensor:
    """What a GPU does."""
    return augment_waves_(wave_BT.clone(), drawn, background, config)


LEVEL = ColouredNoise(weight=1.0, colour="white", measure="rms", low=0.5, high=0.5)


def only(monkeypatch, *kinds: ColouredNoise) -> None:
    """Make these the kinds of noise of a SED."""
    monkeypatch.setitem(COLOURED_NOISE, "sed", kinds)


both_ways = pytest.mark.parametrize("apply", [one_by_one, at_once])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def waves(clips: int, samples: int = 32_000) -> Tensor:
    """Clips of different loudness, with peaks of very different height above their RMS."""
    wave_BT = torch.randn(clips, samples, generator=generator(9)) * torch.logspace(-3, -1, clips)[:, None]
    wave_BT[:, 100] *= torch.linspace(1, 50, clips)
    return wave_BT


def no_background(samples: int = 32_000) -> BackgroundNoise:
    return BackgroundNoise(torch.empty(0, dtype=torch.long), torch.empty(0, samples), torch.empty(0))


def noise_of(*pairs: tuple[int, float], samples: int = 32_000) -> BackgroundNoise:
    """Noise for clips at ratios, at any level."""
    wave_MT = torch.randn(len(pairs), samples, generator=generator(2)) * torch.logspace(-2, 2, len(pairs))[:, None]
    return BackgroundNoise(torch.tensor([clip for clip, _ in pairs]), wave_MT, torch.tensor([snr_db for _, snr_db in pairs]))


def augmented(
    wave_BT: Tensor, config: AugmentConfig, apply: Apply, background: BackgroundNoise | None = None, seed: int = 0
) -> Tensor:
    drawn = draw_wave_augment(config, *wave_BT.shape, generator(seed))
    return apply(wave_BT, drawn, background or no_background(wave_BT.shape[1]), config)


def rms(wave: Tensor) -> Tensor:
    return wave.square().mean(-1).sqrt()


def peak(wave: Tensor) -> Tensor:
    return wave.abs().amax(-1)


def decibels(ratio: Tensor) -> Tensor:
    return 20 * torch.log10(ratio)


@both_ways
def test_nothing_drawn_changes_nothing(apply: Apply) -> None:
    wave_BT = waves(4)
    assert torch.equal(augmented(wave_BT, NOTHING, apply), wave_BT)
    assert torch.equal(shift_waves_(wave_BT.clone(), NOTHING, generator()), wave_BT)


@both_ways
@pytest.mark.parametrize("effect", ["coloured_noise_prob", "gain_prob", "gain_transition_prob"])
def test_effects_repeat_and_touch_their_share(effect: str, apply: Apply) -> None:
    wave_BT, config = waves(64, 3200), replace(NOTHING, **{effect: 0.5})
    first = augmented(wave_BT, config, apply)
    assert torch.equal(first, augmented(wave_BT, config, apply))
    assert not torch.equal(first, augmented(wave_BT, config, apply, seed=5))
    assert 20 <= int((first != wave_BT).any(dim=1).sum()) <= 44


def test_both_ways_give_the_same_but_for_coloured_noise() -> None:
    config = AugmentConfig(coloured_noise_prob=0, gain_prob=0.4, gain_transition_prob=0.6)
    wave_BT, background = waves(8), noise_of((3, 3.0), (0, 30.0), (3, 0.0), (2, 5.0), (3, 10.0))
    torch.testing.assert_close(
        augmented(wave_BT, config, one_by_one, background), augmented(wave_BT, config, at_once, background)
    )


@both_ways
@pytest.mark.parametrize(
    ("measure", "measured_db"),
    [
        ("peak_snr_db", lambda clean, noise: decibels(peak(clean) / peak(noise))),
        ("rms_snr_db", lambda clean, noise: decibels(rms(clean) / rms(noise))),
        ("rms", lambda clean, noise: rms(noise)),
    ],
)
@pytest.mark.parametrize("colour", ["white", "pink"])
def test_coloured_noise_has_the_level_of_its_measure(measure: str, measured_db, colour: str, apply: Apply, monkeypatch) -> None:
    low, high = (0.01, 0.04) if measure == "rms" else (5.0, 20.0)
    only(monkeypatch, ColouredNoise(weight=1.0, colour=colour, measure=measure, low=low, high=high))  # type: ignore[arg-type]
    config = replace(NOTHING, coloured_noise_prob=1.0)
    wave_BT = waves(40)
    drawn = draw_wave_augment(config, *wave_BT.shape, generator())
    level_B = measured_db(wave_BT, apply(wave_BT, drawn, no_background(), config) - wave_BT)
    torch.testing.assert_close(level_B, drawn.noise_level_B, rtol=0.01, atol=0.001)
    assert low <= level_B.min() < low + 0.2 * (high - low)
    assert high >= level_B.max() > high - 0.2 * (high - low)


def test_a_clip_gets_one_kind_of_noise_in_proportion_to_the_weights(monkeypatch) -> None:
    only(
        monkeypatch,
        *(replace(LEVEL, weight=weight, low=level, high=level) for weight, level in ((2.0, 1.0), (1.0, 2.0), (0.5, 3.0))),
    )
    drawn = draw_wave_augment(replace(NOTHING, coloured_noise_prob=0.7), 20_000, 3200, generator())
    share = [float((drawn.noise_kind_B == kind).float().mean()) for kind in (-1, 0, 1, 2)]
    assert share == pytest.approx([0.3, 0.4, 0.2, 0.1], abs=0.015)
    assert torch.equal(drawn.noise_level_B, drawn.noise_kind_B.float() + 1)


@both_ways
def test_noise_of_its_own_level_drowns_a_silent_clip_and_other_noise_leaves_it(apply: Apply, monkeypatch) -> None:
    silent, config = torch.zeros(2, 3200), replace(NOTHING, coloured_noise_prob=1.0)
    for measure in ("peak_snr_db", "rms_snr_db"):
        only(monkeypatch, replace(LEVEL, measure=measure))
        assert torch.equal(augmented(silent, config, apply, noise_of((0, 3.0), samples=3200)), silent)
    only(monkeypatch, LEVEL)
    torch.testing.assert_close(rms(augmented(silent, config, apply)), torch.full((2,), 0.5))
    quiet = BackgroundNoise(torch.tensor([0]), torch.zeros(1, 3200), torch.tensor([3.0]))
    assert torch.equal(augmented(waves(2, 3200), NOTHING, apply, quiet), waves(2, 3200))


@both_ways
def test_background_noise_is_added_at_the_ratio_of_each_clip(apply: Apply) -> None:
    wave_BT = waves(3)
    noisy_BT = augmented(wave_BT, NOTHING, apply, noise_of((2, 3.0), (1, 20.0)))
    assert torch.equal(noisy_BT[0], wave_BT[0])
    torch.testing.assert_close(decibels(rms(wave_BT) / rms(noisy_BT - wave_BT))[1:], torch.tensor([20.0, 3.0]), atol=1e-3, rtol=0)


@both_ways
def test_each_noise_is_measured_against_the_clip_with_all_noise_before_it(apply: Apply) -> None:
    """At 0 dB each noise doubles the power: 2, 4, 8. Against the clip alone, it would be 2, 3, 4."""
    for count in (1, 2, 3):
        wave_BT = waves(1, 320_000)
        noisy_BT = augmented(wave_BT, NOTHING, apply, noise_of(*[(0, 0.0)] * count, samples=320_000))
        assert (rms(noisy_BT) / rms(wave_BT)).square().item() == pytest.approx(2.0**count, rel=0.02)


@both_ways
def test_background_noise_is_measured_against_the_clip_with_coloured_noise_and_gain_comes_last(apply: Apply, monkeypatch) -> None:
    only(monkeypatch, LEVEL)
    config = replace(NOTHING, coloured_noise_prob=1.0, gain_prob=1.0)
    wave_BT = 1e-4 * torch.randn(4, 32_000, generator=generator(3))
    noisy_BT = augmented(wave_BT, config, apply, noise_of(*((clip, 0.0) for clip in range(4))))
    gain_db_B = draw_wave_augment(config, 4, 32_000, generator()).gain_db_B2[:, 0]
    torch.testing.assert_close(decibels(rms(noisy_BT) / 0.5), gain_db_B + 3.01, atol=0.1, rtol=0)


def test_a_clip_has_one_gain_or_a_change_of_gain_and_never_both() -> None:
    config = replace(NOTHING, gain_prob=0.3, gain_transition_prob=0.5, gain_db=15.0)
    before_B, after_B = draw_wave_augment(config, 20_000, 3200, generator()).gain_db_B2.T
    assert float(((before_B == after_B) & (before_B != 0)).float().mean()) == pytest.approx(0.3, abs=0.015)
    assert float((before_B != after_B).float().mean()) == pytest.approx(0.5, abs=0.015)
    for gain_db in (before_B, after_B):
        assert -15 <= gain_db.min() < -14.9 and 14.9 < gain_db.max() <= 15


@both_ways
def test_a_gain_is_applied_as_drawn(apply: Apply) -> None:
    config = replace(NOTHING, gain_prob=1.0, gain_db=6.0)
    drawn = draw_wave_augment(config, 100, 100, generator())
    wave_BT = waves(100, 101)
    gain_db_B = decibels(rms(apply(wave_BT, drawn, no_background(101), config)) / rms(wave_BT))
    torch.testing.assert_close(gain_db_B, drawn.gain_db_B2[:, 0], atol=1e-3, rtol=0)
    assert gain_db_B.min() < -5 and gain_db_B.max() > 5


@both_ways
def test_a_change_of_gain_is_a_line_in_decibels_where_it_was_drawn(apply: Apply) -> None:
    config = replace(NOTHING, gain_transition_prob=1.0, gain_transition_s_min=0.2, gain_transition_s_max=0.5)
    drawn = draw_wave_augment(config, 60, 32_000, generator())
    gain_db_BT = decibels(apply(torch.ones(60, 32_000), drawn, no_background(), config))
    for gain_db_T, (before, after), (begin, span) in zip(gain_db_BT, drawn.gain_db_B2, drawn.transition_B2, strict=True):
        share_T = ((torch.arange(32_000) - begin) / span).clamp(0, 1)
        torch.testing.assert_close(gain_db_T, before + (after - before) * share_T, atol=2e-3, rtol=0)


def test_a_change_of_gain_takes_its_seconds_and_may_reach_over_both_ends() -> None:
    config = replace(NOTHING, gain_transition_prob=1.0, gain_transition_s_min=0.2, gain_transition_s_max=6.0)
    begin_B, span_B = (draw_wave_augment(config, 5000, 320_000, generator()).transition_B2 / 32_000).T
    assert 0.2 <= span_B.min() < 0.21 and 5.99 < span_B.max() <= 6
    assert span_B.mean().item() == pytest.approx(3.1, abs=0.05)
    assert (begin_B >= -span_B).all() and (begin_B <= 10).all()
    torch.testing.assert_close(((begin_B + span_B) / (10 + span_B)).mean(), torch.tensor(0.5), atol=0.02, rtol=0)


def test_a_time_shift_rolls_by_any_share_of_the_length() -> None:
    wave_XT = torch.arange(1001.0).expand(400, -1).clone()
    shifted_XT = shift_waves_(wave_XT.clone(), replace(NOTHING, time_shift_prob=0.5), generator())
    first_X = shifted_XT[:, 0].long()
    assert all(
        torch.equal(shifted, wave.roll(-int(first))) for shifted, wave, first in zip(shifted_XT, wave_XT, first_X, strict=True)
    )
    moved_M = first_X[first_X != 0]
    assert 160 < len(moved_M) < 240 and moved_M.min() < 50 and moved_M.max() > 950


def test_drawing_does_not_touch_the_global_generator() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    everything = AugmentConfig(coloured_noise_prob=1.0, gain_prob=0.5, gain_transition_prob=0.5, time_shift_prob=1.0)
    for apply in (one_by_one, at_once):
        augmented(waves(4, 3200), everything, apply)
    shift_waves_(waves(4, 3200), everything, generator())
    assert torch.equal(torch.rand(3), expected)
