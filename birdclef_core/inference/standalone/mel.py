"""The two functions of `torchaudio.functional` that spectrograms are made with, for machines without torchaudio. The numbers are the same.

Shapes: F mel bins, Q frequencies.
"""

import math

import torch
from torch import Tensor

_HZ_PER_MEL = 200.0 / 3
_LOG_FROM_HZ = 1000.0
"""The Slaney scale is linear up to here, and logarithmic above."""
_LOG_FROM_MEL = _LOG_FROM_HZ / _HZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27.0


def melscale_fbanks(
    n_freqs: int, f_min: float, f_max: float, n_mels: int, sample_rate: int, norm: str | None = None, mel_scale: str = "htk"
) -> Tensor:
    """Return the triangular filters (Q, F) of the Slaney scale and norm. Raises ValueError for others."""
    if (norm, mel_scale) != ("slaney", "slaney"):
        raise ValueError(f"norm and mel_scale must be slaney, but got {norm}, {mel_scale}.")
    frequency_Q = torch.linspace(0, sample_rate // 2, n_freqs)
    edges_hz = _hz(torch.linspace(_mel(f_min), _mel(f_max), n_mels + 2))
    widths = edges_hz[1:] - edges_hz[:-1]
    slopes = edges_hz.unsqueeze(0) - frequency_Q.unsqueeze(1)
    filters_QF = torch.max(torch.zeros(1), torch.min((-1.0 * slopes[:, :-2]) / widths[:-1], slopes[:, 2:] / widths[1:]))
    return filters_QF * (2.0 / (edges_hz[2 : n_mels + 2] - edges_hz[:n_mels])).unsqueeze(0)


def amplitude_to_DB(x: Tensor, multiplier: float, amin: float, db_multiplier: float, top_db: float) -> Tensor:
    """Return decibels (B, 1, F, N), cut `top_db` below the maximum of each item."""
    decibels = multiplier * torch.log10(torch.clamp(x, min=amin)) - multiplier * db_multiplier
    return torch.max(decibels, (decibels.amax(dim=(-3, -2, -1)) - top_db).view(-1, 1, 1, 1))


def _mel(hz: float) -> float:
    return hz / _HZ_PER_MEL if hz < _LOG_FROM_HZ else _LOG_FROM_MEL + math.log(hz / _LOG_FROM_HZ) / _LOG_STEP


def _hz(mel: Tensor) -> Tensor:
    hz = mel * _HZ_PER_MEL
    is_log = mel >= _LOG_FROM_MEL
    hz[is_log] = _LOG_FROM_HZ * torch.exp(_LOG_STEP * (mel[is_log] - _LOG_FROM_MEL))
    return hz
