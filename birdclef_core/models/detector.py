"""A bird detector from waveform to species: spectrogram, encoder, head.

Shapes: B clips, T samples, P five-second pieces of a clip, X clips (SED) or pieces of all clips (CNN), K channels, F mel bins,
N frames of a clip, D features, H and W the feature map (frequency, time), C species.
"""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from birdclef_core.audio.spectrogram import MelSpectrogram
from birdclef_core.config import SAMPLE_RATE_HZ, ModelConfig
from birdclef_core.errors import InputError
from birdclef_core.models.encoders import RANDOM, PretrainedWeights, build_encoder
from birdclef_core.models.heads import CnnHead, Output, SedHead

PIECE_S = 5
PIECE_SAMPLES = PIECE_S * SAMPLE_RATE_HZ


def check_clip_s(config: ModelConfig, clip_s: float) -> None:
    """Raise InputError for a clip length that the head cannot take: a CNN reads clips in pieces of five seconds."""
    if config.head == "cnn" and (clip_s < PIECE_S or clip_s % PIECE_S):
        raise InputError(
            f"clip_s % {PIECE_S} == 0 must hold for the head 'cnn', which reads a clip in pieces of {PIECE_S} s, "
            f"but got clip_s={clip_s}. Take {max(1, round(clip_s / PIECE_S)) * PIECE_S} s, or the head 'sed'."
        )


class MelNorm(nn.Module):
    """BatchNorm with one mean and variance per mel bin, over clips, channels and frames: mel_BKFN -> mel_BKFN."""

    def __init__(self, num_mels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(num_mels)

    def forward(self, mel_BKFN: Tensor) -> Tensor:
        return self.norm(mel_BKFN.transpose(1, 2)).transpose(1, 2)


class Detector(nn.Module):
    """A detector, called in steps so that training can augment between them: `cut_waves`, `wave_to_mel`, `mel_to_channels`, `forward`.

    A clip of a CNN is P pieces of five seconds, each with its own spectrogram. In `mel_BKFN` they lie side by side along time, so that a
    clip is one row for both heads, and `forward` cuts them apart again.
    """

    def __init__(self, config: ModelConfig, num_classes: int, pretrained: PretrainedWeights = RANDOM) -> None:
        """Build the model. Random weights come from torch's global generator: seed it first. Raises as `build_encoder` does."""
        super().__init__()
        self.config = config
        self.spectrogram = MelSpectrogram(config.spectrogram)
        self.encoder, num_features = build_encoder(config, pretrained)
        is_sed = config.head == "sed"
        self.input_norm = MelNorm(config.spectrogram.num_mels) if is_sed else nn.Identity()
        self.head = (
            SedHead(num_features, num_classes, config.head_dropout)
            if is_sed
            else CnnHead(num_features, num_classes, config.head_dropout, config.drop_rate)
        )
        self._frozen: list[nn.Module] = []
        self._compiled: list[Callable[[Tensor], Tensor]] = []

    def cut_waves(self, wave_BT: Tensor) -> Tensor:
        """Return wave_XT, what each spectrogram is made of: the clips of a SED, the pieces of a CNN. It shares the memory of wave_BT.

        Raises as `check_clip_s` does.
        """
        if self.config.head == "sed":
            return wave_BT
        check_clip_s(self.config, wave_BT.shape[1] / SAMPLE_RATE_HZ)
        return wave_BT.view(-1, PIECE_SAMPLES)

    def wave_to_mel(self, wave_XT: Tensor) -> Tensor:
        """Return mel_XFN in float32: scaled decibels without deltas."""
        return self.spectrogram.mel(wave_XT)

    def mel_to_channels(self, mel_XFN: Tensor, num_clips: int) -> Tensor:
        """Return mel_BKFN in float32, with deltas if the config has them; the pieces of a clip are joined along time."""
        joined_BFN = _join_pieces(mel_XFN.unsqueeze(1), len(mel_XFN) // num_clips).squeeze(1)
        return self.spectrogram.to_channels(joined_BFN)

    def spectrograms(self, wave_BT: Tensor) -> Tensor:
        """Return mel_BKFN, the input of `forward`, without augmentation. Raises as `cut_waves` does."""
        return self.mel_to_channels(self.wave_to_mel(self.cut_waves(wave_BT)), len(wave_BT))

    def forward(self, mel_BKFN: Tensor) -> Output:
        """Return the scores of clips.

        Raises InputError for a CNN when the number of frames is not that of whole pieces; a SED takes any number.
        """
        mel_BKFN = self.input_norm(mel_BKFN)
        # Evaluation has other shapes and would compile again for each of them.
        encode = self._compiled[0] if self._compiled and self.training else self.encoder
        if self.config.head == "sed":
            return self.head(encode(mel_BKFN))
        frames = self.spectrogram.num_frames(PIECE_SAMPLES)
        pieces, rest = divmod(mel_BKFN.shape[3], frames)
        if rest or not pieces:
            raise InputError(f"The head 'cnn' takes spectrograms of a multiple of {frames} frames, but got {mel_BKFN.shape[3]}.")
        features_XDHW = encode(_cut_pieces(mel_BKFN, pieces))
        return self.head(_join_pieces(features_XDHW, pieces))

    def compile_encoder(self, wanted: bool) -> None:
        """Set whether the encoder runs compiled in training; its next call compiles it. Weights stay as they are."""
        self._compiled = [torch.compile(self.encoder)] if wanted else []

    def freeze(self) -> None:
        """Exclude from training what finetuning keeps fixed: SED encoder, linear layer and input BatchNorm; CNN encoder and GeM.

        Frozen parts stay in evaluation mode: their BatchNorm statistics do not move, and they have no dropout.
        """
        self._frozen = [self.encoder, self.input_norm, *self.head.frozen_parts()]
        for part in self._frozen:
            part.requires_grad_(False)
        self.train(self.training)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return the parameters of the encoder by groups of layers, from the input on; the input BatchNorm of a SED is in the first group.

        Raises as `Encoder.layer_groups` does.
        """
        first, *others = self.encoder.layer_groups()
        return [[*self.input_norm.parameters(), *first], *others]

    def freeze_blocks(self, count: int) -> None:
        """Exclude the first `count` groups of layers from training, and no others. Frozen parts stay in evaluation mode.

        Raises InputError when there are fewer groups, and as `layer_groups` does.
        """
        groups = self.layer_groups()
        if count > len(groups):
            raise InputError(
                f"frozen_blocks <= {len(groups)} must hold for the encoder {self.config.encoder!r}, which has so many groups of layers, "
                f"but got frozen_blocks={count}."
            )
        for number, group in enumerate(groups):
            for parameter in group:
                parameter.requires_grad_(number >= count)
        self._frozen = [part for part in (*self.encoder.modules(), *self.input_norm.modules()) if _is_frozen(part)]
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self


def _is_frozen(part: nn.Module) -> bool:
    """Whether a part has parameters and trains none of them."""
    parameters = list(part.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def _cut_pieces(mel_BKFN: Tensor, pieces: int) -> Tensor:
    """(B, K, F, P*N) -> (B*P, K, F, N)."""
    return mel_BKFN.unflatten(3, (pieces, -1)).movedim(3, 1).flatten(0, 1)


def _join_pieces(features_XDHW: Tensor, pieces: int) -> Tensor:
    """(B*P, D, H, W) -> (B, D, H, P*W)."""
    return features_XDHW.unflatten(0, (-1, pieces)).movedim(1, 3).flatten(3)
