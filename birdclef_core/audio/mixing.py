"""Mixes clips of a batch with each other, as waveforms (labels joined by OR) and as spectrograms (labels in proportion).

As in augmentation, the partners are drawn on the host by a CPU generator (`draw_*`) and applied on the device (`apply_*`).

Shapes: B clips, T samples, K channels, F mel bins, N frames, C species, J partners of a clip.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from birdclef_core.audio.host_draws import to_device
from birdclef_core.augment_config import MixingConfig

_SEED_LIMIT = 2**62
Mixed = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class SpectrogramMix:
    """A mix in which clip b becomes share_B[b] of itself plus (1 - share_B[b]) of clip partner_B[b]."""

    partner_B: Tensor
    share_B: Tensor


def mix_waves(wave_BT: Tensor, target_BC: Tensor, weight_B: Tensor, config: MixingConfig, generator: torch.Generator) -> Mixed:
    """Draw an OR mixup of waveforms, and return the mixed batch."""
    return apply_wave_mix(draw_wave_mix(config, len(wave_BT), generator), wave_BT, target_BC, weight_B)


def mix_spectrograms(
    mel_BKFN: Tensor, target_BC: Tensor, weight_B: Tensor, config: MixingConfig, generator: torch.Generator
) -> Mixed:
    """Draw a mixup of spectrograms with a coefficient for each clip, and return the mixed batch."""
    return apply_spectrogram_mix(draw_spectrogram_mix(config, len(mel_BKFN), generator), mel_BKFN, target_BC, weight_B)


def draw_wave_mix(config: MixingConfig, batch_size: int, generator: torch.Generator) -> Tensor:
    """Draw partner_JB, the clips that each clip is mixed with; J is 0 (the batch is not mixed), 1 or 2."""
    mixed, double = torch.rand(2, generator=generator).tolist()
    num_partners = 0 if mixed >= config.wave_prob else 1 if double < config.wave_double_prob else 2
    partners = [torch.randperm(batch_size, generator=generator) for _ in range(num_partners)]
    return torch.stack(partners) if partners else torch.empty(0, batch_size, dtype=torch.long)


def apply_wave_mix(partner_JB: Tensor, wave_BT: Tensor, target_BC: Tensor, weight_B: Tensor) -> Mixed:
    """Return summed waves, summed targets with a maximum of 1 (species of all mixed clips are present), and averaged weights."""
    if not len(partner_JB):
        return wave_BT, target_BC, weight_B
    wave, target, weight = wave_BT, target_BC, weight_B
    for partner_B in to_device(partner_JB, wave_BT.device):
        wave = wave + wave_BT[partner_B]
        target = target + target_BC[partner_B]
        weight = weight + weight_B[partner_B]
    return wave, target.clamp(max=1), weight / (len(partner_JB) + 1)


def draw_spectrogram_mix(config: MixingConfig, batch_size: int, generator: torch.Generator) -> SpectrogramMix | None:
    """Draw a partner and a coefficient from Beta(b, b) for each clip; None if the batch is not mixed."""
    if float(torch.rand((), generator=generator)) >= config.spectrogram_prob:
        return None
    # torch can draw a Beta from its global generator only.
    numpy_generator = np.random.default_rng(int(torch.randint(_SEED_LIMIT, (), generator=generator)))
    share_B = numpy_generator.beta(config.spectrogram_beta, config.spectrogram_beta, batch_size)
    return SpectrogramMix(torch.randperm(batch_size, generator=generator), torch.from_numpy(share_B).float())


def apply_spectrogram_mix(mix: SpectrogramMix | None, mel_BKFN: Tensor, target_BC: Tensor, weight_B: Tensor) -> Mixed:
    """Return spectrograms, targets and weights, mixed in the proportion drawn for each clip."""
    if mix is None:
        return mel_BKFN, target_BC, weight_B
    partner_B, share_B = to_device(mix.partner_B, mel_BKFN.device), to_device(mix.share_B, mel_BKFN.device)

    def mixed(value: Tensor) -> Tensor:
        return torch.lerp(value[partner_B], value, share_B.view(-1, *[1] * (value.ndim - 1)))

    return mixed(mel_BKFN), mixed(target_BC), mixed(weight_B)
