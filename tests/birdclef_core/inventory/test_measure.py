from pathlib import Path
from typing import Any

import damaged_audio
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
    assert seen["duration_s"] == seen["header_s"] == 2.0 and seen["error"] == seen["cut"] == seen["gap"] == seen["length"] == ""
    assert seen["peak"] == pytest.approx(0.5, abs=1e-3) and seen["rms"] == pytest.approx(0.5 / 2**0.5, abs=1e-3)
    assert seen["mean"] == pytest.approx(0, abs=1e-3) and seen["clipped_share"] == 0 and seen["not_finite"] == 0


def test_blocks_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, TONE_T + 0.1)
    whole = measure_file(path)
    monkeypatch.setattr("birdclef_core.inventory.measure._BLOCK", 4096)
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


@pytest.mark.parametrize("name", damaged_audio.DAMAGED)
def test_damage_is_said_by_kind(tmp_path: Path, name: str) -> None:
    case = damaged_audio.DAMAGED[name]()
    path = tmp_path / f"a.{case.suffix}"
    path.write_bytes(case.content)
    seen = measure_file(path)
    assert seen["error"] == "" and seen["duration_s"] == pytest.approx(case.decoded_s, abs=0.15)
    assert {kind for kind in ("cut", "gap", "length") if seen[kind]} == case.kinds


@pytest.mark.parametrize("name", damaged_audio.SOUND)
def test_nothing_is_said_of_a_sound_file(tmp_path: Path, name: str) -> None:
    case = damaged_audio.SOUND[name]()
    path = tmp_path / f"a.{case.suffix}"
    path.write_bytes(case.content)
    seen = measure_file(path)
    assert not (seen["error"] or seen["cut"] or seen["gap"] or seen["length"])
    assert seen["header_s"] == pytest.approx(seen["duration_s"], abs=0.1) and seen["duration_s"] == pytest.approx(6.0, abs=0.1)


def test_the_length_that_a_file_states_is_kept_beside_what_is_there(tmp_path: Path) -> None:
    for name, stated_s in (
        ("wav with too small a size", 1.0),
        ("flac with too large a length", 20.0),
        ("wav without its end", 6.0),
    ):
        case = damaged_audio.DAMAGED[name]()
        (tmp_path / "a").write_bytes(case.content)
        assert measure_file(tmp_path / "a")["header_s"] == pytest.approx(stated_s)


def test_a_file_that_changes_meanwhile_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, TONE_T)
    monkeypatch.setattr("birdclef_core.data.containers.file_bytes.FileBytes.has_changed", lambda _: True)
    assert "changed while" in measure_file(path)["error"]


def test_equal_sound_is_told_whatever_its_container(tmp_path: Path) -> None:
    contents = [measure_file(written(tmp_path, TONE_T, name))["content"] for name in ("a.wav", "a.flac")]
    other = measure_file(written(tmp_path, TONE_T[::-1].copy(), "b.wav"))["content"]
    assert contents[0] == contents[1] != other


@pytest.mark.parametrize(("content", "said"), [(b"", "is empty"), (b"<html>not found</html>", "cannot be opened")])
def test_what_is_no_audio(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.ogg").write_bytes(content)
    assert said in measure_file(tmp_path / "a.ogg")["error"]
    (tmp_path / "a.ogg").unlink()
    assert measure_file(tmp_path / "a.ogg")["error"] == "cannot be read: No such file or directory"


def test_no_samples(tmp_path: Path) -> None:
    seen = measure_file(written(tmp_path, np.empty(0, dtype=np.float32)))
    assert seen["error"] == "has no samples" and seen["rms"] == 0
