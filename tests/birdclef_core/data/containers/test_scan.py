from pathlib import Path

import damaged_audio
import pytest

from birdclef_core.data.containers.file_bytes import FileBytes
from birdclef_core.data.containers.layout import Layout
from birdclef_core.data.containers.scan import scan


def scanned(folder: Path, content: bytes) -> tuple[Layout, int]:
    (folder / "a").write_bytes(content)
    with FileBytes(folder / "a") as file:
        return scan(file, verify=True)


@pytest.mark.parametrize("name", damaged_audio.SOUND)
def test_a_sound_file_needs_no_parts(tmp_path: Path, name: str) -> None:
    layout, start = scanned(tmp_path, damaged_audio.SOUND[name]().content)
    assert not layout.needs_parts and not layout.faults
    assert start == (300_010 if name == "mp3 with art" else 3_010 if name == "flac after an id3 tag" else 0)


@pytest.mark.parametrize(
    "make", [damaged_audio.ogg, damaged_audio.opus, damaged_audio.flac, damaged_audio.wav, damaged_audio.mp3]
)
def test_a_tag_before_any_format_is_passed_over(tmp_path: Path, make) -> None:
    layout, start = scanned(tmp_path, damaged_audio.id3(2_000) + make())
    assert start == 2_010 and layout.parts and not layout.faults


@pytest.mark.parametrize("make", [damaged_audio.ogg, damaged_audio.flac, damaged_audio.wav, damaged_audio.mp3])
def test_what_lies_before_it_is_passed_over_and_counted(tmp_path: Path, make) -> None:
    layout, _ = scanned(tmp_path, damaged_audio.junk(9_999) + make())
    assert layout.parts and (any("9,999 bytes" in fault.text for fault in layout.faults) or make is damaged_audio.mp3)
    layout, _ = scanned(tmp_path, bytes(9_999) + make())
    assert layout.parts and not layout.faults


def test_what_is_nothing_has_an_empty_layout(tmp_path: Path) -> None:
    for content in (b"x", b"ID3", damaged_audio.junk(5_000), bytes(5_000)):
        assert scanned(tmp_path, content)[0] == Layout()
