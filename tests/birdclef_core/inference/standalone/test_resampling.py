"""The stand-in for soxr resamples as soxr does, in one piece and in blocks of any size."""

import numpy as np
import pytest
import soxr

from birdclef_core.inference.standalone.resampling import ResampleStream, resample


def tones(rate_hz: int) -> np.ndarray:
    time_T = np.arange(rate_hz) / rate_hz
    return (0.4 * np.sin(2 * np.pi * 1000 * time_T) + 0.2 * np.sin(2 * np.pi * 0.35 * min(rate_hz, 32_000) * time_T)).astype(
        np.float32
    )


@pytest.mark.parametrize("rate_hz", [44_100, 48_000, 22_050, 96_000])
def test_it_is_as_good_as_soxr(rate_hz):
    found, expected = resample(tones(rate_hz), rate_hz, 32_000), soxr.resample(tones(rate_hz), rate_hz, 32_000, quality="HQ")
    assert len(found) == len(expected) == 32_000
    np.testing.assert_allclose(found[1000:-1000], expected[1000:-1000], atol=1e-4)


@pytest.mark.parametrize("rate_hz", [44_100, 16_000])
def test_blocks_of_any_size_give_the_same(rate_hz):
    wave_T, generator = tones(rate_hz), np.random.default_rng(0)
    stream, parts, first = ResampleStream(rate_hz, 32_000, 1), [], 0
    while first < len(wave_T):
        size = int(generator.integers(1, 5000))
        parts.append(stream.resample_chunk(wave_T[first : first + size]))
        first += size
    parts.append(stream.resample_chunk(wave_T[:0], last=True))
    np.testing.assert_allclose(np.concatenate(parts), resample(wave_T, rate_hz, 32_000), atol=1e-6)


def test_what_cannot_be_heard_at_the_lower_rate_is_gone():
    time_T = np.arange(48_000) / 48_000
    assert np.abs(resample(np.sin(2 * np.pi * 20_000 * time_T).astype(np.float32), 48_000, 32_000)[1000:-1000]).max() < 1e-4
    with pytest.raises(ValueError, match="num_channels"):
        ResampleStream(48_000, 32_000, 2)
