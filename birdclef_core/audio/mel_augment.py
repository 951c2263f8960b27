"""Augmentation of spectrograms in training: pitch shift, masks and tilt, for a whole batch at once on its device.

It works on scaled spectrograms, before deltas are computed from them. Parameters are drawn on the host by a CPU generator and applied
on the device, so that nothing waits for it. The input is not changed.

Shapes: X spectrograms (of a clip, or of a piece of one), M of them an effect was drawn for, F mel bins, N frames, J masks.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from birdclef_core.audio.float32 import exact_float32
from birdclef_core.audio.host_draws import chosen, rows_of, to_device, uniform
from birdclef_core.audio.mel_scale import bin_centres_hz, hz_to_bin
from birdclef_core.augment_config import AugmentConfig, MaskFill
from birdclef_core.config import SpectrogramConfig


@dataclass(frozen=True, kw_only=True)
class MelAugment:
    """Parameters drawn for the spectrograms of a batch, on the host. Places and lengths are shares of what is possible, in [0, 1)."""

    pitch_row_M: Tensor
    """int64, the spectrograms that are shifted."""
    pitch_semitones_M: Tensor
    time_mask_place_XJ: Tensor
    time_mask_length_XJ: Tensor
    frequency_mask_place_XJ: Tensor
    frequency_mask_length_XJ: Tensor
    """0 where no mask was drawn."""
    tilt_X: Tensor
    """Share that the highest bins lose; 0 if no tilt was drawn."""
    tilt_place_X: Tensor
    """Where the fall ends, as a share of the upper half of the bins."""


def augment_mel(mel_XFN: Tensor, config: AugmentConfig, spectrogram: SpectrogramConfig, generator: torch.Generator) -> Tensor:
    """Draw an augmentation for each scaled spectrogram, and return the augmented ones."""
    return apply_mel_augment(mel_XFN, draw_mel_augment(config, len(mel_XFN), generator), config, spectrogram)


def draw_mel_augment(config: AugmentConfig, count: int, generator: torch.Generator) -> MelAugment:
    """Draw pitch shift, masks and tilt for each spectrogram; `generator` is on the CPU."""
    pitch_M = rows_of(chosen(config.pitch_shift_prob, count, generator))
    limit = config.pitch_shift_semitones
    together = 1 if config.draw_per_batch else count
    is_masked_X = chosen(config.frequency_mask_prob, together, generator)
    is_tilted_X = chosen(config.tilt_prob, together, generator)
    tilt_X = is_tilted_X * uniform(0, config.tilt_depth, together, generator=generator)
    tilt_place_X = torch.rand(together, generator=generator)
    time_masks, frequency_masks = (count, config.time_masks), (count, config.frequency_masks)
    return MelAugment(
        pitch_row_M=pitch_M,
        pitch_semitones_M=uniform(-limit, limit, len(pitch_M), generator=generator),
        time_mask_place_XJ=torch.rand(time_masks, generator=generator),
        time_mask_length_XJ=torch.rand(time_masks, generator=generator),
        frequency_mask_place_XJ=torch.rand(frequency_masks, generator=generator),
        frequency_mask_length_XJ=torch.rand(frequency_masks, generator=generator) * is_masked_X[:, None],
        tilt_X=tilt_X.expand(count).contiguous(),
        tilt_place_X=tilt_place_X.expand(count).contiguous(),
    )


def apply_mel_augment(mel_XFN: Tensor, drawn: MelAugment, config: AugmentConfig, spectrogram: SpectrogramConfig) -> Tensor:
    """Return mel_XFN shifted in pitch, then masked, then tilted."""
    device, (_, num_bins, num_frames) = mel_XFN.device, mel_XFN.shape
    if len(drawn.pitch_row_M):
        row_M = to_device(drawn.pitch_row_M, device)
        shifted_MFN = shift_pitch(mel_XFN.index_select(0, row_M), to_device(drawn.pitch_semitones_M, device), spectrogram)
        mel_XFN = mel_XFN.index_copy(0, row_M, shifted_MFN)
    masked_XN = _masked(num_frames, config.time_mask_frames, drawn.time_mask_place_XJ, drawn.time_mask_length_XJ)
    masked_XF = _masked(num_bins, config.frequency_mask_bins, drawn.frequency_mask_place_XJ, drawn.frequency_mask_length_XJ)
    mel_XFN = _filled(mel_XFN, to_device(masked_XF, device)[:, :, None] | to_device(masked_XN, device)[:, None], config.mask_fill)
    if not drawn.tilt_X.any():
        return mel_XFN
    factor_XF = 1 - to_device(drawn.tilt_X, device)[:, None] * _fall(num_bins, drawn.tilt_place_X, device)
    return mel_XFN * factor_XF[:, :, None]


def shift_pitch(mel_MFN: Tensor, semitones_M: Tensor, config: SpectrogramConfig) -> Tensor:
    """Return the spectrograms shifted up by `semitones_M`: bin f takes the interpolated value at f * 2**(-semitones/12).

    On the Slaney scale a semitone is 27 * ln(2) / (12 * ln(6.4)) = 0.840 mel above 1 kHz, at every pitch, and f * 0.06 / 66.7 mel
    below. A bin is (mel(f_max) - mel(f_min)) / (num_mels + 1) wide: 4 semitones are 7.8 of 128 bins from 0 to 16 kHz, 8.2 of 128
    and 4.1 of 64 bins from 50 Hz to 14 kHz. Beyond the edge, the outermost bin is repeated.
    """
    source_MF = bin_centres_hz(config, mel_MFN.device).to(mel_MFN.dtype) * torch.exp2(-semitones_M[:, None] / 12)
    bin_MF = hz_to_bin(source_MF, config).clamp(0, config.num_mels - 1)
    # Linear interpolation as a matrix with two entries a row: one batched product, where a gather would need an index a frame.
    weight_MFF = (1 - (bin_MF[:, :, None] - torch.arange(config.num_mels, device=mel_MFN.device)).abs()).clamp(min=0)
    with exact_float32(mel_MFN.device):
        return weight_MFF @ mel_MFN


def _masked(size: int, limit: int, place_XJ: Tensor, length_XJ: Tensor) -> Tensor:
    """Whether each of `size` places lies in a mask of a spectrogram, shorter than `limit` and at most half of them: (X, size)."""
    length_XJ1 = (length_XJ * min(limit, size // 2 + 1)).long()[:, :, None]
    first_XJ1 = (place_XJ[:, :, None] * (size - length_XJ1 + 1)).long()
    place = torch.arange(size)
    return ((place >= first_XJ1) & (place < first_XJ1 + length_XJ1)).any(dim=1)


def _filled(mel_XFN: Tensor, masked_XFN: Tensor, fill: MaskFill) -> Tensor:
    if fill == "zero":
        return mel_XFN.masked_fill(masked_XFN, 0.0)
    return torch.where(masked_XFN, mel_XFN.mean(dim=(1, 2), keepdim=True), mel_XFN)


def _fall(num_bins: int, place_X: Tensor, device: torch.device) -> Tensor:
    """Part of the fall that is done at each bin (X, F): from 0 at the lowest to 1 at a bin of the upper half, and 1 from there on."""
    half = num_bins // 2
    end_X1 = to_device(half + (place_X * (num_bins - half)).long(), device)[:, None]
    return (torch.arange(num_bins, device=device) / end_X1).clamp(max=1)
