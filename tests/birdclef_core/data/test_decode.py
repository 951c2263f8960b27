import os
import tracemalloc
from pathlib import Path
from typing import Any
from unittest.mock import patch

import damaged_audio
import numpy as np
import pytest
import soundfile
import soxr

from birdclef_core.data import decode as decode_module
from birdclef_core.data.decode import Decoding, decode, to_int16
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


@pytest.mark.parametrize("name", damaged_audio.NO_SOUND)
def test_what_cannot_be_decoded_is_named(tmp_path: Path, name: str) -> None:
    suffix, content = damaged_audio.NO_SOUND[name]
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.{suffix} must be audio that can be decoded, but it "):
        decode(path)


def test_no_samples(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(0), 32_000)
    with pytest.raises(DataError, match="no samples"):
        decode(path)


def decoded_at_once(path: Path) -> np.ndarray:
    """What a recording must be, whatever its length: written down in the plainest way, and never changed."""
    wave_TC, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    channels = wave_TC.shape[1]
    wave_T = wave_TC[:, 0] if channels == 1 else wave_TC @ np.full(channels, 1 / channels, dtype=np.float32)
    wave_T = wave_T - wave_T.mean()
    if rate_hz != 32_000:
        wave_T = soxr.resample(wave_T, rate_hz, 32_000, quality="HQ")
    return np.clip(wave_T, -1.0, 1.0)


@pytest.mark.parametrize(
    "path", sorted(path for path in ORIGINALS.iterdir() if path.suffix != ".csv"), ids=lambda path: path.name
)
def test_not_a_bit_may_change(path: Path) -> None:
    """Stages that are stored were trained on these samples."""
    assert np.array_equal(decode(path), decoded_at_once(path))


@pytest.mark.parametrize(("rate_hz", "channels"), [(32_000, 1), (48_000, 2), (44_100, 1), (22_050, 2), (96_000, 1), (8_000, 1)])
@pytest.mark.parametrize("step", [999, 20_000])
def test_a_long_recording_is_decoded_in_blocks_to_the_same_bits(tmp_path: Path, rate_hz: int, channels: int, step: int) -> None:
    """With the mean that numpy gives of the whole, and as soxr resamples the whole."""
    path = tmp_path / "a.wav"
    wave = np.random.default_rng(0).normal(0.05, 0.2, (7 * rate_hz + 13, channels)).astype(np.float32)
    soundfile.write(path, wave, rate_hz, subtype="FLOAT")
    with patch.multiple(decode_module, _MOST_VALUES=1000, _STEP=step):
        blocks = list(Decoding(path).blocks())
        first_s = decode(path, max_s=2.5)
    assert len(blocks) > 2 and np.array_equal(np.concatenate(blocks), decoded_at_once(path))
    assert np.array_equal(first_s, decode(path, max_s=2.5))


@pytest.mark.parametrize("name", ["ogg without a page", "mp3 without a tag", "flac with zeros", "flac without its end"])
def test_a_long_damaged_recording_is_the_same_in_blocks(tmp_path: Path, name: str) -> None:
    case = damaged_audio.DAMAGED[name]()
    path = tmp_path / f"a.{case.suffix}"
    path.write_bytes(case.content)
    whole_T = decode(path)
    with patch.multiple(decode_module, _MOST_VALUES=1000, _STEP=4096):
        decoding = Decoding(path)
        assert np.array_equal(np.concatenate(list(decoding.blocks())), whole_T)
    assert {fault.kind for fault in decoding.faults} == case.kinds


def test_odd_values_in_a_long_recording(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    wave = np.random.default_rng(0).normal(0, 0.8, 60_000).astype(np.float32)
    wave[[40_000, 41_000]] = np.nan, np.inf
    soundfile.write(path, wave, 44_100, subtype="FLOAT")
    whole_T = decode(path)
    with patch.multiple(decode_module, _MOST_VALUES=1000, _STEP=4096):
        assert np.array_equal(decode(path), whole_T) and np.isfinite(whole_T).all()


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    peaks = []
    for seconds in (20, 80):
        soundfile.write(path, np.zeros((seconds * 48_000, 2)) + 0.1, 48_000)
        with patch.multiple(decode_module, _MOST_VALUES=2**20):
            tracemalloc.start()
            for _ in Decoding(path).blocks():
                pass
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] < 20e6


@pytest.mark.parametrize("most", [1000, 2**26], ids=["long", "short"])
def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(60_000), 32_000)
    real = decode_module.AudioStream.read

    def read(*arguments: Any) -> np.ndarray:
        os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
        return real(*arguments)

    monkeypatch.setattr(decode_module, "_MOST_VALUES", most)
    monkeypatch.setattr(decode_module.AudioStream, "read", read)
    with pytest.raises(DataError, match="changed while"):
        decode(path)


def test_int16_rounds_and_saturates() -> None:
    wave_T = np.array([0.0, 1.0, -1.0, 0.6 / 32_768, -0.6 / 32_768], dtype=np.float32)
    assert to_int16(wave_T).tolist() == [0, 32_767, -32_768, 1, -1]
