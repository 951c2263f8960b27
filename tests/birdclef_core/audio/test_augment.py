"""Augmentation does to each clip what was drawn for it, the same again for the same seed, and nothing where nothing was drawn.

Shapes: B clips, M clips an effect was drawn for, T samples, F mel bins, N frames.
"""

from dataclasses import replace

import pytest
import torch

from birdclef_core.audio.augment import (
    WaveAugment,
    _add_noise_at_once_,
    add_noise_,
    apply_mel_augment,
    apply_wave_augment_,
    augment_mel_db,
    augment_wave_,
    draw_mel_augment,
    draw_wave_augment,
    shift_pitch,
)
from birdclef_core.audio.spectrogram import MelSpectrogram
from birdclef_core.config import AugmentConfig, SpectrogramConfig

NOTHING = AugmentConfig(
    gain_prob=0.0,
    gain_transition_prob=0.0,
    gaussian_noise_prob=0.0,
    pink_noise_prob=0.0,
    time_shift_prob=0.0,
    pitch_shift_prob=0.0,
    time_masks=0,
    frequency_masks=0,
    tilt_prob=0.0,
)
SPECTROGRAM = SpectrogramConfig(num_mels=64, n_fft=2048, hop_length=640)
WAVE_EFFECTS = ("gain_prob", "gain_transition_prob", "gaussian_noise_prob", "pink_noise_prob", "time_shift_prob")
MEL_EFFECTS = ("pitch_shift_prob", "tilt_prob")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def waves(clips: int, samples: int = 32_000) -> torch.Tensor:
    return torch.randn(clips, samples, generator=generator(9)) * 0.1


def augment_wave(wave_BT: torch.Tensor, config: AugmentConfig, generator: torch.Generator) -> torch.Tensor:
    return augment_wave_(wave_BT.clone(), config, generator)


def apply_wave_augment(wave_BT: torch.Tensor, drawn: WaveAugment) -> torch.Tensor:
    return apply_wave_augment_(wave_BT.clone(), drawn)


def add_noise(wave_BT: torch.Tensor, *noise: torch.Tensor) -> torch.Tensor:
    return add_noise_(wave_BT.clone(), *noise)


def rms(wave: torch.Tensor) -> torch.Tensor:
    return wave.square().mean(-1).sqrt()


