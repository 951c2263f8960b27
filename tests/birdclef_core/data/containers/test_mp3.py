import struct
from pathlib import Path

import damaged_audio
import pytest
import soundfile

from birdclef_core.data.containers.file_bytes import FileBytes
from birdclef_core.data.containers.layout import Layout
from birdclef_core.data.containers.mp3 import find_mp3, scan_mp3, skip_id3

RATE_HZ = damaged_audio.RATE_HZ


def layout_of(folder: Path, content: bytes, *, verify: bool = True) -> Layout:
    (folder / "a.mp3").write_bytes(content)
    with FileBytes(folder / "a.mp3") as file:
        return scan_mp3(file, skip_id3(file, 0), verify=verify)


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000])
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_frames_are_counted_at_every_rate(tmp_path: Path, rate_hz: int, mode: str) -> None:
    wave = damaged_audio.sound(3.0, 2, rate_hz)
    content = damaged_audio.encoded(wave, rate_hz, format="MP3", bitrate_mode=mode, compression_level=0.5)
    start = content.find(b"\xff", 4 + 36 + 100)
    with (tmp_path / "a.mp3").open("wb") as file:
        file.write(content)
    with FileBytes(tmp_path / "a.mp3") as file:
        second = find_mp3(file, start)
    layout = layout_of(tmp_path, content[second:])
    assert layout.num_frames == pytest.approx(3.0 * rate_hz, abs=2 * 1152 + 1105)
    assert len(layout.parts) == 1 and not layout.needs_parts and not layout.faults
    assert layout_of(tmp_path, content).num_frames is None


def test_the_tag_is_believed_where_its_bytes_are_there(tmp_path: Path) -> None:
    content = damaged_audio.mp3()
    place = content.find(b"Xing") + 8
    other = damaged_audio.overwritten(content, place, struct.pack(">I", 60))
    assert layout_of(tmp_path, other, verify=False).num_frames is None
    assert layout_of(tmp_path, other).num_frames == pytest.approx(6.0 * RATE_HZ, abs=3_000)


def test_a_tag_that_counts_more_than_a_file_can_hold_is_none(tmp_path: Path) -> None:
    content = damaged_audio.mp3()
    absurd = damaged_audio.overwritten(content, content.find(b"Xing") + 8, b"\x7f\xff\xff\xff")
    layout = layout_of(tmp_path, absurd, verify=False)
    assert layout.num_frames == pytest.approx(6.0 * RATE_HZ, abs=3_000)


def test_tags_are_no_gap(tmp_path: Path) -> None:
    content = damaged_audio.without_tag(damaged_audio.mp3())
    lyrics = b"LYRICSBEGIN" + b"la " * 1000 + b"009LYRICS200"
    for tags in (damaged_audio.id3(5_000), damaged_audio.ape(5_000), b"TAG" + bytes(125), lyrics):
        layout = layout_of(tmp_path, content + tags + content)
        assert layout.num_frames == pytest.approx(12.0 * RATE_HZ, abs=6_000) and not layout.faults and len(layout.parts) == 1


def test_a_frame_more_or_less_is_no_loss(tmp_path: Path) -> None:
    content = damaged_audio.mp3()
    assert not layout_of(tmp_path, content[:-100]).faults
    cut = layout_of(tmp_path, content[: len(content) * 9 // 10])
    assert [fault.kind for fault in cut.faults] == ["cut"] and cut.stated_frames > cut.num_frames


def test_what_is_no_mp3_has_no_layout(tmp_path: Path) -> None:
    for content in (b"", b"\xff", b"<html></html>", bytes(100_000), damaged_audio.junk(100_000)):
        assert layout_of(tmp_path, content) == Layout()


def test_the_decoder_gets_what_the_encoder_put_before_the_sound_taken_away(tmp_path: Path) -> None:
    """Where the file is read in parts, the first one keeps the tag, which says how much that is."""
    path = tmp_path / "a.mp3"
    layout = layout_of(tmp_path, damaged_audio.overwritten(damaged_audio.mp3(), 20_000, bytes(4_000)))
    start, end = layout.parts[0].pieces[0]
    path.write_bytes(damaged_audio.mp3()[start:end])
    part, _ = soundfile.read(path, frames=RATE_HZ)
    path.write_bytes(damaged_audio.mp3())
    whole, _ = soundfile.read(path, frames=RATE_HZ)
    assert start == 0 and (part == whole).all()
