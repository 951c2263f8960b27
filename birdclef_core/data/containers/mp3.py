"""Reads the frames of MP3 files: how long a file is, and where it is damaged.

Without a tag that counts the frames (Xing, Info, VBRI), libsndfile guesses the length from the size of the file and of the first
frame, and stops there: a variable bit rate, cover art or other tags make the guess wrong.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from birdclef_core.data.containers.file_bytes import FileBytes
from birdclef_core.data.containers.layout import MOST_SILENCE_S, TOLERANCE_S, Fault, Layout, Part

_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
"""By version: 3 is MPEG-1, 2 is MPEG-2, 0 is MPEG-2.5; then by the header's index."""
_KBITS = {
    (True, 3): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 1): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 3): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 1): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""By (whether it is MPEG-1, layer as the header writes it: 3 is layer I, 1 is layer III), then by the header's index."""
_SURE_FRAMES = 4
"""This many frames in a row are no accident. At the end of a file, fewer are enough."""
_SHORTEST = 24
"""Bytes of the shortest frame that there is."""
_SYNC = re.compile(rb"\xff[\xe2-\xff]")
_SEARCH = 2**20
_WALK = 2**16
_TAG_REACH = 192
"""A tag that counts frames lies within this many bytes from the beginning of its frame."""


@dataclass(frozen=True)
class _Frame:
    """What a frame's header says."""

    num_bytes: int
    num_samples: int
    rate_hz: int
    kind: int
    """Version, layer and rate: the same in all frames of a stream."""


@dataclass(frozen=True)
class _Run:
    """Frames that follow each other without a gap, tags aside."""

    start: int
    end: int
    num_frames: int
    frame: _Frame
    """The first one."""
    lost_bytes: int
    """What lies before it and is neither a frame nor a tag."""


@dataclass(frozen=True)
class _Tag:
    """What the first frame says about the others, where it holds a tag."""

    num_frames: int
    num_bytes: int
    """0: it does not say."""


def find_mp3(file: FileBytes, start: int) -> int:
    """Return the place of the first frame at or after `start` that others follow, within 1 MiB; -1 when there is none."""
    return _resync(file, start, min(file.size, start + _SEARCH))


def scan_mp3(file: FileBytes, start: int, *, verify: bool) -> Layout:
    """Return the layout of an MP3 file whose ID3 tags end at `start`.

    Where a tag counts the frames and the bytes, and the bytes are there, its word is taken unless `verify` asks to walk all
    frames.
    """
    begin = find_mp3(file, start)
    first = _frame_at(file, begin) if begin >= 0 else None
    if first is None:
        return Layout()
    tag = _read_tag(file, begin, first)
    end = _end_of_sound(file)
    slack = TOLERANCE_S * first.num_bytes * first.rate_hz / first.num_samples
    if tag and not verify and tag.num_bytes and abs(end - begin - tag.num_bytes) <= slack:
        return Layout(parts=(Part(((begin, end),)),))
    runs = list(_runs(file, begin, end))
    if tag:
        runs = _without_tag(runs, first)
    counted = round(sum(run.num_frames * run.frame.num_samples * first.rate_hz / run.frame.rate_hz for run in runs))
    unread = _padding(file, start, begin) + sum(run.lost_bytes for run in runs) + end - runs[-1].end
    is_damaged = unread > _SURE_FRAMES * first.num_bytes
    if tag is None:
        faults = (Fault("gap", f"{unread:,} bytes are no MP3 frames"),) if is_damaged else ()
        return Layout(counted, None, tuple(_parts(runs, 0)), needs_parts=is_damaged, faults=faults)
    stated = tag.num_frames * first.num_samples
    there = f"{counted / first.rate_hz:.1f} s are there"
    if abs(stated - counted) <= TOLERANCE_S * first.rate_hz:
        if len(runs) == 1:
            return Layout(parts=(Part(((begin, runs[0].end),)),), needs_parts=is_damaged)
        return Layout(parts=tuple(_parts(runs, max(0, stated - counted), begin)), needs_parts=True)
    if stated < counted:
        faults = (Fault("length", f"states {stated / first.rate_hz:.1f} s, but {there}"),)
        return Layout(counted, stated, tuple(_parts(runs, 0)), needs_parts=True, faults=faults)
    if len(runs) == 1:
        faults = (Fault("cut", f"{there} of {stated / first.rate_hz:.1f} s"),)
        return Layout(counted, stated, (Part(((begin, runs[0].end),)),), needs_parts=is_damaged, faults=faults)
    is_all_there = bool(tag.num_bytes) and end - begin >= tag.num_bytes - slack
    is_likely = is_all_there and stated - counted <= MOST_SILENCE_S * first.rate_hz
    parts = tuple(_parts(runs, stated - counted if is_likely else 0, begin))
    num_frames = counted + sum(part.silence_frames for part in parts)
    faults = (Fault("gap", f"{there} of {stated / first.rate_hz:.1f} s; something inside is missing or damaged"),)
    return Layout(num_frames, stated, parts, needs_parts=True, faults=faults)


