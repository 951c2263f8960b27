"""Spectrograms are shifted, masked and tilted as drawn, the same for the same seed, and not at all where nothing was drawn.

Shapes: X spectrograms, F mel bins, N frames.
"""

from dataclasses import replace

import pytest
import torch

from birdclef_core.audio.mel_augment import apply_mel_augment, augment_mel, draw_mel_augment, shift_pitch
from birdclef_core.audio.spectrogram import MelSpectrogram
from birdclef_core.augment_config import AugmentConfig
from birdclef_core.config import SpectrogramConfig

NOTHING = AugmentConfig(pitch_shift_prob=0, time_masks=0, frequency_mask_prob=0, tilt_prob=0)
SPECTROGRAM = SpectrogramConfig(num_mels=64, n_fft=2048, hop_length=640)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spectrograms(count: int, bins: int = 64, frames: int = 300) -> torch.Tensor:
    return torch.rand(count, bins, frames, generator=generator(1)) + 0.5


def test_nothing_drawn_changes_nothing() -> None:
    mel_XFN = spectrograms(4)
    assert torch.equal(augment_mel(mel_XFN, NOTHING, SPECTROGRAM, generator()), mel_XFN)


@pytest.mark.parametrize("effect", ["pitch_shift_prob", "frequency_mask_prob", "tilt_prob"])
def test_effects_repeat_touch_their_share_and_leave_the_input(effect: str) -> None:
    mel_XFN = spectrograms(64, frames=20)
    before = mel_XFN.clone()
    config = replace(NOTHING, **{effect: 0.5})
    first = augment_mel(mel_XFN, config, SPECTROGRAM, generator(4))
    assert torch.equal(mel_XFN, before)
    assert torch.equal(first, augment_mel(mel_XFN, config, SPECTROGRAM, generator(4)))
    assert not torch.equal(first, augment_mel(mel_XFN, config, SPECTROGRAM, generator(5)))
    assert 20 <= int((first != mel_XFN).flatten(1).any(dim=1).sum()) <= 44


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
    mel_XFN = spectrograms(2, frames=9)
    torch.testing.assert_close(shift_pitch(mel_XFN, torch.zeros(2), SPECTROGRAM), mel_XFN, atol=1e-4, rtol=0)


@pytest.mark.parametrize("fill", ["zero", "mean"])
def test_masks_hide_one_block_each_that_keeps_to_its_size(fill: str) -> None:
    mel_XFN = spectrograms(200)
    config = replace(NOTHING, time_masks=1, frequency_mask_prob=1.0, mask_fill=fill)
    masked = augment_mel(mel_XFN, config, SPECTROGRAM, generator())
    hidden = masked != mel_XFN
    expected = torch.zeros_like(mel_XFN) if fill == "zero" else mel_XFN.mean((1, 2), keepdim=True).expand_as(mel_XFN)
    torch.testing.assert_close(masked[hidden], expected[hidden])
    frames_X, bins_X = hidden.all(dim=1).sum(1), hidden.all(dim=2).sum(1)
    assert frames_X.min() <= 2 and frames_X.max() == 59 and frames_X.float().mean().item() == pytest.approx(29.5, abs=3)
    assert bins_X.min() <= 1 and bins_X.max() == 23 and bins_X.float().mean().item() == pytest.approx(11.5, abs=1.2)
    for whole in (hidden.all(dim=1), hidden.all(dim=2)):
        assert (whole.long().diff(dim=1).abs().sum(1) <= 2).all()  # one block


def test_a_frequency_mask_is_drawn_half_of_the_time() -> None:
    """The 2023 solution draws it for a batch; that it is drawn for each spectrogram does not change how much is masked."""
    mel_XFN = spectrograms(2000, frames=4)
    hidden = augment_mel(mel_XFN, replace(NOTHING, frequency_mask_prob=0.5), SPECTROGRAM, generator()) == 0
    assert hidden.any(dim=2).any(dim=1).float().mean().item() == pytest.approx(0.5 * 23 / 24, abs=0.03)
    assert hidden.float().mean().item() == pytest.approx(0.5 * 11.5 / 64, rel=0.06)


def test_masks_reach_both_edges_and_leave_half_of_a_short_clip() -> None:
    config = replace(NOTHING, time_masks=1)
    mel_XFN = spectrograms(400, bins=8, frames=20)
    hidden_XN = (augment_mel(mel_XFN, config, SpectrogramConfig(num_mels=8), generator()) == 0).all(dim=1)
    assert hidden_XN.sum(1).max() == 10
    assert hidden_XN[:, 0].any()
    assert hidden_XN[:, -1].any()


def test_tilt_falls_from_one_to_a_place_in_the_upper_half_and_stays_there() -> None:
    """As in the 2023 solution: bin f is multiplied by 1 - x * min(f / r, 1), with x up to .5 and r from F / 2 to F - 1."""
    mel_XFN = spectrograms(300, frames=3)
    factor_XF = (augment_mel(mel_XFN, replace(NOTHING, tilt_prob=1.0), SPECTROGRAM, generator()) / mel_XFN)[:, :, 1]
    depth_X = 1 - factor_XF[:, -1]
    assert 0 <= depth_X.min() < 0.02 and 0.48 < depth_X.max() <= 0.5
    end_X = ((factor_XF - factor_XF[:, -1:]).abs() < 1e-5).long().argmax(dim=1)
    deep = depth_X > 0.05
    assert end_X[deep].min() == 32 and end_X[deep].max() == 63
    expected = 1 - depth_X[:, None] * (torch.arange(64) / end_X[:, None]).clamp(max=1)
    torch.testing.assert_close(factor_XF[deep], expected[deep], atol=1e-4, rtol=0)


def test_drawn_for_a_batch_all_spectrograms_get_one_tilt_and_masks_or_none_and_masks_at_their_own_places() -> None:
    mel_XFN, together = spectrograms(16, frames=3), replace(NOTHING, draw_per_batch=True)
    tilts = masks = 0
    for seed in range(60):
        factor_XF = (augment_mel(mel_XFN, replace(together, tilt_prob=0.5), SPECTROGRAM, generator(seed)) / mel_XFN)[:, :, 1]
        torch.testing.assert_close(factor_XF, factor_XF[:1].expand(16, -1))
        tilts += bool((factor_XF[0] < 0.999).any())
        masked_XF = augment_mel(mel_XFN, replace(together, frequency_mask_prob=0.5), SPECTROGRAM, generator(seed))[:, :, 1] == 0
        masked_X = masked_XF.any(dim=1)
        assert not masked_X.any() or (masked_X.sum() >= 13 and len(masked_XF.unique(dim=0)) > 8)
        masks += bool(masked_X.any())
    assert 20 < tilts < 40 and 20 < masks < 40


def test_masked_places_stay_masked_under_a_tilt() -> None:
    config = replace(NOTHING, time_masks=1, tilt_prob=1.0)
    mel_XFN = spectrograms(8)
    drawn = draw_mel_augment(config, 8, generator())
    both = apply_mel_augment(mel_XFN, drawn, config, SPECTROGRAM)
    masks = apply_mel_augment(mel_XFN, replace(drawn, tilt_X=torch.zeros(8)), config, SPECTROGRAM)
    assert torch.equal(both == 0, masks == 0)


def test_drawing_does_not_touch_the_global_generator() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    augment_mel(spectrograms(4), AugmentConfig(), SPECTROGRAM, generator())
    assert torch.equal(torch.rand(3), expected)
