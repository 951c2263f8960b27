"""Coloured noise has the spectrum of its colour, and comes again from the same seed."""

import pytest
import torch

from birdclef_core.audio.coloured_noise import coloured_noise


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("colour", ["white", "pink"])
def test_the_same_seed_makes_the_same_noise(colour: str) -> None:
    first, again, other = (coloured_noise(colour, 2, 3201, generator(seed)) for seed in (1, 1, 2))  # type: ignore[arg-type]
    assert first.shape == (2, 3201) and torch.equal(first, again)
    assert not torch.equal(first, other) and not torch.equal(first[0], first[1])


@pytest.mark.parametrize(("colour", "fall_db"), [("white", 0.0), ("pink", 9.03)])
def test_noise_has_its_colour(colour: str, fall_db: float) -> None:
    """Pink noise falls by 3 dB an octave: 9 dB from 500-1000 Hz to 4-8 kHz, per hertz."""
    noise_BT = coloured_noise(colour, 8, 32_000, generator())  # type: ignore[arg-type]
    power_F = torch.fft.rfft(noise_BT).abs().square().mean(0)
    assert 10 * torch.log10(power_F[500:1000].mean() / power_F[4000:8000].mean()).item() == pytest.approx(fall_db, abs=0.5)
