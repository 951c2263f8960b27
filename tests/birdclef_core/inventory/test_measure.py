from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from birdclef_core.inventory.measure import measure_file

RATE_HZ = 16_000
TONE_T = (0.5 * np.sin(2 * np.pi * 500 * np.arange(2 * RATE_HZ) / RATE_HZ)).astype(np.float32)


def written(tmp_path: Path, wave: np.ndarray, name: str = "a.wav", **options: Any) -> Path:
    soundfile.write(tmp_path / name, wave, RATE_HZ, **options)
    return tmp_path / name


def test_a_sound_file(tmp_path: Path) -> None:
    seen = measure_file(written(tmp_path, TONE_T))
    assert seen["format"] == "WAV" and seen["sample_rate_hz"] == RATE_HZ and seen["channels"] == 1
    assert seen["duration_s"] == seen["header_s"] == 2.0 and not seen["is_cut"] and seen["error"] == ""
    assert seen["peak"] == pytest.approx(0.5, abs=1e-3) and seen["rms"] == pytest.approx(0.5 / 2**0.5, abs=1e-3)
    assert seen["mean"] == pytest.approx(0, abs=1e-3) and seen["clipped_share"] == 0 and seen["not_finite"] == 0


def test_blocks_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, TONE_T + 0.1)
    whole = measure_file(path)
    monkeypatch.setattr("birdclef_core.inventory.measure._BLOCK_S", 1)
    parts = measure_file(path)
    for name, value in whole.items():
        assert parts[name] == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value)


def test_offset_clipping_and_what_is_no_number(tmp_path: Path) -> None:
    seen = measure_file(written(tmp_path, TONE_T + 0.25))
    assert seen["mean"] == pytest.approx(0.25, abs=1e-3) and seen["rms"] == pytest.approx(0.5 / 2**0.5, abs=1e-3)
    assert measure_file(written(tmp_path, np.clip(4 * TONE_T, -1, 1)))["clipped_share"] > 0.5
    broken = TONE_T.copy()
    broken[[5, 6, 7]] = np.nan, np.inf, -np.inf
    seen = measure_file(written(tmp_path, broken, subtype="FLOAT"))
    assert seen["not_finite"] == 3 and np.isfinite(seen["rms"]) and seen["peak"] == pytest.approx(0.5, abs=1e-3)


def test_channels_that_cancel_are_silent(tmp_path: Path) -> None:
    """What is trained on is their average."""
    seen = measure_file(written(tmp_path, np.stack([TONE_T, -TONE_T], axis=1)))
    assert seen["channels"] == 2 and seen["rms"] < 1e-4 and seen["peak"] > 0.4


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_a_file_that_was_cut(tmp_path: Path, suffix: str) -> None:
    """libsndfile reads a cut WAV and OGG without a word."""
    noise = np.random.default_rng(0).normal(0, 0.1, 4 * RATE_HZ).astype(np.float32)
    path = written(tmp_path, noise, f"a.{suffix}")
    assert not measure_file(path)["is_cut"]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    seen = measure_file(path)
    assert seen["is_cut"] and seen["duration_s"] < 3
    assert seen["error"].startswith("breaks off after") == (suffix == "flac")


def test_an_ogg_that_ends_with_a_whole_page_which_is_not_the_last(tmp_path: Path) -> None:
    path = written(tmp_path, np.random.default_rng(0).normal(0, 0.1, 4 * RATE_HZ).astype(np.float32), "a.ogg")
    content = path.read_bytes()
    path.write_bytes(content[: content.rfind(b"OggS")])
    assert measure_file(path)["is_cut"]


def test_a_wav_of_a_streaming_writer_is_whole(tmp_path: Path) -> None:
    path = written(tmp_path, TONE_T)
    content = bytearray(path.read_bytes())
    start = content.find(b"data") + 4
    content[start : start + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert not measure_file(path)["is_cut"]


def test_equal_sound_is_told_whatever_its_container(tmp_path: Path) -> None:
    contents = [measure_file(written(tmp_path, TONE_T, name))["content"] for name in ("a.wav", "a.flac")]
    other = measure_file(written(tmp_path, TONE_T[::-1].copy(), "b.wav"))["content"]
    assert contents[0] == contents[1] != other


@pytest.mark.parametrize(("content", "said"), [(b"", "cannot be opened"), (b"<html>not found</html>", "cannot be opened")])
def test_what_is_no_audio(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.ogg").write_bytes(content)
    assert said in measure_file(tmp_path / "a.ogg")["error"]
    (tmp_path / "a.ogg").unlink()
    assert said in measure_file(tmp_path / "a.ogg")["error"]


def test_no_samples(tmp_path: Path) -> None:
    seen = measure_file(written(tmp_path, np.empty(0, dtype=np.float32)))
    assert seen["error"] == "has no samples" and seen["rms"] == 0
