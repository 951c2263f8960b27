"""Reads the chunks of WAV files (RIFF, RF64 and W64): whether the sizes are those of the sound that is there.

A writer that cannot go back to the header (a pipe), or that was stopped, leaves sizes that are 0, too small or without meaning.
libsndfile reads as much as they say.
"""

import struct
from dataclasses import dataclass

from birdclef_core.data.containers.file_bytes import FileBytes
from birdclef_core.data.containers.layout import Fault, Layout, Part

_UNKNOWN = b"\xff\xff\xff\xff"
_STREAMED = 0x7FFF_F000
"""Writers to a pipe state a size from here on: sox 0x7FFFF000, arecord 0x80000000, ffmpeg 0xFFFFFFFF."""
_LARGE = 2**32 - 2**16
"""Bytes of sound from which on sizes may not fit into RIFF's 32 bits."""
_LOST_S = 1.0
"""Less than this behind the sound is the data of some program, not sound."""
_W64_DATA = bytes.fromhex("64617461f3acd3118cd100c04f8edb8a")
_W64_FMT = bytes.fromhex("666d7420f3acd3118cd100c04f8edb8a")


@dataclass
class _Chunks:
    """What is needed of the chunks before the sound."""

    format: bytes = b""
    size_place: int = 0
    """Where the size of the sound stands."""
    data_start: int = 0
    stated: int = 0
    """Bytes of sound."""
    large_size: int = 0
    """Of an RF64 file: bytes of sound, from its `ds64` chunk."""

    @property
    def bytes_per_s(self) -> int:
        return int.from_bytes(self.format[8:12], "little")

    @property
    def block_bytes(self) -> int:
        return int.from_bytes(self.format[12:14], "little")


def is_wav(head: bytes) -> bool:
    """Return whether the first 12 bytes of a file are those of a RIFF or RF64 WAV file."""
    return head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE"


def is_w64(head: bytes) -> bool:
    """Return whether the first bytes of a file are those of a W64 file."""
    return head.startswith(b"riff\x2e\x91\xcf\x11")


def scan_wav(file: FileBytes, start: int) -> Layout:
    """Return the layout of a RIFF or RF64 file that begins at `start`."""
    chunks = _read_chunks(file, start)
    if chunks is None or not chunks.block_bytes or not chunks.bytes_per_s:
        return Layout()
    is_rf64 = file.read(start, 4) == b"RF64"
    there = file.size - chunks.data_start
    stated = chunks.large_size if is_rf64 and chunks.stated == 0xFFFF_FFFF else chunks.stated
    if stated > there:
        is_cut = stated < _STREAMED or is_rf64
        fault = Fault("cut", f"{there / chunks.bytes_per_s:.1f} s are there of {stated / chunks.bytes_per_s:.1f} s")
        return Layout(stated_frames=stated // chunks.block_bytes if is_cut else None, faults=(fault,) if is_cut else ())
    rest = there - stated
    if not rest or (stated and rest <= _LOST_S * chunks.bytes_per_s) or _are_chunks(file, chunks.data_start + stated):
        return Layout()
    said = f"states {stated / chunks.bytes_per_s:.1f} s" if stated else "states no length (a stopped or streaming writer)"
    part = Part((_head(file, start, chunks, there), (chunks.data_start, file.size)))
    fault = Fault("length", f"{said}, but {there / chunks.bytes_per_s:.1f} s are there")
    return Layout(stated_frames=stated // chunks.block_bytes, parts=(part,), needs_parts=True, faults=(fault,))


def scan_w64(file: FileBytes) -> Layout:
    """Return the layout of a W64 file; libsndfile reads one without sizes to its end by itself."""
    position, bytes_per_s, block_bytes = 40, 0, 0
    while position + 24 <= file.size:
        head = file.read(position, 40)
        name, size = head[:16], int.from_bytes(head[16:24], "little")
        if name == _W64_FMT and len(head) == 40:
            bytes_per_s, block_bytes = int.from_bytes(head[32:36], "little"), int.from_bytes(head[36:38], "little")
        if name == _W64_DATA:
            stated, there = size - 24, file.size - position - 24
            if not block_bytes or not bytes_per_s or stated <= there:
                return Layout()
            fault = Fault("cut", f"{there / bytes_per_s:.1f} s are there of {stated / bytes_per_s:.1f} s")
            return Layout(stated_frames=stated // block_bytes, faults=(fault,))
        if size < 24:
            return Layout()
        position += size + 7 & ~7
    return Layout()


def _head(file: FileBytes, start: int, chunks: _Chunks, there: int) -> bytes:
    """Return the beginning of a file with `there` bytes of sound: RIFF, or RF64 where these are too many."""
    before = file.read(start + 12, chunks.size_place - start - 12).replace(b"ds64", b"JUNK")
    if there < _LARGE:
        return b"RIFF" + _UNKNOWN + b"WAVE" + before + _UNKNOWN
    sizes = struct.pack("<QQQI", len(before) + 48 + there, there, there // chunks.block_bytes, 0)
    return b"RF64" + _UNKNOWN + b"WAVEds64" + struct.pack("<I", len(sizes)) + sizes + before + _UNKNOWN


def _read_chunks(file: FileBytes, start: int) -> _Chunks | None:
    """Return what stands before the sound; None when there is no chunk of sound."""
    chunks = _Chunks()
    position = start + 12
    while position + 8 <= file.size:
        head = file.read(position, 24)
        name, size = head[:4], int.from_bytes(head[4:8], "little")
        if name == b"data":
            chunks.size_place, chunks.data_start, chunks.stated = position + 4, position + 8, size
            return chunks
        if name == b"fmt ":
            chunks.format = file.read(position + 8, 16)
        if name == b"ds64":
            chunks.large_size = int.from_bytes(head[16:24], "little")
        position += 8 + size + size % 2
    return None


def _are_chunks(file: FileBytes, position: int) -> bool:
    """Return whether what lies at `position`, behind the sound, is chunks to the end of the file."""
    position += position % 2
    while position + 8 <= file.size:
        head = file.read(position, 8)
        if not all(32 <= byte < 127 for byte in head[:4]):
            return False
        size = int.from_bytes(head[4:8], "little")
        position += 8 + size + size % 2
    return position <= file.size + 1
