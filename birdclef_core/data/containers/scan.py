"""Finds what kind of audio file a file is, from its bytes, and what its structure says."""

from dataclasses import replace

from birdclef_core.data.containers import flac, mp3, ogg, others, wav
from birdclef_core.data.containers.file_bytes import FileBytes
from birdclef_core.data.containers.layout import Fault, Layout, Part

_SEARCH = 2**20
"""Most bytes of something else before the sound, tags not counted."""


def scan(file: FileBytes, *, verify: bool) -> tuple[Layout, int]:
    """Return the layout of an audio file, and where its sound begins (after tags, or after what does not belong to it).

    A kind of file that this package does not know has an empty layout. `verify` reads the whole file, to find damage within it;
    without, only the structure is looked at.
    """
    start = mp3.skip_id3(file, 0)
    layout = _scan_at(file, start, verify)
    if layout is None:
        first_frame = mp3.find_mp3(file, start)
        found = -1 if first_frame == start else _find(file, start)
        if found < 0 or 0 <= first_frame < found:
            return mp3.scan_mp3(file, start, verify=verify), start
        layout = _scan_at(file, found, verify) or Layout()
        if file.read_once(start, found - start).strip(b"\0"):
            unknown = Fault("gap", f"{found - start:,} bytes before its sound are of no known format")
            layout = replace(layout, faults=(*layout.faults, unknown))
        start = found
    if start > 0 and not layout.parts:
        layout = replace(layout, parts=(Part(((start, file.size),)),))
    return layout, start


def _scan_at(file: FileBytes, start: int, verify: bool) -> Layout | None:
    """Return the layout of what begins at `start`; None where this is no known beginning (an MP3 file has none)."""
    head = file.read(start, 12)
    if head.startswith(ogg.CAPTURE):
        return ogg.scan_ogg(file, start, verify=verify)
    if head.startswith(flac.MAGIC):
        return flac.scan_flac(file, start)
    if wav.is_wav(head):
        return wav.scan_wav(file, start)
    if wav.is_w64(head):
        return wav.scan_w64(file) if start == 0 else Layout()
    return others.scan_other(file) if start == 0 and others.is_other(head) else None


def _find(file: FileBytes, start: int) -> int:
    """Return the place of the first beginning of a file within another; -1 when there is none."""
    end = min(file.size, start + _SEARCH)
    places = (file.find(ogg.CAPTURE + b"\0\2", start, end), file.find(flac.MAGIC + b"\0\0\0\x22", start, end))
    return min((place for place in (*places, _find_wav(file, start, end)) if place >= 0), default=-1)


def _find_wav(file: FileBytes, start: int, end: int) -> int:
    place = file.find(b"WAVEfmt ", start, end) - 8
    return place if place >= start and wav.is_wav(file.read(place, 12)) else -1
