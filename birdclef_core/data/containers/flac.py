"""Reads the frames of FLAC files (RFC 9639): how long a file is whose header does not say it, and where to go on after damage.

libsndfile stops at the length that the header states, and at the first damaged frame.
"""

import re
from dataclasses import dataclass

from birdclef_core.data.containers.file_bytes import FileBytes
from birdclef_core.data.containers.layout import TOLERANCE_S, Fault, Layout, Part

MAGIC = b"fLaC"

_STREAMINFO_END = 42
_TOTAL = slice(18, 26)
"""The bytes of the header whose last 36 bits are the number of samples."""
_TAILS = (2**15, 2**19)
"""The last frame is looked for in this many bytes at the end. The second number is more than the longest frame of any encoder."""
_SEARCH = 2**20
_SYNC = re.compile(rb"\xff[\xf8\xf9]")
_LONGEST_HEADER = 16
_BLOCK_SIZES = {1: 192, **{code: 576 << code - 2 for code in range(2, 6)}, **{code: 256 << code - 8 for code in range(8, 16)}}


def _crc8_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value << 1 ^ 0x07) & 0xFF if value & 0x80 else value << 1
        table.append(value)
    return table


_CRC8 = _crc8_table()


@dataclass(frozen=True)
class _Frame:
    start: int
    first_sample: int
    num_samples: int


@dataclass(frozen=True)
class _Info:
    """What the header of a file says."""

    start: int
    frames_start: int
    """Where the metadata end."""
    block_size: int
    """Samples in each frame but the last, where all frames have the same number."""
    rate_hz: int
    stated: int
    """Samples of each channel; 0: the header does not say it."""
    head: bytes


def scan_flac(file: FileBytes, start: int) -> Layout:
    """Return the layout of a FLAC file that begins at `start`, from its header and its last frame."""
    info = _read_info(file, start)
    if info is None:
        return Layout()
    last = _last_frame(file, info)
    if last is None:
        num_frames = 0 if file.size - info.frames_start < _TAILS[-1] else None
        return Layout(num_frames, info.stated, faults=(Fault("cut", "has no whole FLAC frame at its end"),))
    counted = last.first_sample + last.num_samples
    parts = (_part(info, info.frames_start, file.size, counted),)
    tolerance = TOLERANCE_S * info.rate_hz
    if abs(counted - info.stated) <= tolerance:
        return Layout(parts=parts)
    there, said = counted / info.rate_hz, info.stated / info.rate_hz
    if counted < info.stated:
        fault = Fault("cut", f"{there:.1f} s are there of {said:.1f} s")
    elif info.stated:
        fault = Fault("length", f"states {said:.1f} s, but {there:.1f} s are there")
    else:
        fault = Fault("length", "states no length (a FLAC stream); some programs refuse it")
    return Layout(counted, info.stated or counted, parts, needs_parts=True, faults=(fault,))


def flac_rest(file: FileBytes, start: int, after_sample: int) -> tuple[Part, int] | None:
    """Return what lies behind a damaged frame, with the position of its first sample; None when there is nothing.

    That is, the part of the file at `start` from the first frame that begins after sample `after_sample`.
    """
    info = _read_info(file, start)
    last = _last_frame(file, info) if info else None
    if info is None or last is None:
        return None
    position = info.frames_start
    while position < file.size:
        chunk = file.read_once(position, _SEARCH)
        for match in _SYNC.finditer(chunk):
            frame = _frame_at(file, position + match.start(), info)
            if frame and after_sample < frame.first_sample <= last.first_sample:
                end_frame = last.first_sample + last.num_samples
                return _part(info, frame.start, file.size, end_frame), frame.first_sample
        position += max(1, len(chunk) - 1)
    return None


def _part(info: _Info, start: int, end: int, total: int) -> Part:
    """Return frames with a header that states `total` samples."""
    number = int.from_bytes(info.head[_TOTAL], "big") >> 36 << 36 | total
    head = info.head[: _TOTAL.start] + number.to_bytes(8, "big") + info.head[_TOTAL.stop :]
    return Part((head, (start, end)))


def _read_info(file: FileBytes, start: int) -> _Info | None:
    head = file.read(start, _STREAMINFO_END)
    if len(head) < _STREAMINFO_END or not head.startswith(MAGIC) or head[4] & 0x7F:
        return None
    position, is_last = start + len(MAGIC), False
    while not is_last:
        block = file.read(position, 4)
        if len(block) < 4:
            position = file.size
            break
        is_last = bool(block[0] & 0x80)
        position += 4 + int.from_bytes(block[1:], "big")
    packed = int.from_bytes(head[_TOTAL], "big")
    rate_hz = packed >> 44
    if not rate_hz:
        return None
    only_streaminfo = head[:4] + bytes([head[4] | 0x80]) + head[5:]
    return _Info(start, position, int.from_bytes(head[8:10], "big"), rate_hz, packed & (1 << 36) - 1, only_streaminfo)


def _last_frame(file: FileBytes, info: _Info) -> _Frame | None:
    for tail in _TAILS:
        start = max(info.frames_start, file.size - tail)
        places = [start + match.start() for match in _SYNC.finditer(file.read_once(start, tail))]
        frames = (_frame_at(file, place, info) for place in reversed(places))
        if frame := next((frame for frame in frames if frame), None):
            return frame
    return None


def _frame_at(file: FileBytes, position: int, info: _Info) -> _Frame | None:
    """Return what the header of a frame says; None where there is none, or its check sum is wrong."""
    head = file.read_once(position, _LONGEST_HEADER)
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xFE != 0xF8:
        return None
    size_code, rate_code = head[2] >> 4, head[2] & 0xF
    number, place = _coded_number(head, 4)
    if number is None or size_code == 0 or rate_code == 15 or head[3] & 1:
        return None
    num_samples = _BLOCK_SIZES.get(size_code, 0)
    if size_code in (6, 7):
        width = size_code - 5
        num_samples = int.from_bytes(head[place : place + width], "big") + 1
        place += width
    place += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if place >= len(head) or _crc8(head[:place]) != head[place]:
        return None
    is_variable = head[1] & 1
    return _Frame(position, number if is_variable else number * info.block_size, num_samples)


def _coded_number(head: bytes, place: int) -> tuple[int | None, int]:
    """Return a number that is written as UTF-8 writes a character, and the place after it."""
    first = head[place]
    if first < 0x80:
        return first, place + 1
    extra = next((count for count in range(1, 7) if not first & 0x80 >> count + 1), 7) if first & 0x40 else 0
    rest = head[place + 1 : place + 1 + extra]
    if not extra or extra > 6 or len(rest) < extra or any(byte & 0xC0 != 0x80 for byte in rest):
        return None, place
    number = first & 0x3F >> extra
    for byte in rest:
        number = number << 6 | byte & 0x3F
    return number, place + 1 + extra


def _crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value = _CRC8[value ^ byte]
    return value
