"""Writes OGG Vorbis files whose bytes depend on the sound only.

The encoder takes a stream's serial number from the clock, so the same recording written twice would have two hashes.
"""

import io
import zlib
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from birdclef_core.config import SAMPLE_RATE_HZ

SERIAL_NUMBER = 0x62697264
_HEADER_BYTES = 27
_SERIAL, _CHECKSUM, _SEGMENTS = slice(14, 18), slice(22, 26), 26
_MIRRORED_BYTE = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def write_ogg(path: Path, wave_T: NDArray[np.float32]) -> None:
    """Write a mono recording (T,) in -1..1 at 32 kHz. The same waveform always gives the same bytes."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", SAMPLE_RATE_HZ, 1, format="OGG", subtype="VORBIS") as file:
        # libsndfile's Vorbis encoder crashes the process on one long write, so it gets one second at a time.
        for start in range(0, len(wave_T), SAMPLE_RATE_HZ):
            file.write(wave_T[start : start + SAMPLE_RATE_HZ])
    path.write_bytes(with_serial_number(buffer.getvalue(), SERIAL_NUMBER))


def with_serial_number(ogg: bytes, serial_number: int) -> bytes:
    """Return the stream with another serial number and the checksums of all pages updated (RFC 3533, section 6)."""
    pages = []
    start = 0
    while start < len(ogg):
        num_segments = ogg[start + _SEGMENTS]
        header_end = start + _HEADER_BYTES + num_segments
        end = header_end + sum(ogg[start + _HEADER_BYTES : header_end])
        page = bytearray(ogg[start:end])
        page[_SERIAL] = serial_number.to_bytes(4, "little")
        page[_CHECKSUM] = bytes(4)
        page[_CHECKSUM] = _page_checksum(page).to_bytes(4, "little")
        pages.append(page)
        start = end
    return b"".join(pages)


def _page_checksum(page: bytearray) -> int:
    """Return Ogg's CRC-32 of a page: zlib's polynomial with the bits in reverse order, without inverting the start and the result."""
    mirrored = zlib.crc32(page.translate(_MIRRORED_BYTE), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
