"""Reads the sizes in AIFF, AU, CAF and big-endian WAV files: whether their end is missing. libsndfile reads what there is."""

from birdclef_core.data.containers.file_bytes import FileBytes
from birdclef_core.data.containers.layout import Fault, Layout

_AIFF, _AU, _CAF, _RIFX = b"FORM", b".snd", b"caff", b"RIFX"
_UNKNOWN_AU, _UNKNOWN_CAF = 0xFFFF_FFFF, 2**64 - 1


def is_other(head: bytes) -> bool:
    """Return whether the first bytes of a file are those of one of these formats."""
    return head[:4] in (_AIFF, _AU, _CAF, _RIFX)


def scan_other(file: FileBytes) -> Layout:
    """Return the layout of a file of one of these formats."""
    missing = _stated_end(file) - file.size
    return Layout(faults=(Fault("cut", f"its last {missing:,} bytes are missing"),)) if missing > 1 else Layout()


def _stated_end(file: FileBytes) -> int:
    """Return where the file ends by its own sizes; 0 where it does not say it."""
    head = file.read(0, 12)
    if head.startswith(_AU):
        start, size = int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:12], "big")
        return 0 if size == _UNKNOWN_AU else start + size
    if not head.startswith(_CAF):
        return 8 + int.from_bytes(head[4:8], "big")
    position = 8
    while position + 12 <= file.size:
        chunk = file.read(position, 12)
        size = int.from_bytes(chunk[4:], "big")
        if size == _UNKNOWN_CAF:
            return 0
        position += 12 + size
    return position
