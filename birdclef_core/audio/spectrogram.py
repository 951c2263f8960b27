"""The mel spectrogram in front of every encoder, in two steps so that augmentation can work on decibels in between.

Shapes: B clips, T samples, F mel bins, N frames, K channels.
"""

import torch
import torchaudio.functional as AF
from torch import Tensor, nn

from birdclef_core.audio.float32 import exact_float32
from birdclef_core.config import SAMPLE_RATE_HZ, SpectrogramConfig

TOP_DB = 80.0
_POWER_FLOOR = 1e-10


class MelSpectrogram(nn.Module):
    """wave_BT -> mel_BKFN, float32 also under autocast and TF32; silence gives finite values.

    Slaney mel scale and norm, power 2, decibels to 1, cut `TOP_DB` below each clip's own maximum, centred frames with zero
    padding (source: the seed's recipes). A clip's result does not depend on the batch it is in.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, config: SpectrogramConfig) -> None:
        super().__init__()
        self.config = config
        # Derived from the config alone, so they stay out of checkpoints, and are real even in a model built on the meta device.
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
        """Frames of a clip of so many samples."""
        return num_samples // self.config.hop_length + 1

    def mel_db(self, wave_BT: Tensor) -> Tensor:
        """db_BFN: decibels, neither scaled nor with deltas."""
        with exact_float32(wave_BT.device):
            # A processor is twice as fast clip by clip: one clip's spectrum stays in its cache.
            parts = wave_BT.float().split(1) if wave_BT.device.type == "cpu" else (wave_BT.float(),)
            return torch.cat([self._mel_db(part) for part in parts])

    def _mel_db(self, wave_BT: Tensor) -> Tensor:
        # Not torchaudio's spectrogram, whose power goes through a square root and back: 1.1 to 1.4 times the CPU time.
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
        # torchaudio cuts per item only where there is a channel dimension; without it the loudest clip cuts the others.
        return AF.amplitude_to_DB(mel_B1FN, multiplier=10.0, amin=_POWER_FLOOR, db_multiplier=0.0, top_db=TOP_DB).squeeze(1)

    def to_channels(self, db_BFN: Tensor) -> Tensor:
        """mel_BKFN: decibels scaled, with their first and second deltas along frequency where the config has them."""
        with exact_float32(db_BFN.device):
            db_BFN = db_BFN.float()
            scaled_BFN = (db_BFN + TOP_DB) / TOP_DB if self.config.db_scale == "unit" else db_BFN / 255.0
            if not self.config.deltas:
                return scaled_BFN.unsqueeze(1)
            delta_BFN = frequency_deltas(scaled_BFN)
            return torch.stack((scaled_BFN, delta_BFN, frequency_deltas(delta_BFN)), dim=1)

    def forward(self, wave_BT: Tensor) -> Tensor:
        return self.to_channels(self.mel_db(wave_BT))


def frequency_deltas(mel_BFN: Tensor) -> Tensor:
    """Slope along frequency over a window of five bins, edges repeated.

    The same numbers as torchaudio's `compute_deltas` on the transposed spectrogram, at about the same cost on a CPU; that is a
    convolution, which a GPU may round to TF32 unasked, and sums of shifted bins stay float32 everywhere.
    """
    padded = torch.cat((mel_BFN[:, :1], mel_BFN[:, :1], mel_BFN, mel_BFN[:, -1:], mel_BFN[:, -1:]), dim=1)
    near = padded[:, 3:-1] - padded[:, 1:-3]
    far = padded[:, 4:] - padded[:, :-4]
    return (near + 2 * far) / 10