def _padding(file: FileBytes, start: int, end: int) -> int:
    """Return how many bytes lie between `start` and `end`; 0 when all of them are zeros."""
    return end - start if file.read_once(start, end - start).strip(b"\0") else 0


def _parts(runs: list[_Run], missing: int, tag_start: int | None = None) -> Iterator[Part]:
    """Yield one part for each run. `missing` samples, which are known from the tag, are shared out among the gaps by their bytes.

    The first part has the tag that lies at `tag_start`, so that the decoder leaves out what the encoder put before the sound.
    """
    lost = sum(run.lost_bytes for run in runs)
    for number, run in enumerate(runs):
        silence = round(missing * run.lost_bytes / lost) if lost else 0
        start = run.start if tag_start is None or number else tag_start
        yield Part(((start, run.end),), is_open_ended=start == run.start, follows_gap=run.lost_bytes > 0, silence_frames=silence)


def _without_tag(runs: list[_Run], first: _Frame) -> list[_Run]:
    """Return the same runs without the first frame, which holds the tag."""
    run = runs[0]
    return [_Run(run.start + first.num_bytes, run.end, run.num_frames - 1, run.frame, 0), *runs[1:]]


def _runs(file: FileBytes, start: int, end: int) -> Iterator[_Run]:
    """Yield the runs of frames from `start`, where the first one lies, to `end`."""
    lost = 0
    while start >= 0:
        run = _run(file, start, end, lost)
        yield run
        after = _skip_tags(file, run.end)
        start = _resync(file, after, end)
        lost = start - after


def _run(file: FileBytes, start: int, end: int, lost: int) -> _Run:
    first = _frame_at(file, start)
    assert first is not None
    position, count = start, 0
    while True:
        position, more = _walk(file, position, end, first.kind)
        count += more
        after = _skip_tags(file, position)
        frame = _frame_at(file, after) if after > position else None
        if frame is None or frame.kind != first.kind or after + frame.num_bytes > end:
            return _Run(start, position, count, first, lost)
        position = after


def _walk(file: FileBytes, position: int, end: int, kind: int) -> tuple[int, int]:
    """Go from frame to frame while they are of one kind. Returns the place after the last complete one, and how many they are."""
    count = 0
    while True:
        data = file.read(position, _WALK)
        place, last = 0, len(data) - 4
        while place <= last:
            frame = _frame(data[place + 1], data[place + 2]) if data[place] == 0xFF else None
            if frame is None or frame.kind != kind or position + place + frame.num_bytes > end:
                return position + place, count
            place += frame.num_bytes
            count += 1
        if last < 0 or position + len(data) >= file.size:
            return position + place, count
        position += place


def _frame_at(file: FileBytes, position: int) -> _Frame | None:
    head = file.read(position, 4)
    return _frame(head[1], head[2]) if len(head) == 4 and head[0] == 0xFF else None


