"""Noise that is made from random numbers: its kinds, and the choices of kinds that a recipe can have.

Shapes: M noises, T samples.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from birdclef_core.augment_config import ColouredNoiseName

NoiseColour = Literal["white", "pink"]
NoiseMeasure = Literal["peak_snr_db", "rms_snr_db", "rms"]


@dataclass(frozen=True, kw_only=True)
class ColouredNoise:
    """One kind of noise, at a level that is drawn between `low` and `high`."""

    weight: float
    """How often a clip with noise gets this kind, in proportion to the weights of the other kinds."""
    colour: NoiseColour
    """`white`: equal power at every frequency; `pink`: power that falls by 3 dB an octave."""
    measure: NoiseMeasure
    """What the level is. `peak_snr_db`: decibels from the peak of the noise up to that of the clip; `rms_snr_db`: the same of their RMS;
    `rms`: RMS of the noise itself, where full scale is 1, so that a quiet clip may drown in it."""
    low: float
    high: float


COLOURED_NOISE: dict[ColouredNoiseName, tuple[ColouredNoise, ...]] = {
    "sed": (
        ColouredNoise(weight=1.0, colour="white", measure="rms", low=0.0, high=0.04),
        ColouredNoise(weight=1.0, colour="white", measure="peak_snr_db", low=5.0, high=20.0),
        ColouredNoise(weight=1.0, colour="pink", measure="peak_snr_db", low=5.0, high=20.0),
        ColouredNoise(weight=0.5, colour="white", measure="rms", low=0.0001, high=0.03),
        ColouredNoise(weight=0.5, colour="white", measure="rms_snr_db", low=5.0, high=15.0),
    ),
    "cnn": (
        ColouredNoise(weight=1.0, colour="white", measure="rms", low=0.0, high=0.04),
        ColouredNoise(weight=1.0, colour="white", measure="peak_snr_db", low=5.0, high=40.0),
        ColouredNoise(weight=1.0, colour="pink", measure="peak_snr_db", low=5.0, high=20.0),
    ),
}
"""The kinds that the recipes of the 2023 solution choose from, for each of its two heads."""


def coloured_noise(colour: NoiseColour, count: int, num_samples: int, generator: torch.Generator) -> Tensor:
    """Return noise_MT, made on the generator's device. Pink noise is made in the spectrum, where its power falls with 1/f."""
    device = generator.device
    if colour == "white":
        return torch.randn(count, num_samples, generator=generator, device=device)
    spectrum = torch.randn(count, num_samples // 2 + 1, 2, generator=generator, device=device)
    bins = torch.arange(num_samples // 2 + 1, device=device)
    spectrum *= torch.where(bins > 0, bins.clamp(min=1).rsqrt(), 0.0)[:, None]
    return torch.fft.irfft(torch.view_as_complex(spectrum), n=num_samples)
