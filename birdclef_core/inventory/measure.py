"""Decodes a file once and measures what can be wrong with it: as it is on disk, before anything is cleaned.

Shapes: T samples, C channels.
"""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birdclef_core.data.audio_stream import AudioStream
from birdclef_core.errors import DataError

CLIP_LEVEL = 0.999
"""A sample this near to full scale, or beyond it, counts as clipped."""

_BLOCK = 2**19  # Samples of each channel that are decoded at once, so that an hour of sound takes no more memory than this.
_CHECKSUM_STEP = 16  # Every 16th sample, with length and peak, tells recordings apart at a fraction of the cost of all.


def measure_file(path: Path) -> dict[str, Any]:
    """Return what is in the file, by name; `error` is why it cannot be decoded at all, or "".

    format: libsndfile's name of the content. sample_rate_hz, channels. header_s: the length that the file states; duration_s: the
    length of what could be decoded. cut, gap, length: what `Fault` of these kinds says, or "". peak: largest absolute sample of
    any channel. mean, rms: of the channels' average, rms without the mean, full scale 1. clipped_share: of the samples.
    not_finite: samples that are not a number or infinite, which the other values leave out. content: the same text for the same
    samples, whatever container they are in.
    """
    seen: dict[str, Any] = dict.fromkeys(("header_s", "duration_s", "peak", "mean", "rms", "clipped_share"), 0.0)
    seen |= dict.fromkeys(("format", "content", "error", "cut", "gap", "length"), "")
    seen |= {"sample_rate_hz": 0, "channels": 0, "not_finite": 0}
    try:
        with AudioStream(path, verify=True) as stream:
            seen |= {"format": stream.format, "sample_rate_hz": stream.sample_rate_hz, "channels": stream.channels}
            seen["header_s"] = stream.stated_frames / stream.sample_rate_hz
            seen["error"] = _measure_samples(stream, seen)
            for kind in ("cut", "gap", "length"):
                seen[kind] = "; ".join(fault.text for fault in stream.faults if fault.kind == kind)
            stream.check_unchanged()
    except DataError as error:
        seen["error"] = str(error)
    return seen


def _measure_samples(stream: AudioStream, seen: dict[str, Any]) -> str:
    """Fill in what the samples say; return "has no samples" where there are none, else ""."""
    frames = clipped = not_finite = checksum = 0
    total = power = peak = 0.0
    while len(wave_TC := stream.read(_BLOCK)):
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
        seen |= {"clipped_share": clipped / (frames * stream.channels), "not_finite": not_finite}
        seen["content"] = f"{frames}-{stream.sample_rate_hz}-{peak.hex()}-{checksum:08x}"
    seen["duration_s"] = frames / stream.sample_rate_hz
    return "" if frames else "has no samples"


def _mono(wave_TC: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(wave_TC[:, 0]) if wave_TC.shape[1] == 1 else wave_TC.mean(axis=1)
