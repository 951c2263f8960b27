"""The mel spectrogram in front of every encoder, in two steps so that augmentation can work on scaled decibels between them.

Shapes: B clips, T samples, F mel bins, N frames, K channels.
"""

import torch
import torchaudio.functional as AF
from torch import Tensor, nn

from birdclef_core.audio.float32 import exact_float32
from birdclef_core.config import SAMPLE_RATE_HZ, SpectrogramConfig

TOP_DB = 80.0
"""Decibels are cut this far below the maximum of a clip."""
_POWER_FLOOR = 1e-10


class MelSpectrogram(nn.Module):
    """A mel spectrogram: wave_BT -> mel_BKFN, in float32 even under autocast and TF32. Silence gives finite values.

    It has the Slaney mel scale and norm, power 2, decibels relative to 1, cut `TOP_DB` below the maximum of each clip, and centred
    frames with zero padding (as in the recipes of the 2023 solution). The result for a clip does not depend on its batch.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, config: SpectrogramConfig) -> None:
        super().__init__()
        self.config = config
        # They follow from the config, so they are not in checkpoints; and they are real even in a model on the meta device.
        with torch.device("cpu"):
            window = torch.hann_window(config.n_fft)
            filters = AF.melscale_fbanks(
                config.n_fft // 2 + 1,
                f_min=config.f_min_hz,
                f_max=config.f_max_hz,
                n_mels=config.num_mels,
                sample_rate=SAMPLE_RATE_HZ,
                norm="slaney",
                mel_scale="slaney",
            )
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", filters.T.contiguous(), persistent=False)

    def num_frames(self, num_samples: int) -> int:
        """Return the number of frames of a clip with `num_samples` samples."""
        return num_samples // self.config.hop_length + 1

    def mel_db(self, wave_BT: Tensor) -> Tensor:
        """Return db_BFN: decibels, not scaled and without deltas."""
        with exact_float32(wave_BT.device):
            # A CPU is twice as fast clip by clip: the spectrum of one clip fits into its cache.
            parts = wave_BT.float().split(1) if wave_BT.device.type == "cpu" else (wave_BT.float(),)
            return torch.cat([self._mel_db(part) for part in parts])

    def _mel_db(self, wave_BT: Tensor) -> Tensor:
        # torchaudio's spectrogram takes a square root and squares it again: 1.1 to 1.4 times the CPU time.
        spectrum_BFN = torch.stft(
            wave_BT,
            n_fft=self.config.n_fft,
            hop_length=self.config.hop_length,
            window=self.window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        power_BFN = spectrum_BFN.real.square() + spectrum_BFN.imag.square()
        mel_B1FN = (self.filters @ power_BFN).unsqueeze(1)
        # torchaudio cuts each item by itself only if there is a channel dimension; otherwise the loudest clip cuts the others.
        return AF.amplitude_to_DB(mel_B1FN, multiplier=10.0, amin=_POWER_FLOOR, db_multiplier=0.0, top_db=TOP_DB).squeeze(1)

    def scale(self, db_BFN: Tensor) -> Tensor:
        """Return mel_BFN: decibels scaled as the config says."""
        return (db_BFN + TOP_DB) / TOP_DB if self.config.db_scale == "unit" else db_BFN / 255.0

    def mel(self, wave_BT: Tensor) -> Tensor:
        """Return mel_BFN: scaled decibels, without deltas."""
        return self.scale(self.mel_db(wave_BT))

    def to_channels(self, mel_BFN: Tensor) -> Tensor:
        """Return mel_BKFN: scaled decibels, with their first and second deltas along frequency if the config has them."""
        with exact_float32(mel_BFN.device):
            mel_BFN = mel_BFN.float()
            if not self.config.deltas:
                return mel_BFN.unsqueeze(1)
            delta_BFN = frequency_deltas(mel_BFN)
            return torch.stack((mel_BFN, delta_BFN, frequency_deltas(delta_BFN)), dim=1)

    def forward(self, wave_BT: Tensor) -> Tensor:
        return self.to_channels(self.mel(wave_BT))


def frequency_deltas(mel_BFN: Tensor) -> Tensor:
    """Return the slope along frequency over a window of five bins, edges repeated.

    These are the numbers of torchaudio's `compute_deltas` on the transposed spectrogram, at about the same cost on a CPU. But that is a
    convolution, which a GPU may round to TF32 by default, while sums of shifted bins are float32 everywhere.
    """
    padded = torch.cat((mel_BFN[:, :1], mel_BFN[:, :1], mel_BFN, mel_BFN[:, -1:], mel_BFN[:, -1:]), dim=1)
    near = padded[:, 3:-1] - padded[:, 1:-3]
    far = padded[:, 4:] - padded[:, :-4]
    return (near + 2 * far) / 10