def snr_db(clean: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
    return 20 * torch.log10(rms(clean) / rms(noisy - clean))


def test_nothing_drawn_changes_nothing() -> None:
    wave_BT, db_BFN = waves(4), torch.randn(4, 64, 50)
    assert torch.equal(augment_wave(wave_BT, NOTHING, generator()), wave_BT)
    assert torch.equal(augment_mel_db(db_BFN, NOTHING, SPECTROGRAM, generator()), db_BFN)


@pytest.mark.parametrize("effect", WAVE_EFFECTS)
def test_wave_effects_repeat_and_touch_their_share(effect: str) -> None:
    wave_BT = waves(64, 3200)
    config = replace(NOTHING, **{effect: 0.5})
    first = augment_wave(wave_BT, config, generator(4))
    assert torch.equal(first, augment_wave(wave_BT, config, generator(4)))
    assert not torch.equal(first, augment_wave(wave_BT, config, generator(5)))
    assert 20 <= int((first != wave_BT).any(dim=1).sum()) <= 44


@pytest.mark.parametrize("effect", MEL_EFFECTS)
def test_mel_effects_repeat_touch_their_share_and_leave_the_input(effect: str) -> None:
    db_BFN = torch.randn(64, 64, 20, generator=generator(1))
    before = db_BFN.clone()
    config = replace(NOTHING, **{effect: 0.5})
    first = augment_mel_db(db_BFN, config, SPECTROGRAM, generator(4))
    assert torch.equal(db_BFN, before)
    assert torch.equal(first, augment_mel_db(db_BFN, config, SPECTROGRAM, generator(4)))
    assert 20 <= int((first != db_BFN).flatten(1).any(dim=1).sum()) <= 44


def test_batch_equals_item_by_item() -> None:
    """Noise aside: it is made for all clips together."""
    wave_BT = waves(6, 3200)
    drawn = draw_wave_augment(replace(NOTHING, gain_prob=1.0, gain_transition_prob=1.0, time_shift_prob=1.0), 6, generator())
    together = apply_wave_augment(wave_BT, drawn)
    only = torch.tensor([0])
    for clip in range(6):
        alone = replace(
            drawn,
            gain_db_B=drawn.gain_db_B[clip : clip + 1],
            transition_clip_M=only,
            transition_db_M2=drawn.transition_db_M2[clip : clip + 1],
            transition_share_M2=drawn.transition_share_M2[clip : clip + 1],
            shift_clip_M=only,
            shift_share_M=drawn.shift_share_M[clip : clip + 1],
        )
        torch.testing.assert_close(apply_wave_augment(wave_BT[clip : clip + 1], alone)[0], together[clip])


def test_gain_is_within_its_range() -> None:
    wave_BT = waves(200, 100)
    gain_db_B = 20 * torch.log10(
        rms(augment_wave(wave_BT, replace(NOTHING, gain_prob=1.0, gain_db=6.0), generator())) / rms(wave_BT)
    )
    assert -6 <= gain_db_B.min() < -5
    assert 5 < gain_db_B.max() <= 6


def test_gain_transition_goes_from_one_gain_to_the_other() -> None:
    config = replace(NOTHING, gain_transition_prob=1.0)
    drawn = draw_wave_augment(config, 5, generator())
    gain_db_BT = 20 * torch.log10(apply_wave_augment(torch.ones(5, 4001), drawn))
    torch.testing.assert_close(gain_db_BT[:, [0, -1]], drawn.transition_db_M2, atol=1e-3, rtol=0)
    middle = (drawn.transition_share_M2.mean(1) * 4000).round().long()
    at_middle = gain_db_BT.gather(1, middle[:, None])[:, 0]
    torch.testing.assert_close(at_middle, drawn.transition_db_M2.mean(1), atol=0.1, rtol=0)


@pytest.mark.parametrize("effect", ["gaussian_noise_prob", "pink_noise_prob"])
def test_coloured_noise_has_its_signal_to_noise_ratio(effect: str) -> None:
    wave_BT = waves(8)
    drawn = draw_wave_augment(replace(NOTHING, **{effect: 1.0}), 8, generator())
    measured = snr_db(wave_BT, apply_wave_augment(wave_BT, drawn))
    torch.testing.assert_close(measured, drawn.noise_snr_db_M, atol=0.01, rtol=0)
    assert drawn.noise_snr_db_M.min() >= 5
    assert drawn.noise_snr_db_M.max() <= 30


@pytest.mark.parametrize(("effect", "fall_db"), [("gaussian_noise_prob", 0.0), ("pink_noise_prob", 9.03)])
def test_noise_has_its_colour(effect: str, fall_db: float) -> None:
    """Pink noise falls by 3 dB an octave: 9 dB from 500-1000 Hz to 4-8 kHz, per hertz."""
    wave_BT = waves(8)
    noise_BT = augment_wave(wave_BT, replace(NOTHING, **{effect: 1.0}), generator()) - wave_BT
    power_F = torch.fft.rfft(noise_BT / rms(noise_BT)[:, None]).abs().square().mean(0)
    measured = 10 * torch.log10(power_F[500:1000].mean() / power_F[4000:8000].mean())
    assert measured.item() == pytest.approx(fall_db, abs=0.5)


def test_time_shift_rolls_a_clip() -> None:
    wave_BT = waves(5, 1001)
    drawn = draw_wave_augment(replace(NOTHING, time_shift_prob=1.0), 5, generator())
    shifted = apply_wave_augment(wave_BT, drawn)
    for clip in range(5):
        assert torch.equal(shifted[clip], wave_BT[clip].roll(int(drawn.shift_share_M[clip] * 1001)))


def test_noise_is_added_at_the_ratio_of_each_clip() -> None:
    wave_BT = waves(3) * torch.tensor([[1.0], [0.01], [2.0]])
    noise_MT = torch.randn(2, 32_000, generator=generator(2)) * torch.tensor([[5.0], [0.001]])
    noisy = add_noise(wave_BT, torch.tensor([2, 1]), noise_MT, torch.tensor([3.0, 20.0]))
    assert torch.equal(noisy[0], wave_BT[0])
    torch.testing.assert_close(snr_db(wave_BT[1:], noisy[1:]), torch.tensor([20.0, 3.0]), atol=1e-3, rtol=0)


def test_several_noises_add_up_in_one_clip() -> None:
    wave_BT = waves(1)
    noise_MT = torch.randn(2, 32_000, generator=generator(2))
    both = add_noise(wave_BT, torch.tensor([0, 0]), noise_MT, torch.tensor([3.0, 3.0]))
    each = [add_noise(wave_BT, torch.tensor([0]), noise_MT[i : i + 1], torch.tensor([3.0])) - wave_BT for i in range(2)]
    torch.testing.assert_close(both, wave_BT + each[0] + each[1])


def test_noise_added_clip_by_clip_equals_noise_added_at_once() -> None:
    wave_BT, noise_MT = waves(4), 1e4 * torch.randn(5, 32_000, generator=generator(2))
    noise = (torch.tensor([3, 0, 3, 2, 3]), noise_MT, torch.tensor([3.0, 30.0, 0.0, 5.0, 10.0]))
    torch.testing.assert_close(add_noise(wave_BT, *noise), _add_noise_at_once_(wave_BT.clone(), *noise))


def test_silence_stays_finite() -> None:
    silent = torch.zeros(2, 3200)
    everything = AugmentConfig(**dict.fromkeys(WAVE_EFFECTS, 1.0))
    assert torch.equal(augment_wave(silent, everything, generator()), silent)
    wave_BT = waves(2, 3200)
    assert torch.equal(add_noise(silent, torch.tensor([0]), wave_BT[:1], torch.tensor([3.0])), silent)
    assert torch.equal(add_noise(wave_BT, torch.tensor([0]), silent[:1], torch.tensor([3.0])), wave_BT)
    none = torch.empty(0)
    assert torch.equal(add_noise(wave_BT, none.long(), torch.empty(0, 3200), none), wave_BT)


@pytest.mark.parametrize("semitones", [-4.0, -1.5, 2.0, 4.0])
@pytest.mark.parametrize("tone_hz", [500.0, 1500.0, 5000.0])
def test_pitch_shift_moves_a_tone_to_where_it_would_be(semitones: float, tone_hz: float) -> None:
    """Compared with the spectrogram of a tone that is really higher, to one mel bin."""
    spectrogram = MelSpectrogram(SpectrogramConfig(num_mels=128, n_fft=2048, hop_length=640))
    time_T = torch.arange(32_000) / 32_000

    def tone_db(hz: float) -> torch.Tensor:
        return spectrogram.mel_db(torch.sin(2 * torch.pi * hz * time_T)[None])

    shifted = shift_pitch(tone_db(tone_hz), torch.tensor([semitones]), spectrogram.config)
    real = tone_db(tone_hz * 2 ** (semitones / 12))
    assert abs(int(shifted[0, :, 25].argmax()) - int(real[0, :, 25].argmax())) <= 1
    assert shifted.max().item() == pytest.approx(real.max().item(), abs=4)


def test_no_semitones_no_shift() -> None:
    db_BFN = torch.randn(2, 64, 9)
    torch.testing.assert_close(shift_pitch(db_BFN, torch.zeros(2), SPECTROGRAM), db_BFN, atol=1e-4, rtol=0)


def test_masks_hide_with_the_mean_and_keep_to_their_size() -> None:
    db_BFN = torch.randn(32, 64, 300, generator=generator(1))
    config = replace(NOTHING, time_masks=1, time_mask_frames=60, frequency_masks=1, frequency_mask_bins=24)
    masked = augment_mel_db(db_BFN, config, SPECTROGRAM, generator())
    hidden = masked != db_BFN
    mean_B11 = db_BFN.mean((1, 2), keepdim=True)
    torch.testing.assert_close(masked[hidden], mean_B11.expand_as(masked)[hidden])
    frames_B, bins_B = hidden.all(dim=1).sum(1), hidden.all(dim=2).sum(1)
    assert 40 < frames_B.max() <= 60
    assert 16 < bins_B.max() <= 24
    for whole in (hidden.all(dim=1), hidden.all(dim=2)):
        assert (whole.long().diff(dim=1).abs().sum(1) <= 2).all()  # one block


def test_masks_reach_both_edges_and_leave_half_of_a_short_clip() -> None:
    config = replace(NOTHING, time_masks=1, time_mask_frames=60, frequency_masks=0)
    db_BFN = torch.randn(400, 8, 20, generator=generator(1))
    hidden_BN = (augment_mel_db(db_BFN, config, SpectrogramConfig(num_mels=8), generator()) != db_BFN).all(dim=1)
    assert hidden_BN.sum(1).max() == 10
    assert hidden_BN[:, 0].any()
    assert hidden_BN[:, -1].any()


def test_tilt_is_a_line_over_frequency() -> None:
    db_BFN = torch.randn(50, 64, 9)
    drawn = draw_mel_augment(replace(NOTHING, tilt_prob=1.0, tilt_db=10.0), 50, generator())
    change_BF = (apply_mel_augment(db_BFN, drawn, SPECTROGRAM) - db_BFN)[:, :, 4]
    torch.testing.assert_close(change_BF[:, -1] - change_BF[:, 0], drawn.tilt_db_B, atol=1e-4, rtol=0)
    torch.testing.assert_close(change_BF.diff(dim=1).std(1), torch.zeros(50), atol=1e-4, rtol=0)
    assert drawn.tilt_db_B.abs().max() <= 10


def test_drawing_does_not_touch_the_global_generator() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    augment_wave(waves(4, 3200), AugmentConfig(**dict.fromkeys(WAVE_EFFECTS, 1.0)), generator())
    augment_mel_db(torch.randn(4, 64, 50, generator=generator()), AugmentConfig(), SPECTROGRAM, generator())
    assert torch.equal(torch.rand(3), expected)
