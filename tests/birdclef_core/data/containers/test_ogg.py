from pathlib import Path

import damaged_audio
import pytest

from birdclef_core.data.containers.file_bytes import FileBytes
from birdclef_core.data.containers.layout import Layout
from birdclef_core.data.containers.ogg import scan_ogg


def layout_of(folder: Path, content: bytes, *, verify: bool = True, start: int = 0) -> Layout:
    (folder / "a.ogg").write_bytes(content)
    with FileBytes(folder / "a.ogg") as file:
        return scan_ogg(file, start, verify=verify)


@pytest.mark.parametrize("make", [damaged_audio.ogg, damaged_audio.opus])
@pytest.mark.parametrize("verify", [True, False])
def test_a_sound_file_is_left_to_libsndfile(tmp_path: Path, make, verify: bool) -> None:
    assert layout_of(tmp_path, make(), verify=verify) == Layout()


def test_each_stream_is_a_part(tmp_path: Path) -> None:
    first, second = damaged_audio.ogg(3.0), damaged_audio.ogg()
    layout = layout_of(tmp_path, first + second)
    assert layout.needs_parts and len(layout.parts) == 2
    assert layout.parts[0].pieces[-1][1] == layout.parts[1].pieces[0][0] == len(first)
    assert [part.end_frame for part in layout.parts] == [3 * 32_000, 6 * 32_000]
    assert all(part.starts_stream and not part.follows_gap for part in layout.parts)


def test_every_changed_byte_is_seen(tmp_path: Path) -> None:
    """By the check sum of its page; without looking at it, by nothing."""
    content = damaged_audio.ogg()
    for place in range(6_000, 6_100):
        changed = damaged_audio.overwritten(content, place, bytes([content[place] ^ 1]))
        layout = layout_of(tmp_path, changed)
        assert layout.needs_parts and any(part.follows_gap for part in layout.parts)
        assert layout_of(tmp_path, changed, verify=False) == Layout()


def test_pages_behind_a_gap_get_the_header_of_their_stream(tmp_path: Path) -> None:
    content = damaged_audio.without_page(damaged_audio.ogg(), 5)
    layout = layout_of(tmp_path, content)
    (header, first), (again, second) = (part.pieces for part in layout.parts)
    assert header == again == (0, damaged_audio.pages(content)[1][1])
    assert first[1] == second[0] == damaged_audio.pages(content)[5][0] and second[1] == len(content)
    assert [part.follows_gap for part in layout.parts] == [False, True]


def test_the_end_is_looked_for(tmp_path: Path) -> None:
    content = damaged_audio.ogg()
    for cut in (content[:-1], content[: damaged_audio.pages(content)[-1][0]]):
        assert [fault.kind for fault in layout_of(tmp_path, cut, verify=False).faults] == ["cut"]


def test_only_headers_are_nothing(tmp_path: Path) -> None:
    content = damaged_audio.ogg()
    assert layout_of(tmp_path, content[: damaged_audio.pages(content)[1][1]]) == Layout()
