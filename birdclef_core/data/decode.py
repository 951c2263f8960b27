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
    scaled = np.multiply(wave_T, INT16_SCALE, dtype=np.float32)
    np.rint(scaled, out=scaled)
    np.clip(scaled, -INT16_SCALE, INT16_SCALE - 1, out=scaled)
    return scaled.astype(np.int16)


def _clean(wave_TC: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    if not np.isfinite(wave_TC.sum(dtype=np.float64)):
        np.nan_to_num(wave_TC, copy=False, nan=0.0, posinf=1.0, neginf=-1.0)
    wave_T = wave_TC[:, 0] if wave_TC.shape[1] == 1 else wave_TC.mean(axis=1)
    wave_T = wave_T - wave_T.mean(dtype=np.float64).astype(np.float32)
    if rate_hz != SAMPLE_RATE_HZ:
        wave_T = soxr.resample(wave_T, rate_hz, SAMPLE_RATE_HZ, quality="HQ")
        if not len(wave_T):
            wave_T = np.zeros(1, dtype=np.float32)
    return np.clip(wave_T, -1.0, 1.0, out=wave_T)
