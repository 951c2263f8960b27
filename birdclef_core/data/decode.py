"""Any audio file as mono float32 at the rate of the models, cleaned the same way for training, scoring and the cache.

Shapes: T samples, C channels.
"""

from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.errors import DataError

INT16_SCALE = 32_768
"""int16 = float * INT16_SCALE, and back; 1.0 itself becomes 32767."""

_BLOCK = 131_072  # Samples converted at once: what fits into the processor's cache.


def decode(path: Path, *, max_s: float | None = None) -> NDArray[np.float32]:
    """The recording, or its first `max_s` seconds, as float32 (T,) at 32 kHz in [-1, 1].

    Samples that are not a number become 0 and infinite ones full scale, channels are averaged, the mean is removed, soxr's high
    quality resampler changes the rate, what then exceeds full scale is clipped. Raises DataError when the file cannot be decoded
    or is empty.
    """
    try:
        with soundfile.SoundFile(str(path)) as file:
            rate_hz = file.samplerate
            frames = -1 if max_s is None else round(max_s * rate_hz)
            wave_TC = file.read(frames, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise DataError(f"{path} must be audio that can be decoded, but: {error}") from error
    if not len(wave_TC):
        raise DataError(f"{path} must hold sound, but has no samples.")
    return _clean(wave_TC, rate_hz)


def to_int16(wave_T: NDArray[np.float32]) -> NDArray[np.int16]:
    """Float samples in [-1, 1] as int16, rounded to the nearest step."""
    samples_T = np.empty(len(wave_T), dtype=np.int16)
    scaled = np.empty(min(len(wave_T), _BLOCK), dtype=np.float32)
    for start in range(0, len(wave_T), _BLOCK):
        part_T = wave_T[start : start + _BLOCK]
        block_T = scaled[: len(part_T)]
        np.multiply(part_T, INT16_SCALE, out=block_T)
        np.rint(block_T, out=block_T)
        np.clip(block_T, -INT16_SCALE, INT16_SCALE - 1, out=block_T)
        samples_T[start : start + len(part_T)] = block_T
    return samples_T


def num_samples_at(duration_s: float) -> int:
    """Samples that `decode` gives of a file whose header says `duration_s`. An mp3 may have up to .1 s less."""
    return max(1, round(duration_s * SAMPLE_RATE_HZ))


def _clean(wave_TC: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    wave_T = _mixed_down(wave_TC)
    mean = wave_T.mean()
    if not np.isfinite(mean):
        finite_TC = np.nan_to_num(wave_TC, nan=0.0, posinf=1.0, neginf=-1.0)
        wave_T = _mixed_down(np.clip(finite_TC, -1.0, 1.0, out=finite_TC))
        mean = wave_T.mean()
    wave_T = np.subtract(wave_T, mean, out=wave_T)
    if rate_hz != SAMPLE_RATE_HZ:
        wave_T = soxr.resample(wave_T, rate_hz, SAMPLE_RATE_HZ, quality="HQ")
        if not len(wave_T):
            wave_T = np.zeros(1, dtype=np.float32)
    return np.clip(wave_T, -1.0, 1.0, out=wave_T)


def _mixed_down(wave_TC: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean over channels; a matrix product is ten times faster than `mean` here."""
    channels = wave_TC.shape[1]
    return wave_TC[:, 0] if channels == 1 else wave_TC @ np.full(channels, 1 / channels, dtype=np.float32)
