"""Checkpoints in the layout of the 2023 solution, with weights that follow from the names of their entries (tests/data/golden/README.md)."""

import zlib
from pathlib import Path

import numpy as np
import torch
import torchaudio
from torch import Tensor

from birdclef_core.config import SAMPLE_RATE_HZ, SpectrogramConfig

FOLDER = Path(__file__).parents[1] / "data" / "golden"
GOLDEN = np.load(FOLDER / "solution_2023.npz")
CLASSES = tuple(str(GOLDEN["classes"]).split("\n"))
"""In the order of the head's rows, which is not the sorted one."""


def golden_wave_BT() -> Tensor:
    return torch.from_numpy(np.load(FOLDER / "frontend_input.npz")["pcm"].reshape(1, -1)) / 32_768


def golden_outputs(recipe: str) -> tuple[Tensor, Tensor | None]:
    """Logits of the clip, and for a SED the logits of each segment, both with the classes in the head's order."""
    key = f"{recipe}.segments"
    return torch.from_numpy(GOLDEN[f"{recipe}.logits"]), torch.from_numpy(GOLDEN[key]) if key in GOLDEN else None


def golden_shapes(recipe: str) -> dict[str, tuple[int, ...]]:
    """Shapes of all entries that the solution saves for a recipe, by name."""
    entries = (line.partition(" ") for line in str(GOLDEN[f"{recipe}.entries"]).split("\n"))
    return {name: tuple(int(size) for size in sizes.split("x")) if sizes else () for name, _, sizes in entries}


def golden_state_dict(recipe: str, spectrogram: SpectrogramConfig) -> dict[str, Tensor]:
    """All entries that the solution saves for a recipe; those of the spectrogram are made by torchaudio, as there."""
    mel = _mel_transform(spectrogram).state_dict()
    statistics = iter(GOLDEN[f"{recipe}.statistics"])
    mean = spread = 0.0
    state = {}
    for name, shape in golden_shapes(recipe).items():
        if name.endswith("running_mean"):
            mean, spread = next(statistics)
        if name.startswith("melspec_transform."):
            state[name] = mel[name.removeprefix("melspec_transform.")]
        else:
            state[name] = torch.from_numpy(_value(name, shape, mean, spread))
        assert state[name].shape == shape, name
    return state


def _mel_transform(spectrogram: SpectrogramConfig) -> torch.nn.Module:
    return torchaudio.transforms.MelSpectrogram(
        sample_rate=SAMPLE_RATE_HZ,
        n_fft=spectrogram.n_fft,
        hop_length=spectrogram.hop_length,
        n_mels=spectrogram.num_mels,
        f_min=spectrogram.f_min_hz,
        f_max=spectrogram.f_max_hz,
        norm="slaney",
        mel_scale="slaney",
    )


def _value(name: str, shape: tuple[int, ...], mean: float, variance: float) -> np.ndarray:
    """The numbers of an entry. NumPy promises that a RandomState never changes."""
    if name.endswith("num_batches_tracked"):
        return np.array(1000)
    if name == "global_pool.p":
        return np.array([2.5], dtype="float32")
    random = np.random.RandomState(zlib.crc32(name.encode()))
    values = random.standard_normal(shape)
    if name.endswith("running_var"):
        values = variance * (0.7 + 0.6 * random.random_sample(shape))
    elif name.endswith("running_mean"):
        values = mean + 0.1 * np.sqrt(variance) * values
    elif len(shape) >= 2:
        values = values * (1.3 / np.sqrt(np.prod(shape[1:])))
    elif name.endswith("weight"):
        values = 1 + 0.1 * values
    else:
        values = 0.1 * values
    return values.astype("float32")
