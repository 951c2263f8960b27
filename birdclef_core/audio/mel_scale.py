"""The Slaney mel scale, and the place of a frequency among the bins of a spectrogram.

The scale is linear up to 1 kHz (15 mel), then has 27 mel for each factor of 6.4 (Slaney 1998, as in librosa and torchaudio).
"""

import torch
from torch import Tensor

from birdclef_core.config import SpectrogramConfig

_LOG_6_4 = 1.8562979903656263


def hz_to_mel(hz: Tensor) -> Tensor:
    return torch.where(hz < 1000, hz * 3 / 200, 15 + 27 * torch.log(hz.clamp(min=1) / 1000) / _LOG_6_4)


def mel_to_hz(mel: Tensor) -> Tensor:
    return torch.where(mel < 15, mel * 200 / 3, 1000 * torch.exp((mel - 15) * _LOG_6_4 / 27))


def hz_to_bin(hz: Tensor, config: SpectrogramConfig) -> Tensor:
    """Return the place of a frequency among the bins: 0 is the centre of the first bin, fractions lie between two bins.

    Frequencies outside the spectrogram have places beyond the outermost bins.
    """
    low, width = _bins(config)
    return (hz_to_mel(hz) - low) / width - 1


def bin_centres_hz(config: SpectrogramConfig, device: torch.device | None = None) -> Tensor:
    """Return the centre frequency of each bin (F,), float64, made on the device without waiting for it."""
    low, width = _bins(config)
    return mel_to_hz(low + width * torch.arange(1, config.num_mels + 1, dtype=torch.float64, device=device))


def _bins(config: SpectrogramConfig) -> tuple[float, float]:
    """The lowest mel value, and the distance between two bins in mel."""
    low, high = hz_to_mel(torch.tensor([config.f_min_hz, config.f_max_hz], dtype=torch.float64)).tolist()
    return low, (high - low) / (config.num_mels + 1)
