"""The stand-in for torchaudio gives its numbers to the bit."""

import pytest
import torch
import torchaudio.functional as AF

from birdclef_core.inference.standalone import mel
from birdclef_core.recipes import RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_filters_are_those_of_torchaudio(name):
    config = RECIPES[name]().model.spectrogram
    settings = {
        "f_min": config.f_min_hz,
        "f_max": config.f_max_hz,
        "n_mels": config.num_mels,
        "sample_rate": 32_000,
        "norm": "slaney",
        "mel_scale": "slaney",
    }
    assert torch.equal(
        mel.melscale_fbanks(config.n_fft // 2 + 1, **settings), AF.melscale_fbanks(config.n_fft // 2 + 1, **settings)
    )
    with pytest.raises(ValueError, match="must be slaney"):
        mel.melscale_fbanks(1025, **{**settings, "mel_scale": "htk"})


def test_decibels_are_those_of_torchaudio():
    power = torch.rand(3, 1, 8, 9, generator=torch.Generator().manual_seed(0)) ** 40
    settings = {"multiplier": 10.0, "amin": 1e-10, "db_multiplier": 0.0, "top_db": 80.0}
    found = mel.amplitude_to_DB(power, **settings)
    assert torch.equal(found, AF.amplitude_to_DB(power, **settings)) and (found == found.amin()).sum() > 1


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 24_000, 48_000])
def test_resampled_sound_is_that_of_torchaudio(rate_hz):
    wave_BT = torch.rand(2, 16_001, generator=torch.Generator().manual_seed(0)) - 0.5
    assert torch.equal(mel.resample(wave_BT, 32_000, rate_hz), AF.resample(wave_BT, 32_000, rate_hz))
