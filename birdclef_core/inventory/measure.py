"""Decodes a file once and measures what can be wrong with it: as it is on disk, before anything is cleaned.

Shapes: T samples, C channels.
"""

import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

CLIP_LEVEL = 0.999
"""A sample this near to full scale, or beyond it, counts as clipped."""

_BLOCK_S = 20  # What is decoded at once, so that an hour of sound takes no more memory than this.
_CHECKSUM_STEP = 16  # Every so many samples, with length and peak, tell recordings apart at a fraction of the cost of all.
_CUT_S = 0.1  # Less than this is an encoder's padding, not a loss.
_OGG_TAIL_BYTES = 65_536 + 282  # The longest page with its header: the last one begins within.
_OGG_LAST_PAGE = 0x04
_STREAMED = (0, 0xFFFFFFFF)  # Sizes that writers leave in a WAV header when they cannot go back to it.


def measure_file(path: Path) -> dict[str, Any]:
    """What is in the file, by name; `error` is why it cannot be decoded to the end, or "".

    format: libsndfile's name of the content. sample_rate_hz, channels. header_s: the length that the header promises; duration_s:
    what could be decoded. is_cut: the file ends before its own structure says that it does. peak: largest absolute sample of any
    channel. mean, rms: of the channels' average, rms without the mean, full scale 1. clipped_share: of the samples. not_finite:
    samples that are not a number or infinite, which the other values leave out. content: the same text for the same samples,
    whatever container they are in.
    """
    seen: dict[str, Any] = dict.fromkeys(("header_s", "duration_s", "peak", "mean", "rms", "clipped_share"), 0.0)
    seen |= dict.fromkeys(("format", "content", "error"), "")
    seen |= {"sample_rate_hz": 0, "channels": 0, "not_finite": 0, "is_cut": False}
    try:
        with soundfile.SoundFile(str(path)) as file:
            seen |= {"format": file.format, "sample_rate_hz": file.samplerate, "channels": file.channels}
            seen["header_s"] = file.frames / file.samplerate
            seen["error"] = _measure_samples(file, seen)
        seen["is_cut"] = seen["header_s"] - seen["duration_s"] > _CUT_S or _ends_early(path, seen["format"])
    except OSError as error:
        seen["error"] = f"cannot be read: {error.strerror}"
    except soundfile.LibsndfileError as error:
        seen["error"] = f"cannot be opened as audio: {error.error_string}"
    return seen


def _measure_samples(file: soundfile.SoundFile, seen: dict[str, Any]) -> str:
    """Fills in what the samples say; returns why decoding broke off, or ""."""
    frames = clipped = not_finite = checksum = 0
    total = power = peak = 0.0
    broke_off = ""
    while not broke_off:
        try:
            wave_TC = file.read(_BLOCK_S * file.samplerate, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            broke_off = f"breaks off after {frames / file.samplerate:.1f} s: {error.error_string}"
            break
        if not len(wave_TC):
            break
        with np.errstate(invalid="ignore"):
            is_finite = np.isfinite(wave_TC.sum(dtype=np.float64))
        if not is_finite:
            not_finite += int(np.count_nonzero(~np.isfinite(wave_TC)))
            wave_TC = np.nan_to_num(wave_TC, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        low, high = float(wave_TC.min()), float(wave_TC.max())
        peak = max(peak, -low, high)
        if max(-low, high) >= CLIP_LEVEL:
            clipped += int(np.count_nonzero(np.abs(wave_TC) >= CLIP_LEVEL))
        checksum = zlib.crc32(wave_TC[::_CHECKSUM_STEP].tobytes(), checksum)
        mono_T = _mono(wave_TC)
        total += float(mono_T.sum(dtype=np.float64))
        power += float(np.dot(mono_T, mono_T))
        frames += len(wave_TC)
    if frames:
        mean = total / frames
        seen |= {"mean": mean, "rms": float(np.sqrt(max(0.0, power / frames - mean * mean))), "peak": peak}
        seen |= {"clipped_share": clipped / (frames * file.channels), "not_finite": not_finite}
        seen["content"] = f"{frames}-{file.samplerate}-{peak.hex()}-{checksum:08x}"
    seen["duration_s"] = frames / file.samplerate
    return broke_off or ("" if frames else "has no samples")


def _mono(wave_TC: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(wave_TC[:, 0]) if wave_TC.shape[1] == 1 else wave_TC.mean(axis=1)


def _ends_early(path: Path, container: str) -> bool:
    """Whether a container whose reader takes what is there, and says nothing, promises more."""
    if container not in ("OGG", "WAV", "WAVEX"):
        return False
    with path.open("rb") as file:
        return _ogg_ends_early(file) if container == "OGG" else _wav_ends_early(file)


def _ogg_ends_early(file: BinaryIO) -> bool:
    """Whether the last page is not marked as the last, or is not whole (RFC 3533, section 6)."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _OGG_TAIL_BYTES))
    tail = file.read()
    start = tail.rfind(b"OggS")
    if start < 0 or len(tail) < start + 27:
        return True
    flags, num_segments = tail[start + 5], tail[start + 26]
    lengths = tail[start + 27 : start + 27 + num_segments]
    whole = len(lengths) == num_segments and start + 27 + num_segments + sum(lengths) <= len(tail)
    return not (whole and flags & _OGG_LAST_PAGE)


def _wav_ends_early(file: BinaryIO) -> bool:
    """Whether the chunk of samples is longer than the rest of the file."""
    size = file.seek(0, 2)
    position = 12
    while position + 8 <= size:
        file.seek(position)
        name, length = struct.unpack("<4sI", file.read(8))
        if name == b"data":
            return length not in _STREAMED and position + 8 + length > size
        position += 8 + length + length % 2
    return True
