"""Reads the pages of OGG files (RFC 3533): streams that follow one another, missing and damaged pages, a missing end.

libsndfile reads the first stream of a file, and joins what lies before and after a missing page without a word.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from birdclef_core.data.containers.file_bytes import FileBytes
from birdclef_core.data.containers.layout import Fault, Layout, Part

CAPTURE = b"OggS"

_FIRST, _LAST = 2, 4
_HEADER = struct.Struct("<4sBBq4sI4xB")
"""Capture pattern, version, flags, granule position, serial number, number of the page, (check sum,) number of segments."""
_OPUS_TICKS_PER_S = 48_000
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


class _Page(NamedTuple):
    start: int
    end: int
    flags: int
    granule: int
    """Position after the last sample that ends on this page; -1 where none does."""
    serial: bytes
    number: int


@dataclass
class _Segment:
    """Pages without a gap among them."""

    start: int
    end: int
    granule: int = -1
    follows_gap: bool = False


@dataclass
class _Stream:
    """One logical stream."""

    serial: bytes
    header_start: int
    header_end: int
    next_number: int
    is_opus: bool
    segments: list[_Segment] = field(default_factory=list)
    has_end: bool = False


def scan_ogg(file: FileBytes, start: int, *, verify: bool) -> Layout:
    """Return the layout of an OGG file whose first page lies at `start`. `verify` also looks at the check sum of every page."""
    streams: list[_Stream] = []
    position, has_strangers = start, False
    for page in _pages(file, start, verify):
        lost = page.start - position
        position = page.end
        if page.flags & _FIRST:
            if streams and not streams[-1].segments:
                # Several streams at once (a video, say), where libsndfile finds its own; or a damaged beginning.
                return Layout() if verify else scan_ogg(file, start, verify=True)
            is_opus = file.read(page.start, page.end - page.start)[_HEADER.size + 1 :].startswith(b"OpusHead")
            streams.append(_Stream(page.serial, page.start, page.end, page.number + 1, is_opus))
        elif streams and page.serial == streams[-1].serial:
            _add(streams[-1], page, lost)
        else:
            has_strangers = True
    parts = tuple(part for stream in streams for part in _parts(stream))
    if not parts:
        return Layout()
    has_strangers |= streams[0].header_start != start
    plain = not has_strangers and len(parts) == 1 and streams[0].header_start == 0 and not parts[0].follows_gap
    if not plain and not verify:
        return scan_ogg(file, start, verify=True)  # Beside one damage there may be more, such as a page whose end is lost.
    faults = _faults(streams, file.read(position, len(CAPTURE)), has_strangers)
    return Layout(parts=() if plain else parts, needs_parts=not plain, faults=faults)


def _pages(file: FileBytes, start: int, verify: bool) -> Iterator[_Page]:
    """Yield the pages from `start` on that are complete; what is no page is skipped."""
    position = start
    while 0 <= position < file.size:
        page = _page_at(file, position, verify)
        if page:
            yield page
        position = page.end if page else file.find(CAPTURE, position + 1, file.size)


def _page_at(file: FileBytes, position: int, verify: bool) -> _Page | None:
    # Without the check sums, only a header of each page is needed: reading those alone takes less time.
    head = (file.read if verify else file.read_once)(position, _HEADER.size + 255)
    if len(head) < _HEADER.size:
        return None
    capture, version, flags, granule, serial, number, count = _HEADER.unpack_from(head)
    end = position + _HEADER.size + count + sum(head[_HEADER.size : _HEADER.size + count])
    if capture != CAPTURE or version or len(head) < _HEADER.size + count or end > file.size:
        return None
    if verify and not _is_sound(file.read(position, end - position)):
        return None
    return _Page(position, end, flags, granule, serial, number)


def _is_sound(page: bytes) -> bool:
    """Return whether the check sum is right. It is zlib's with the bits in the other order and no ones at its ends."""
    reversed_sum = zlib.crc32((page[:22] + bytes(4) + page[26:]).translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reversed_sum:032b}"[::-1], 2) == int.from_bytes(page[22:26], "little")


def _add(stream: _Stream, page: _Page, lost: int) -> None:
    """Put a page at the end of its stream."""
    is_gap = page.number != stream.next_number or lost > 0
    stream.next_number = page.number + 1
    stream.has_end = bool(page.flags & _LAST)
    if not stream.segments and page.granule <= 0 and not is_gap:
        stream.header_end = page.end
        return
    if is_gap or not stream.segments:
        stream.segments.append(_Segment(page.start, page.end, follows_gap=is_gap))
    segment = stream.segments[-1]
    segment.end = page.end
    if page.granule >= 0:
        segment.granule = page.granule


def _parts(stream: _Stream) -> Iterator[Part]:
    """Yield each segment with the header pages of its stream before it, which makes it a stream of its own."""
    header = (stream.header_start, stream.header_end)
    for number, segment in enumerate(stream.segments):
        yield Part(
            pieces=(header, (segment.start, segment.end)),
            end_frame=segment.granule if segment.granule >= 0 else None,
            ticks_per_s=_OPUS_TICKS_PER_S if stream.is_opus else None,
            starts_stream=number == 0,
            follows_gap=segment.follows_gap,
        )


def _faults(streams: list[_Stream], rest: bytes, has_strangers: bool) -> tuple[Fault, ...]:
    """Say what the pages show. How long the gaps are shows when the parts are opened."""
    faults = []
    if len(streams) > 1:
        faults.append(
            Fault("length", f"holds {len(streams)} OGG streams, one after the other; many programs read only the first")
        )
    if any(not stream.has_end for stream in streams) or rest.startswith(CAPTURE):
        faults.append(Fault("cut", "ends before its last OGG page"))
    if has_strangers:
        faults.append(Fault("gap", "has OGG pages of a stream whose beginning is missing or damaged"))
    return tuple(faults)
