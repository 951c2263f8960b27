"""Spectrograms agree with the numbers of the solution that is re-created here, one clip at a time or together.

Shapes: B clips, T samples, F mel bins, N frames, K channels.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio.functional as AF

from birdclef_core.audio.spectrogram import MelSpectrogram, frequency_deltas
from birdclef_core.config import SpectrogramConfig

GOLDEN = Path(__file__).parents[2] / "data" / "golden"
RECIPES = json.loads((GOLDEN / "frontend_meta.json").read_text())
SMALL = SpectrogramConfig(num_mels=48, n_fft=1024, hop_length=320)


def golden_config(recipe: str) -> SpectrogramConfig:
    meta = RECIPES[recipe]
    return SpectrogramConfig(
        num_mels=meta["n_mels"],
        n_fft=meta["n_fft"],
        hop_length=meta["hop_length"],
        f_min_hz=float(meta["f_min"]),
        f_max_hz=float(meta["f_max"]),
        db_scale={80: "unit", 255: "over_255"}[meta["normal"]],
        deltas=meta["in_chans"] == 3,
    )


def noise_wave(clips: int, seconds: float = 1.0) -> torch.Tensor:
    return torch.randn(clips, round(32_000 * seconds), generator=torch.Generator().manual_seed(3)) * 0.1


@pytest.mark.parametrize("recipe", RECIPES)
def test_agrees_with_golden(recipe: str) -> None:
    wave_T = torch.from_numpy(np.load(GOLDEN / "frontend_input.npz")["pcm"]).float() / 32768
    wave_BT = wave_T.view(1, -1) if recipe.startswith("sed") else wave_T.view(2, -1)
    expected = torch.from_numpy(np.load(GOLDEN / "frontend_expected.npz")[recipe])
    mel_BKFN = MelSpectrogram(golden_config(recipe))(wave_BT)
    assert list(mel_BKFN.shape) == RECIPES[recipe]["shape"]
    torch.testing.assert_close(mel_BKFN[:, :, ::8, ::16], expected, atol=1e-4, rtol=0)
    for name, value in (("mean", mel_BKFN.mean()), ("std", mel_BKFN.std()), ("min", mel_BKFN.min()), ("max", mel_BKFN.max())):
        assert value.item() == pytest.approx(RECIPES[recipe][name], abs=1e-4)


def test_batch_equals_item_by_item_when_loudness_differs() -> None:
    spectrogram = MelSpectrogram(SMALL)
    wave_BT = noise_wave(4) * torch.tensor([[1.0], [1e-5], [1e-3], [0.0]])
    together = spectrogram(wave_BT)
    alone = torch.cat([spectrogram(wave_BT[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


def test_silence_is_finite_and_flat() -> None:
    spectrogram = MelSpectrogram(SMALL)
    db_BFN = spectrogram.mel_db(torch.zeros(2, 32_000))
    assert torch.all(db_BFN == -100.0)
    assert torch.isfinite(spectrogram(torch.zeros(2, 32_000))).all()


def test_nothing_lies_more_than_80_db_below_the_clips_maximum() -> None:
    wave_BT = noise_wave(2)
    wave_BT[:, 8000:] = 0
    db_BFN = MelSpectrogram(SMALL).mel_db(wave_BT)
    torch.testing.assert_close(db_BFN.amin((1, 2)), db_BFN.amax((1, 2)) - 80)


def test_stays_float32_under_autocast() -> None:
    spectrogram = MelSpectrogram(SMALL)
    wave_BT = noise_wave(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mel_BKFN = spectrogram(wave_BT)
    assert mel_BKFN.dtype == torch.float32
    torch.testing.assert_close(mel_BKFN, spectrogram(wave_BT), atol=0, rtol=0)


def test_deltas_equal_torchaudio_on_the_transposed_spectrogram() -> None:
    mel_BFN = torch.randn(2, 24, 30, generator=torch.Generator().manual_seed(0))
    expected = AF.compute_deltas(mel_BFN.transpose(1, 2), win_length=5, mode="replicate").transpose(1, 2)
    torch.testing.assert_close(frequency_deltas(mel_BFN), expected)


def test_checkpoints_hold_nothing_of_it() -> None:
    assert not MelSpectrogram(SMALL).state_dict()


@pytest.mark.parametrize("num_samples", [320, 16_000, 31_999, 32_000])
def test_number_of_frames_is_told_beforehand(num_samples: int) -> None:
    spectrogram = MelSpectrogram(SMALL)
    assert spectrogram(torch.zeros(1, num_samples)).shape[-1] == spectrogram.num_frames(num_samples)
