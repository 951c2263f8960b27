"""A network with its spectrogram in the graph, for programs that have sound and cannot make spectrograms.

A short-time Fourier transform in a graph takes several times the CPU time of a library's (docs/benchmarks/inference.md), so it is used only
where it is asked for. Shapes: B windows, T samples, F mel bins, N frames, K channels, Q frequencies.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from birdclef_core.audio.spectrogram import TOP_DB, MelSpectrogram
from birdclef_core.inference.networks.network import Network
from birdclef_core.inference.procedure import Procedure

_POWER_FLOOR = 1e-10
"""That of `MelSpectrogram`; a test compares the two."""


class SoundNetwork(nn.Module):
    """A network of which the input is sound: wave_BT at 32 kHz -> those of the network. T is the context of the procedure, or a clip."""

    input_name = "sound"

    def __init__(self, network: Network, procedure: Procedure, clip: int | None = None) -> None:
        """`clip`: samples that a head on embeddings hears at once; None: it is another network, which hears the context."""
        super().__init__()
        config = network.model.config
        self.model, self.output_names = network.model, network.output_names
        self._network, self._front = network, _Spectrogram(MelSpectrogram(config.spectrogram))
        num_frames = MelSpectrogram(config.spectrogram).num_frames(clip or procedure.context)
        is_cnn = config.head == "cnn" and clip is None
        self._frames = procedure.frames(num_frames, config.spectrogram.hop_length) if is_cnn else (0, num_frames)

    def forward(self, wave_BT: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = self._network(self._front(wave_BT, *self._frames))
        return outputs


class _Spectrogram(nn.Module):
    """The spectrogram of `MelSpectrogram` by operations that all formats have: the Fourier transform is a convolution.

    Its decibels differ from those of an FFT by about 1e-5 of their range, as both are float32.
    """

    kernel: Tensor

    def __init__(self, front: MelSpectrogram) -> None:
        super().__init__()
        self._front = front
        size = front.config.n_fft
        # The angle is reduced before it is a float, so that its error does not grow with the frequency.
        steps_QT = torch.outer(torch.arange(size // 2 + 1), torch.arange(size)) % size
        angle_QT = steps_QT.double() * (2 * math.pi / size)
        window_T = front.window.double()
        kernel = torch.cat([angle_QT.cos() * window_T, angle_QT.sin() * window_T]).float()
        self.register_buffer("kernel", kernel.unsqueeze(1), persistent=False)

    def forward(self, wave_BT: Tensor, first: int, last: int) -> Tensor:
        """Return mel_BKFN of the frames `first` to before `last`. Decibels are cut below the maximum of all frames."""
        config = self._front.config
        side = config.n_fft // 2
        parts_BFN = F.conv1d(F.pad(wave_BT.unsqueeze(1), (side, side)), self.kernel, stride=config.hop_length)
        real_BQN, imaginary_BQN = parts_BFN.chunk(2, dim=1)
        mel_BFN = self._front.filters @ (real_BQN * real_BQN + imaginary_BQN * imaginary_BQN)
        db_BFN = 10 * torch.log10(mel_BFN.clamp(min=_POWER_FLOOR))
        db_BFN = torch.maximum(db_BFN, db_BFN.amax(dim=(1, 2), keepdim=True) - TOP_DB)
        return self._front.to_channels(self._front.scale(db_BFN[:, :, first:last]))
