"""The scale is torchaudio's, and bins lie where its filters have their tops."""

import pytest
import torch
import torchaudio.functional as AF
from torchaudio.functional.functional import _hz_to_mel, _mel_to_hz

from birdclef_core.audio.mel_scale import bin_centres_hz, hz_to_bin, hz_to_mel, mel_to_hz
from birdclef_core.config import SAMPLE_RATE_HZ, SpectrogramConfig
from birdclef_core.recipes import RECIPES

CONFIGS = sorted({recipe().model.spectrogram for recipe in RECIPES.values()}, key=repr)


def test_equals_torchaudio_both_ways():
    hz = torch.tensor([0.0, 50.0, 440.0, 999.0, 1000.0, 1001.0, 4000.0, 16_000.0], dtype=torch.float64)
    mel = hz_to_mel(hz)
    assert mel.tolist() == pytest.approx([_hz_to_mel(value, mel_scale="slaney") for value in hz.tolist()], rel=1e-9)
    assert mel_to_hz(mel).tolist() == pytest.approx(_mel_to_hz(mel, mel_scale="slaney").tolist(), rel=1e-9)
    assert mel_to_hz(mel).tolist() == pytest.approx(hz.tolist(), rel=1e-9)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.num_mels} bins, {config.f_min_hz:g} Hz")
def test_bins_lie_where_the_filters_have_their_tops(config: SpectrogramConfig):
    filters_HF = AF.melscale_fbanks(8193, config.f_min_hz, config.f_max_hz, config.num_mels, SAMPLE_RATE_HZ, "slaney", "slaney")
    tops_hz = filters_HF.argmax(dim=0).double() * (SAMPLE_RATE_HZ / 2 / 8192)
    assert torch.allclose(bin_centres_hz(config), tops_hz, atol=2.0)
    assert torch.allclose(hz_to_bin(bin_centres_hz(config), config), torch.arange(config.num_mels).double(), atol=1e-9)
