"""Makes data sets for the benchmarks: a table of any size, audio of a given length, a folder of hard links."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.data.dataset import Dataset
from birdclef_core.data.decode import decode
from birdclef_core.data.folder_walk import list_audio
from birdclef_core.demo.ogg import write_ogg
from birdclef_core.taxonomy import LabelSpace


def made_up_table(num_recordings: int, num_species: int, seed: int = 0) -> pd.DataFrame:
    """Return a table of recordings with long-tailed species and authors; half have secondary labels, a fifth is for validation."""
    rng = np.random.default_rng(seed)
    species = np.array([f"sp{code:04d}" for code in range(num_species)])
    popularity = rng.pareto(1, num_species) + 0.05
    drawn = rng.choice(num_species, num_recordings - num_species, p=popularity / popularity.sum())
    primary = species[np.concatenate([np.arange(num_species), drawn])]
    counts = rng.choice([0, 0, 0, 1, 1, 2, 4], num_recordings)
    return pd.DataFrame(
        {
            "recording_id": [f"XC{row}" for row in range(num_recordings)],
            "path": [f"train_audio/{code}/XC{row}.ogg" for row, code in enumerate(primary)],
            "primary_label": primary,
            "secondary_labels": [tuple(rng.choice(species, count)) for count in counts],
            "author": [f"author {number % 3500}" for number in rng.zipf(1.3, num_recordings)],
            "group": [f"group {row}" for row in range(num_recordings)],
            "rating": rng.integers(0, 11, num_recordings) / 2,
            "duration_s": rng.gamma(1.5, 25, num_recordings) + 1,
            "size_bytes": 1,
            "is_validation": rng.random(num_recordings) < 0.2,
        }
    )


def dataset_of(root: Path, recordings: pd.DataFrame, noise_paths: Sequence[str] = (), noise_s: float = 0.0) -> Dataset:
    """Return a data set without reading its files."""
    noise = pd.DataFrame({"path": list(noise_paths), "group": "", "duration_s": noise_s, "size_bytes": 1})
    space = LabelSpace.of("all", recordings["primary_label"])
    return Dataset(root, recordings, noise, space, space, "made-up", ())


def write_recordings(folder: Path, *, count: int, distinct: int, duration_s: float, audio: Path | None) -> list[str]:
    """Write `count` OGG files (32 kHz, mono) into `folder` and return their names; all but `distinct` are hard links to others.

    They contain the recordings under `audio`, one after the other, or else chirps over pink noise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    num_samples = round(duration_s * SAMPLE_RATE_HZ)
    sound_T = _joined(audio, distinct * num_samples) if audio else _chirps(distinct * num_samples)
    for number in range(distinct):
        write_ogg(folder / f"{number}.ogg", sound_T[number * num_samples : (number + 1) * num_samples])
    for number in range(distinct, count):
        os.link(folder / f"{number % distinct}.ogg", folder / f"{number}.ogg")
    return [f"{number}.ogg" for number in range(count)]


def _joined(folder: Path, num_samples: int) -> NDArray[np.float32]:
    waves = [decode(folder / path) for path in list_audio(folder, ".")]
    return np.resize(np.concatenate(waves), num_samples)


def _chirps(num_samples: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    noise = np.fft.irfft(
        np.fft.rfft(rng.standard_normal(num_samples)) / np.sqrt(np.arange(num_samples // 2 + 1) + 1), num_samples
    )
    sound_T = 0.02 * noise / noise.std()
    time_T = np.arange(SAMPLE_RATE_HZ // 4) / SAMPLE_RATE_HZ
    for start in rng.integers(0, num_samples - len(time_T), num_samples // SAMPLE_RATE_HZ * 2):
        low_hz, high_hz = rng.uniform(1500, 7000, 2)
        chirp_T = np.sin(2 * np.pi * (low_hz + (high_hz - low_hz) * time_T) * time_T) * np.hanning(len(time_T))
        sound_T[start : start + len(time_T)] += rng.uniform(0.05, 0.3) * chirp_T
    return np.clip(sound_T, -1, 1).astype(np.float32)
