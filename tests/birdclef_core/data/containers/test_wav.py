import os
import struct
from pathlib import Path

import damaged_audio
import pytest

from birdclef_core.data.audio_files import read_header
from birdclef_core.data.containers.file_bytes import FileBytes
from birdclef_core.data.containers.layout import Layout
from birdclef_core.data.containers.wav import scan_w64, scan_wav

LIST = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf60.16.100\0"
RATE_HZ = damaged_audio.RATE_HZ


def layout_of(folder: Path, content: bytes) -> Layout:
    (folder / "a.wav").write_bytes(content)
    with FileBytes(folder / "a.wav") as file:
        return scan_w64(file) if content[:4] == b"riff" else scan_wav(file, 0)


def before(content: bytes, chunk: bytes) -> bytes:
    """A WAV file with another chunk before the sound."""
    place = content.find(b"data")
    return content[:place] + chunk + content[place:]


@pytest.mark.parametrize(
    "content",
    [
        damaged_audio.wav(),
        damaged_audio.wav() + LIST,
        damaged_audio.wav() + LIST + b"\0",
        before(damaged_audio.wav(), LIST),
        damaged_audio.wav() + damaged_audio.junk(100),
        damaged_audio.wav(subtype="IMA_ADPCM"),
        damaged_audio.wav(format="RF64"),
        damaged_audio.wav(format="W64"),
    ],
)
def test_a_sound_file_is_left_to_libsndfile(tmp_path: Path, content: bytes) -> None:
    assert layout_of(tmp_path, content) == Layout()


@pytest.mark.parametrize("chunk", [b"", LIST])
@pytest.mark.parametrize("sizes", [(0, 0), (8, 0), (36 + 2 * RATE_HZ, 2 * RATE_HZ)])
def test_sizes_that_leave_sound_behind_are_replaced(tmp_path: Path, chunk: bytes, sizes: tuple[int, int]) -> None:
    layout = layout_of(tmp_path, damaged_audio.with_sizes(before(damaged_audio.wav(), chunk), *sizes))
    assert layout.needs_parts and layout.stated_frames == sizes[1] // 2 and [fault.kind for fault in layout.faults] == ["length"]


def test_a_streaming_writer_is_not_a_cut(tmp_path: Path) -> None:
    for size in (0x7FFF_F000, 0x8000_0000, 0xFFFF_FFFF):
        assert layout_of(tmp_path, damaged_audio.with_sizes(damaged_audio.wav(), size, size)) == Layout()
    cut = layout_of(tmp_path, damaged_audio.wav()[:-1000])
    assert [fault.kind for fault in cut.faults] == ["cut"] and cut.stated_frames == 6 * RATE_HZ


def test_a_file_of_more_than_four_gibibytes(tmp_path: Path) -> None:
    """Its sizes do not fit into the header, and start again from 0."""
    path = tmp_path / "a.wav"
    num_bytes = 2**32 + 4 * RATE_HZ
    path.write_bytes(damaged_audio.with_sizes(damaged_audio.wav()[:44], 36 + 4 * RATE_HZ, 4 * RATE_HZ))
    os.truncate(path, 44 + num_bytes)
    header = read_header(path)
    assert header.duration_s == pytest.approx(num_bytes / 2 / RATE_HZ, abs=0.1) and "states 2.0 s" in header.fault


def test_an_empty_file_with_a_list_is_empty(tmp_path: Path) -> None:
    assert layout_of(tmp_path, damaged_audio.with_sizes(damaged_audio.wav()[:44], 70, 0) + LIST) == Layout()
