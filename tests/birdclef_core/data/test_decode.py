from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from birdclef_core.data.decode import decode, to_int16
from birdclef_core.errors import DataError

ORIGINALS = Path(__file__).parents[2] / "data" / "originals"


@pytest.mark.parametrize(
    ("name", "duration_s"),
    [
        ("CommonYellowthroat.mp3", 5.9),
        ("rooster.mp3", 2.35),
        ("sheep.mp3", 0.91),
        ("misc_crow.flac", 0.48),
        ("bout_1.wav", 1.5),
        ("2021-B32-0415_05-3.wav", 2.16),
    ],
)
def test_real_originals(name: str, duration_s: float) -> None:
    """mp3 at 44.1 and 48 kHz, stereo mp3, flac, 64-bit float wav, 22.05 kHz wav."""
    wave_T = decode(ORIGINALS / name)
    assert wave_T.dtype == np.float32 and wave_T.ndim == 1
    assert len(wave_T) == pytest.approx(duration_s * 32_000, abs=400)
    assert 0.01 < np.abs(wave_T).max() <= 1.0
    assert abs(wave_T.mean()) < 0.01


def test_resampling_keeps_the_tone(tmp_path: Path, maker: Any) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 1000 * np.arange(44_100) / 44_100), 44_100)
    wave_T = decode(path)
    expected_T = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(32_000) / 32_000)
    assert np.abs(wave_T - expected_T)[1000:-1000].max() < 1e-3


def test_stereo_is_averaged_and_dc_removed(tmp_path: Path, maker: Any) -> None:
    path = tmp_path / "a.wav"
    left = maker.tone(1.0, 800)
    soundfile.write(path, np.stack([left + 0.4, np.zeros_like(left)], axis=1), 32_000, subtype="FLOAT")
    expected_T = left / 2
    np.testing.assert_allclose(decode(path), expected_T - expected_T.mean(), atol=1e-6)


def test_not_numbers_and_too_loud(tmp_path: Path, maker: Any) -> None:
    path = tmp_path / "a.wav"
    wave = np.tile([0.1, -0.1], 100)
    wave[[3, 10, 21]] = [np.nan, np.inf, -7.0]
    soundfile.write(path, wave, 32_000, subtype="DOUBLE")
    wave_T = decode(path)
    assert np.isfinite(wave_T).all() and np.abs(wave_T).max() == 1.0
    assert abs(wave_T[3]) < 0.1


def test_only_the_first_seconds(tmp_path: Path, maker: Any) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, maker.tone(2.0, rate_hz=16_000), 16_000)
    assert len(decode(path, max_s=0.5)) == 16_000


@pytest.mark.parametrize("content", [b"", b"no audio at all"])
def test_what_cannot_be_decoded_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.ogg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.ogg"):
        decode(path)


def test_no_samples(tmp_path: Path, maker: Any) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(0), 32_000)
    with pytest.raises(DataError, match="no samples"):
        decode(path)


def test_int16_rounds_and_saturates() -> None:
    wave_T = np.array([0.0, 1.0, -1.0, 0.6 / 32_768, -0.6 / 32_768], dtype=np.float32)
    assert to_int16(wave_T).tolist() == [0, 32_767, -32_768, 1, -1]
