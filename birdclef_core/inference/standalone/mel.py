"""The functions of `torchaudio.functional` that spectrograms are made with and sound is resampled by for an encoder, for machines without
torchaudio. The numbers are the same.

Shapes: F mel bins, Q frequencies, B windows, T samples, U samples at the new rate.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_HZ_PER_MEL = 200.0 / 3
_LOG_FROM_HZ = 1000.0
"""The Slaney scale is linear up to here, and logarithmic above."""
_LOG_FROM_MEL = _LOG_FROM_HZ / _HZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27.0
_ZERO_CROSSINGS, _ROLLOFF = 6, 0.99


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


def resample(waveform: Tensor, orig_freq: int, new_freq: int) -> Tensor:
    """Return sound (B, T) at another sample rate, (B, U): a sinc filter of six zero crossings in a Hann window."""
    common = math.gcd(orig_freq, new_freq)
    before, after = orig_freq // common, new_freq // common
    kernels, width = _sinc_kernels(before, after, waveform.dtype)
    padded = F.pad(waveform, (width, width + before)).unsqueeze(1)
    found = F.conv1d(padded, kernels, stride=before).transpose(1, 2).flatten(1)
    return found[:, : -(-after * waveform.shape[1] // before)]


def _sinc_kernels(before: int, after: int, dtype: torch.dtype) -> tuple[Tensor, int]:
    """Return a filter for each of the `after` samples that `before` samples become, and how far it reaches to each side."""
    base = min(before, after) * _ROLLOFF
    width = math.ceil(_ZERO_CROSSINGS * before / base)
    place = torch.arange(-width, width + before, dtype=dtype)[None, None] / before
    time = torch.arange(0, -after, -1, dtype=dtype)[:, None, None] / after + place
    time *= base
    time = time.clamp_(-_ZERO_CROSSINGS, _ZERO_CROSSINGS)
    window = torch.cos(time * math.pi / _ZERO_CROSSINGS / 2) ** 2
    time *= math.pi
    kernels = torch.where(time == 0, torch.tensor(1.0).to(time), time.sin() / time)
    kernels *= window * (base / before)
    return kernels, width


def _mel(hz: float) -> float:
    return hz / _HZ_PER_MEL if hz < _LOG_FROM_HZ else _LOG_FROM_MEL + math.log(hz / _LOG_FROM_HZ) / _LOG_STEP


def _hz(mel: Tensor) -> Tensor:
    hz = mel * _HZ_PER_MEL
    is_log = mel >= _LOG_FROM_MEL
    hz[is_log] = _LOG_FROM_HZ * torch.exp(_LOG_STEP * (mel[is_log] - _LOG_FROM_MEL))
    return hz
