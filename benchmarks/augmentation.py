"""Measure what the augmentation of each recipe does to clips of real recordings: `python benchmarks/augmentation.py`.

It prints, for each recipe, how many clips get noise and gain and at which levels, how much of a spectrogram is masked, and what a tilt
changes in the input of the encoder. docs/deviations.md compares the numbers with those of the 2023 solution.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from birdclef_core.audio.mel_augment import augment_mel
from birdclef_core.audio.wave_augment import BackgroundNoise, augment_waves_, draw_wave_augment
from birdclef_core.augment_config import AugmentConfig
from birdclef_core.config import Recipe, StageConfig
from birdclef_core.data.clips import NoisePool, draw_batch
from birdclef_core.models.detector import Detector, MelNorm
from birdclef_core.recipes import RECIPES

RECORDINGS = Path(__file__).parents[1] / "tests/data/originals"
QUIET = AugmentConfig(coloured_noise_prob=0, gain_prob=0, pitch_shift_prob=0, time_masks=0, frequency_mask_prob=0, tilt_prob=0)
SILENT_DB = 1e9


def real_clips(count: int, num_samples: int) -> Tensor:
    """Return clips (B, T) of the recordings that the tests have, each from another place; the short ones are repeated."""
    rng = np.random.default_rng(0)
    waves = [
        soundfile.read(path, always_2d=True)[0].mean(axis=1) for path in sorted(RECORDINGS.iterdir()) if path.suffix != ".csv"
    ]
    drawn = (waves[clip % len(waves)] for clip in range(count))
    return torch.tensor(np.stack([np.resize(np.roll(wave, -rng.integers(len(wave))), num_samples) for wave in drawn])).float()


def pink_noise(count: int, num_samples: int) -> Tensor:
    rng = np.random.default_rng(1)
    bins = np.maximum(np.arange(num_samples // 2 + 1), 1)
    spectrum = rng.standard_normal((count, len(bins), 2)).view(np.complex128)[..., 0] / np.sqrt(bins)
    return torch.tensor(np.fft.irfft(spectrum, n=num_samples)).float()


def ratio_db(clean_BT: Tensor, noise_BT: Tensor) -> np.ndarray:
    """RMS of the clip over that of the noise in decibels; infinite without noise."""
    return 10 * torch.log10(clean_BT.square().mean(1) / noise_BT.square().mean(1)).numpy()


def measure_waves(stage: StageConfig, clips: int) -> str:
    """Levels of noise and gain, one after the other as in training."""
    config, generator = stage.augment, torch.Generator().manual_seed(0)
    clean_BT = real_clips(clips, stage.clip_samples)
    pools = [NoisePool(group, np.arange(4)) for group in stage.noise]
    plan = draw_batch(0, 0, 0, cumulative_weights=np.arange(1.0, 3.0), batch_size=clips, noise=pools)
    noise_MT = pink_noise(4, stage.clip_samples)[torch.from_numpy(plan.noise_row_M)]
    background = BackgroundNoise(torch.from_numpy(plan.noise_clip_M), noise_MT, torch.from_numpy(plan.noise_snr_db_M))
    nothing = BackgroundNoise(torch.empty(0, dtype=torch.long), torch.empty(0, stage.clip_samples), torch.empty(0))
    drawn = draw_wave_augment(config, clips, stage.clip_samples, generator)
    level = replace(drawn, gain_db_B2=torch.zeros(clips, 2))
    coloured_db = ratio_db(clean_BT, augment_waves_(clean_BT.clone(), level, nothing, config) - clean_BT)
    noisy_BT = augment_waves_(clean_BT.clone(), level, background, config)
    total_db = ratio_db(clean_BT, noisy_BT - clean_BT)
    before_B, after_B = drawn.gain_db_B2.T.numpy()
    gained_BT = augment_waves_(torch.ones_like(clean_BT), replace(drawn, noise_kind_B=torch.full((clips,), -1)), nothing, config)
    has_colour, constant, changing = np.isfinite(coloured_db), (before_B == after_B) & (before_B != 0), before_B != after_B
    low, middle, high = np.percentile(coloured_db[has_colour], [10, 50, 90])
    return (
        f"coloured noise {has_colour.mean():.2f} at {low:.0f} / {middle:.0f} / {high:.0f} dB; "
        f"background noise {len(set(plan.noise_clip_M.tolist())) / clips:.2f}; all noise: median {np.median(total_db):.1f} dB, "
        f"louder than the clip {np.mean(total_db < 0):.2f}; gain {constant.mean():.2f}, change of gain {changing.mean():.2f}, "
        f"RMS {(20 * torch.log10(gained_BT)).square().mean().sqrt():.1f} dB"
    )


def measure_masks(recipe: Recipe, stage: StageConfig, clips: int) -> str:
    """Masked share of the spectrograms, by time masks and by frequency masks, and how loud 0 is among them."""
    model = Detector(replace(recipe.model, encoder="test_efficientnet"), 2)
    pieces = len(model.cut_waves(torch.zeros(1, stage.clip_samples)))
    frames = model.spectrogram.num_frames(stage.clip_samples // pieces)
    ones_XFN = torch.ones(clips * pieces, recipe.model.spectrogram.num_mels, frames)
    shares = []
    for kept in ({"time_masks": stage.augment.time_masks}, {"frequency_mask_prob": stage.augment.frequency_mask_prob}):
        masked_XFN = augment_mel(ones_XFN, replace(QUIET, **kept), recipe.model.spectrogram, torch.Generator().manual_seed(0))
        shares.append(1 - masked_XFN.mean())
    mel_XFN = model.wave_to_mel(model.cut_waves(real_clips(min(32, clips), stage.clip_samples)))
    return (
        f"masked by time {shares[0]:.3f}, by frequency {shares[1]:.3f}; 0, which masks are filled with, is above "
        f"{(mel_XFN < 0).float().mean():.3f} of the places"
    )


def measure_tilt(recipe: Recipe, stage: StageConfig, clips: int) -> str:
    """Change that a tilt leaves in the input of a SED's encoder, behind its input BatchNorm in training, relative to its spread."""
    model = Detector(replace(recipe.model, encoder="test_efficientnet"), 2)
    mel_XFN = model.wave_to_mel(model.cut_waves(real_clips(clips, stage.clip_samples)))
    norm, changes = MelNorm(recipe.model.spectrogram.num_mels).train(), []
    plain = norm(model.mel_to_channels(mel_XFN, clips))
    for together in (False, True):
        config = replace(QUIET, tilt_prob=1.0, tilt_depth=stage.augment.tilt_depth, draw_per_batch=together)
        rounds = []
        for seed in range(8):
            tilted_XFN = augment_mel(mel_XFN, config, recipe.model.spectrogram, torch.Generator().manual_seed(seed))
            rounds.append(
                (norm(model.mel_to_channels(tilted_XFN, clips)) - plain)[:, 0].square().mean() / plain[:, 0].square().mean()
            )
        changes.append(float(torch.stack(rounds).mean().sqrt()))
    return f"a tilt of each clip changes the encoder's input by {changes[0]:.2f} of its RMS, one tilt for the batch by {changes[1]:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--clips", type=int, default=300)
    options = parser.parse_args()
    for name in options.recipes:
        recipe = RECIPES[name]()
        stage = recipe.stages[0]
        lines = [measure_waves(stage, options.clips), measure_masks(recipe, stage, options.clips)]
        if recipe.model.head == "sed":
            lines.append(measure_tilt(recipe, stage, min(32, options.clips)))
        print(f"{name}: {'; '.join(lines)}", flush=True)


if __name__ == "__main__":
    with torch.no_grad():
        main()
