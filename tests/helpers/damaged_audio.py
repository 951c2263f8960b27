"""Audio files with everything that is known to go wrong with them: each made of a sound file, with the length that is right.

`FILES` has one function a case, so that a test makes only what it needs. All hold 6 s of the same sound, or parts of it.
"""

import functools
import io
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import soundfile

RATE_HZ = 32_000
LENGTH_S = 6.0


@dataclass(frozen=True)
class AudioCase:
    """One damaged, or odd, file."""

    suffix: str
    content: bytes
    decoded_s: float
    """Length that decoding must give, to .15 s."""
    kinds: frozenset[str] = frozenset()
    """Kinds of `Fault` that must be said."""


def sound(length_s: float = LENGTH_S, channels: int = 1, rate_hz: int = RATE_HZ) -> np.ndarray:
    """A tone that never repeats, with some noise: every part of it differs."""
    time_T = np.arange(round(length_s * rate_hz)) / rate_hz
    noise_T = np.random.default_rng(0).normal(0, 0.02, len(time_T))
    wave_T = (0.3 * np.sin(2 * np.pi * (1000 + 100 * time_T) * time_T) * (0.2 + 0.8 * np.sin(time_T) ** 2) + noise_T).astype("f4")
    return wave_T if channels == 1 else np.stack([wave_T] * channels, axis=1)