@lru_cache(4096)
def _frame(second: int, third: int) -> _Frame | None:
    """Return what the second and third byte of a header say; None where they are no header of a frame with a known length."""
    version, layer = second >> 3 & 3, second >> 1 & 3
    kbits_index, rate_index, padding = third >> 4, third >> 2 & 3, third >> 1 & 1
    if second < 0xE0 or version == 1 or layer == 0 or kbits_index in (0, 15) or rate_index == 3:
        return None
    rate_hz = _RATES_HZ[version][rate_index]
    bits_per_s = 1000 * _KBITS[version == 3, layer][kbits_index]
    if layer == 3:
        num_samples, num_bytes = 384, (12 * bits_per_s // rate_hz + padding) * 4
    else:
        num_samples = 576 if layer == 1 and version != 3 else 1152
        num_bytes = num_samples // 8 * bits_per_s // rate_hz + padding
    return _Frame(num_bytes, num_samples, rate_hz, version << 16 | layer << 8 | rate_index)


def _read_tag(file: FileBytes, start: int, first: _Frame) -> _Tag | None:
    """Return what the first frame says about the others; None where it says nothing, or more than the file can hold."""
    tag = _tag_in(file.read(start, min(first.num_bytes, _TAG_REACH)))
    return tag if tag and 0 < tag.num_frames * _SHORTEST <= max(file.size, tag.num_bytes) else None


def _tag_in(body: bytes) -> _Tag | None:
    for name in (b"Xing", b"Info"):
        place = body.find(name)
        if place >= 0:
            flags = int.from_bytes(body[place + 4 : place + 8], "big")
            values = [int.from_bytes(body[place + 8 + 4 * index :][:4], "big") for index in range(2)]
            return _Tag(values.pop(0), values[0] if flags & 2 else 0) if flags & 1 else None
    place = body.find(b"VBRI")
    fields = body[place + 10 : place + 18]
    return _Tag(int.from_bytes(fields[4:], "big"), int.from_bytes(fields[:4], "big")) if place >= 0 else None


def _resync(file: FileBytes, start: int, end: int) -> int:
    """Return the place of the next frame that enough others of its kind follow; -1 when there is none."""
    if _is_sure(file, start, end):
        return start
    position = start
    while position < end:
        chunk = file.read_once(position, min(_SEARCH, end - position))
        for match in _SYNC.finditer(chunk):
            place = position + match.start()
            if _is_sure(file, place, end):
                return place
        position += max(1, len(chunk) - 1)
        if len(chunk) < 2:
            break
    return -1


def _is_sure(file: FileBytes, position: int, end: int) -> bool:
    kind = None
    for count in range(_SURE_FRAMES):
        if count and position == end:
            return True
        frame = _frame_at(file, position)
        if frame is None or kind not in (None, frame.kind):
            return False
        kind = frame.kind
        position += frame.num_bytes
    return True


def skip_id3(file: FileBytes, position: int) -> int:
    """Return the place after the ID3v2 tags that begin at `position`."""
    while True:
        head = file.read(position, 10)
        if len(head) < 10 or not head.startswith(b"ID3") or any(byte & 0x80 for byte in head[6:10]):
            return position
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        position += 10 + size + (10 if head[5] & 0x10 else 0)


def _skip_tags(file: FileBytes, position: int) -> int:
    """Return the place after all tags that begin at `position`, of any kind."""
    while True:
        after = skip_id3(file, position)
        head = file.read(after, 32)
        if head.startswith(b"APETAGEX") and len(head) == 32:
            after += int.from_bytes(head[12:16], "little") + (32 if head[23] & 0x80 else 0)
        elif head.startswith(b"TAG"):
            after += 128
        elif head.startswith(b"LYRICSBEGIN"):
            found = file.find(b"LYRICS200", after, file.size)
            after = found + 9 if found >= 0 else after
        if after == position or after >= file.size:
            return min(after, file.size)
        position = after


def _end_of_sound(file: FileBytes) -> int:
    """Return where the tags at the end begin."""
    end = file.size
    if file.read_once(max(0, end - 128), 3) == b"TAG":
        end -= 128
    foot = file.read_once(max(0, end - 32), 32)
    if foot.startswith(b"APETAGEX"):
        size = int.from_bytes(foot[12:16], "little") + (32 if foot[23] & 0x80 else 0)
        end -= size if size < end else 0
    return end
