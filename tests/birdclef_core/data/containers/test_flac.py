from pathlib import Path

import damaged_audio
import pytest

from birdclef_core.data.containers.file_bytes import FileBytes
from birdclef_core.data.containers.flac import flac_rest, scan_flac
from birdclef_core.data.containers.layout import Layout

TOTAL = 6 * damaged_audio.RATE_HZ


def layout_of(folder: Path, content: bytes) -> Layout:
    (folder / "a.flac").write_bytes(content)
    with FileBytes(folder / "a.flac") as file:
        return scan_flac(file, 0)


@pytest.mark.parametrize(
    ("rate_hz", "channels", "subtype"), [(32_000, 1, "PCM_16"), (44_100, 2, "PCM_24"), (96_000, 6, "PCM_16")]
)
def test_a_sound_file_is_left_to_libsndfile(tmp_path: Path, rate_hz: int, channels: int, subtype: str) -> None:
    wave = damaged_audio.sound(2.0, channels, rate_hz)
    layout = layout_of(tmp_path, damaged_audio.encoded(wave, rate_hz, format="FLAC", subtype=subtype))
    assert layout.num_frames is None and not layout.needs_parts and not layout.faults


@pytest.mark.parametrize("stated", [0, 1000, TOTAL // 2])
def test_the_last_frame_says_how_long_it_is(tmp_path: Path, stated: int) -> None:
    layout = layout_of(tmp_path, damaged_audio.with_total(damaged_audio.flac(), stated))
    assert layout.num_frames == TOTAL and layout.needs_parts and [fault.kind for fault in layout.faults] == ["length"]


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_cut_is_seen(tmp_path: Path, share: float) -> None:
    content = damaged_audio.flac()
    layout = layout_of(tmp_path, content[: round(share * len(content))])
    assert [fault.kind for fault in layout.faults] == ["cut"] and layout.stated_frames == TOTAL
    assert layout.num_frames == pytest.approx(share * TOTAL, abs=0.1 * TOTAL)


def test_the_rest_begins_with_the_next_frame(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(damaged_audio.flac())
    with FileBytes(tmp_path / "a.flac") as file:
        found = flac_rest(file, 0, 4096)
        assert found is not None and found[1] == 8192
        assert flac_rest(file, 0, TOTAL) is None


def test_headers_without_frames_hold_nothing(tmp_path: Path) -> None:
    assert layout_of(tmp_path, damaged_audio.flac()[:42]).num_frames == 0
    assert layout_of(tmp_path, damaged_audio.flac()[:20]) == Layout()