def encoded(wave: np.ndarray, rate_hz: int = RATE_HZ, **options: object) -> bytes:
    """A file with this sound; the encoder is fed seconds, since long writes crash libsndfile's Vorbis."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", rate_hz, 1 if wave.ndim == 1 else wave.shape[1], **options) as file:
        for start in range(0, len(wave), rate_hz):
            file.write(wave[start : start + rate_hz])
    return buffer.getvalue()


@functools.cache
def ogg(length_s: float = LENGTH_S) -> bytes:
    return encoded(sound(length_s), format="OGG", subtype="VORBIS")


@functools.cache
def opus() -> bytes:
    return encoded(sound(rate_hz=48_000), 48_000, format="OGG", subtype="OPUS")


@functools.cache
def mp3(length_s: float = LENGTH_S) -> bytes:
    """With a variable bit rate, and a tag that counts its frames."""
    return encoded(sound(length_s), format="MP3", bitrate_mode="VARIABLE", compression_level=0.4)


@functools.cache
def constant_mp3() -> bytes:
    return encoded(sound(), format="MP3", bitrate_mode="CONSTANT", compression_level=0.5)


@functools.cache
def flac() -> bytes:
    return encoded(sound(), format="FLAC")


@functools.cache
def wav(**options: object) -> bytes:
    return encoded(sound(), **{"format": "WAV", "subtype": "PCM_16", **options})


def pages(content: bytes) -> list[tuple[int, int]]:
    """Start and end of each OGG page."""
    found, start = [], content.find(b"OggS")
    while start >= 0:
        count = content[start + 26]
        end = start + 27 + count + sum(content[start + 27 : start + 27 + count])
        found.append((start, end))
        start = content.find(b"OggS", end)
    return found


def without_page(content: bytes, number: int) -> bytes:
    start, end = pages(content)[number]
    return content[:start] + content[end:]


def without_tag(content: bytes) -> bytes:
    """An MP3 file without its first frame, which holds the tag."""
    kbits = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)[content[2] >> 4]
    rate_hz = (44_100, 48_000, 32_000)[content[2] >> 2 & 3]
    return content[144_000 * kbits // rate_hz + (content[2] >> 1 & 1) :]


def id3(num_bytes: int) -> bytes:
    """An ID3v2 tag with a picture."""
    size = bytes(num_bytes >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + size + b"APIC" + struct.pack(">I", num_bytes - 10) + b"\0\0" + junk(num_bytes - 10)


def ape(num_bytes: int) -> bytes:
    def mark(flags: int) -> bytes:
        return b"APETAGEX" + struct.pack("<IIII", 2000, num_bytes + 32, 1, flags) + bytes(8)

    return mark(0xA000_0000) + b"x" * num_bytes + mark(0x8000_0000)


def junk(num_bytes: int) -> bytes:
    return np.random.default_rng(1).integers(0, 250, num_bytes, dtype=np.uint8).tobytes()


def overwritten(content: bytes, start: int, other: bytes) -> bytes:
    return content[:start] + other + content[start + len(other) :]


def with_sizes(content: bytes, riff: int, data: int) -> bytes:
    """A WAV file with these sizes in its header."""
    place = content.find(b"data") + 4
    return content[:4] + struct.pack("<I", riff) + content[8:place] + struct.pack("<I", data) + content[place + 4 :]


def with_total(content: bytes, total: int) -> bytes:
    """A FLAC file that states this number of samples."""
    packed = int.from_bytes(content[18:26], "big") >> 36 << 36 | total
    return content[:18] + packed.to_bytes(8, "big") + content[26:]


def _case(suffix: str, content: bytes, decoded_s: float, *kinds: str) -> AudioCase:
    return AudioCase(suffix, content, decoded_s, frozenset(kinds))


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _without_middle(content: bytes, num_bytes: int) -> bytes:
    return content[: len(content) // 2] + content[len(content) // 2 + num_bytes :]


def _rf64_without_sizes() -> bytes:
    content = bytearray(wav(format="RF64"))
    place = content.find(b"ds64") + 8
    content[place : place + 24] = bytes(24)
    return bytes(content)


SOUND: dict[str, Callable[[], AudioCase]] = {
    "ogg": lambda: _case("ogg", ogg(), 6.0),
    "opus": lambda: _case("ogg", opus(), 6.0),
    "mp3": lambda: _case("mp3", mp3(), 6.0),
    "mp3 with a constant rate and no tag": lambda: _case("mp3", without_tag(constant_mp3()), 6.0),
    "mp3 with art": lambda: _case("mp3", id3(300_000) + mp3(), 6.0),
    "mp3 with tags at its end": lambda: _case("mp3", mp3() + ape(3_000) + b"TAG" + bytes(125), 6.0),
    "flac": lambda: _case("flac", flac(), 6.0),
    "flac after an id3 tag": lambda: _case("flac", id3(3_000) + flac(), 6.0),
    "wav": lambda: _case("wav", wav(), 6.0),
    "wav with a list behind": lambda: _case("wav", wav() + b"LIST\x04\0\0\0INFO", 6.0),
    "wav of a stream": lambda: _case("wav", with_sizes(wav(), 0xFFFF_FFFF, 0xFFFF_FFFF), 6.0),
    "wav of sox's stream": lambda: _case("wav", with_sizes(wav(), 0x7FFF_F024, 0x7FFF_F000), 6.0),
    "wav of doubles": lambda: _case("wav", wav(subtype="DOUBLE"), 6.0),
    "rf64": lambda: _case("wav", wav(format="RF64"), 6.0),
    "w64": lambda: _case("w64", wav(format="W64"), 6.0),
    "aiff": lambda: _case("aiff", wav(format="AIFF"), 6.0),
    "au": lambda: _case("au", wav(format="AU"), 6.0),
    "caf": lambda: _case("caf", wav(format="CAF"), 6.0),
}
"""Files with which nothing is wrong: libsndfile alone reads all of them, and not a bit may change."""

DAMAGED: dict[str, Callable[[], AudioCase]] = {
    "ogg streams in a row": lambda: _case("ogg", ogg(3.0) + ogg(), 9.0, "length"),
    "ogg streams, the long one first": lambda: _case("ogg", ogg() + ogg(3.0), 9.0, "length"),
    "opus streams in a row": lambda: _case("ogg", opus() + opus(), 12.0, "length"),
    "ogg streams of two rates": lambda: _case(
        "ogg", ogg() + encoded(sound(3.0, 2, 44_100), 44_100, format="OGG", subtype="VORBIS"), 9.0, "length"
    ),
    "ogg without a page": lambda: _case("ogg", without_page(ogg(), 5), 6.0, "gap"),
    "ogg without its first page of sound": lambda: _case("ogg", without_page(ogg(), 2), 6.0, "gap"),
    "ogg without two pages": lambda: _case("ogg", without_page(without_page(ogg(), 8), 4), 6.0, "gap"),
    "ogg with a hole": lambda: _case("ogg", _without_middle(ogg(), 5_000), 6.0, "gap"),
    "ogg with zeros": lambda: _case("ogg", overwritten(ogg(), 25_000, bytes(5_000)), 6.0, "gap"),
    "ogg with a changed byte": lambda: _case("ogg", overwritten(ogg(), 25_000, b"\x55\xaa\x55"), 6.0, "gap"),
    "opus without a page": lambda: _case("ogg", without_page(opus(), 4), 6.0, "gap"),
    "ogg without its end": lambda: _case("ogg", ogg()[: pages(ogg())[6][1]], 2.55, "cut"),
    "ogg after junk": lambda: _case("ogg", junk(5_000) + ogg(), 6.0, "gap"),
    "ogg after an id3 tag": lambda: _case("ogg", id3(3_000) + ogg(), 6.0),
    "ogg before junk": lambda: _case("ogg", ogg() + junk(50_000), 6.0),
    "ogg whose first stream has no beginning": lambda: _case("ogg", overwritten(ogg(), 15, b"\x55") + ogg(), 6.0, "gap"),
    "mp3 without a tag": lambda: _case("mp3", without_tag(mp3()), 6.0, "length"),
    "mp3 without a tag, with art": lambda: _case("mp3", id3(300_000) + without_tag(mp3()), 6.0, "length"),
    "mp3 of constant rate without a tag, with art": lambda: _case(
        "mp3", id3(300_000) + without_tag(constant_mp3()), 6.0, "length"
    ),
    "mp3 of constant rate without a tag, with tags behind": lambda: _case(
        "mp3", without_tag(constant_mp3()) + ape(50_000) + b"TAG" + bytes(125), 6.0, "length"
    ),
    "mp3 with two id3 tags": lambda: _case("mp3", id3(500) + id3(5_000) + without_tag(mp3()), 6.0, "length"),
    "mp3 after zeros": lambda: _case("mp3", bytes(70_000) + mp3(), 6.0),
    "mp3 after junk": lambda: _case("mp3", junk(5_000) + mp3(), 6.0),
    "mp3 without a tag after junk": lambda: _case("mp3", junk(5_000) + without_tag(mp3()), 6.0, "gap"),
    "mp3 without a tag before junk": lambda: _case("mp3", without_tag(constant_mp3()) + junk(50_000), 6.0, "gap"),
    "mp3s in a row": lambda: _case("mp3", mp3() + mp3(), 12.0, "length"),
    "mp3s without tags in a row": lambda: _case(
        "mp3", without_tag(mp3()) + id3(500) + without_tag(constant_mp3()), 12.0, "length"
    ),
    "mp3 without its end": lambda: _case("mp3", _half(mp3()), 3.1, "cut"),
    "mp3 with zeros": lambda: _case("mp3", overwritten(mp3(), 20_000, bytes(4_000)), 6.0, "gap"),
    "mp3 with a hole": lambda: _case("mp3", _without_middle(mp3(), 4_000), 5.5, "gap"),
    "mp3 without a tag with a hole": lambda: _case("mp3", _without_middle(without_tag(mp3()), 4_000), 5.5, "gap", "length"),
    "flac without its end": lambda: _case("flac", _half(flac()), 3.0, "cut"),
    "flac with a hole": lambda: _case("flac", _without_middle(flac(), 30_000), 6.0, "gap"),
    "flac with zeros": lambda: _case("flac", overwritten(flac(), 100_000, bytes(30_000)), 6.0, "gap"),
    "flac without a length": lambda: _case("flac", with_total(flac(), 0), 6.0, "length"),
    "flac with too small a length": lambda: _case("flac", with_total(flac(), RATE_HZ), 6.0, "length"),
    "flac with too large a length": lambda: _case("flac", with_total(flac(), 20 * RATE_HZ), 6.0, "cut"),
    "flac after junk": lambda: _case("flac", junk(5_000) + flac(), 6.0, "gap"),
    "wav without sizes": lambda: _case("wav", with_sizes(wav(), 0, 0), 6.0, "length"),
    "wav of which only the sound has no size": lambda: _case("wav", with_sizes(wav(), len(wav()) - 8, 0), 6.0, "length"),
    "wav with too small a size": lambda: _case("wav", with_sizes(wav(), 2 * RATE_HZ + 36, 2 * RATE_HZ), 6.0, "length"),
    "wav without its end": lambda: _case("wav", _half(wav()), 3.0, "cut"),
    "wav with too large a size": lambda: _case("wav", with_sizes(wav(), len(wav()) - 8, 2 * len(wav())), 6.0, "cut"),
    "wav before junk": lambda: _case("wav", wav() + junk(5_000), 6.0),
    "wav after junk": lambda: _case("wav", junk(5_000) + wav(), 6.0, "gap"),
    "adpcm wav without sizes": lambda: _case("wav", with_sizes(wav(subtype="IMA_ADPCM"), 0, 0), 6.0, "length"),
    "rf64 without sizes": lambda: _case("wav", _rf64_without_sizes(), 6.0, "length"),
    "rf64 without its end": lambda: _case("wav", _half(wav(format="RF64")), 3.0, "cut"),
    "w64 without its end": lambda: _case("wav", _half(wav(format="W64")), 3.0, "cut"),
    "aiff without its end": lambda: _case("aiff", _half(wav(format="AIFF")), 3.0, "cut"),
    "au without its end": lambda: _case("au", _half(wav(format="AU")), 3.0, "cut"),
}
"""Files that are damaged, or whose length libsndfile alone gets wrong."""

NO_SOUND: dict[str, tuple[str, bytes]] = {
    "empty mp3": ("mp3", b""),
    "empty wav": ("wav", b""),
    "page of a web site": ("mp3", b"<html>404</html>" * 100),
    "zeros": ("mp3", bytes(50_000)),
    "junk": ("wav", junk(50_000)),
    "header of a wav": ("wav", wav()[:44]),
    "header of an ogg": ("ogg", ogg()[: pages(ogg())[1][1]]),
    "header of a flac": ("flac", flac()[:42]),
    "wav of 1 Hz": ("wav", overwritten(wav(), 24, struct.pack("<I", 1))),
}
"""Suffix and content of files without any sound."""
