"""Mixing joins labels by OR for waveforms and in proportion for spectrograms, as often as its probabilities say.

Shapes: B clips, T samples, K channels, F mel bins, N frames, C species.
"""

import pytest
import torch

from birdclef_core.audio.mixing import (
    apply_spectrogram_mix,
    apply_wave_mix,
    draw_spectrogram_mix,
    draw_wave_mix,
    mix_spectrograms,
    mix_waves,
)
from birdclef_core.augment_config import MixingConfig

WAVE_BT = torch.randn(4, 100, generator=torch.Generator().manual_seed(0))
MEL_BKFN = torch.randn(4, 3, 8, 10, generator=torch.Generator().manual_seed(1))
TARGET_BC = torch.tensor([[1, 0.9, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0.9, 0, 0, 1.0]])
WEIGHT_B = torch.tensor([1.0, 0.5, 0.2, 0.1])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_two_clips_are_joined_by_or() -> None:
    wave_BT, target_BC, weight_B = apply_wave_mix(torch.tensor([[1, 2, 3, 0]]), WAVE_BT, TARGET_BC, WEIGHT_B)
    torch.testing.assert_close(wave_BT[0], WAVE_BT[0] + WAVE_BT[1])
    torch.testing.assert_close(target_BC, torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0], [0.9, 0, 1, 1], [1, 0.9, 0, 1.0]]))
    torch.testing.assert_close(weight_B, torch.tensor([0.75, 0.35, 0.15, 0.55]))


def test_three_clips_are_joined_by_or() -> None:
    wave_BT, target_BC, weight_B = apply_wave_mix(torch.tensor([[1, 2, 3, 0], [2, 3, 0, 1]]), WAVE_BT, TARGET_BC, WEIGHT_B)
    torch.testing.assert_close(wave_BT[0], WAVE_BT[0] + WAVE_BT[1] + WAVE_BT[2])
    torch.testing.assert_close(target_BC[0], torch.tensor([1, 1, 1, 0.0]))
    torch.testing.assert_close(weight_B[0], torch.tensor(1.7 / 3))


def test_spectrograms_are_mixed_in_a_proportion_of_each_clip() -> None:
    mix = draw_spectrogram_mix(MixingConfig(spectrogram_prob=1.0), 4, generator(3))
    assert mix is not None
    assert len(set(mix.share_B.tolist())) == 4
    mel_BKFN, target_BC, weight_B = apply_spectrogram_mix(mix, MEL_BKFN, TARGET_BC, WEIGHT_B)
    for clip, (partner, share) in enumerate(zip(mix.partner_B, mix.share_B, strict=True)):
        torch.testing.assert_close(mel_BKFN[clip], share * MEL_BKFN[clip] + (1 - share) * MEL_BKFN[partner])
        torch.testing.assert_close(target_BC[clip], share * TARGET_BC[clip] + (1 - share) * TARGET_BC[partner])
        torch.testing.assert_close(weight_B[clip], share * WEIGHT_B[clip] + (1 - share) * WEIGHT_B[partner])


@pytest.mark.parametrize(("prob", "double"), [(0.7, 0.5), (0.1, 1.0), (1.0, 0.0), (0.0, 1.0)])
def test_a_batch_is_mixed_as_often_as_told(prob: float, double: float) -> None:
    config, source = MixingConfig(wave_prob=prob, wave_double_prob=double), generator(1)
    partners = [len(draw_wave_mix(config, 8, source)) for _ in range(2000)]
    assert sum(n > 0 for n in partners) / 2000 == pytest.approx(prob, abs=0.05)
    assert sum(n == 1 for n in partners) / 2000 == pytest.approx(prob * double, abs=0.05)


@pytest.mark.parametrize("beta", [0.5, 2.0, 5.0])
def test_coefficients_come_from_beta(beta: float) -> None:
    mix = draw_spectrogram_mix(MixingConfig(spectrogram_prob=1.0, spectrogram_beta=beta), 20_000, generator())
    assert mix is not None
    assert mix.share_B.mean().item() == pytest.approx(0.5, abs=0.01)
    assert mix.share_B.var().item() == pytest.approx(1 / (4 * (2 * beta + 1)), rel=0.05)


def test_probability_zero_leaves_the_batch() -> None:
    for mixed in (
        mix_waves(WAVE_BT, TARGET_BC, WEIGHT_B, MixingConfig(), generator()),
        mix_spectrograms(WAVE_BT, TARGET_BC, WEIGHT_B, MixingConfig(), generator()),
    ):
        assert mixed[0] is WAVE_BT
        assert mixed[1] is TARGET_BC


def test_same_seed_same_mix_and_the_input_stays() -> None:
    config = MixingConfig(wave_prob=1.0, wave_double_prob=0.0, spectrogram_prob=1.0)
    before = [WAVE_BT.clone(), TARGET_BC.clone(), WEIGHT_B.clone(), MEL_BKFN.clone()]
    first, again = (mix_waves(WAVE_BT, TARGET_BC, WEIGHT_B, config, generator(2)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    first, again = (mix_spectrograms(MEL_BKFN, TARGET_BC, WEIGHT_B, config, generator(2)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], mix_spectrograms(MEL_BKFN, TARGET_BC, WEIGHT_B, config, generator(3))[0])
    assert all(torch.equal(a, b) for a, b in zip(before, [WAVE_BT, TARGET_BC, WEIGHT_B, MEL_BKFN], strict=True))
