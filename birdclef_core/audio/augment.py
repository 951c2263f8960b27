"""Augmentation of single clips in training, for a whole batch at once on its device: gain, noise, shifts, masks, tilt.

Parameters are drawn on the host by a CPU generator (`draw_*`) and applied on the device (`apply_*`). So nothing waits for the device,
and only the clips that an effect was drawn for are changed. Waveforms are changed in place (`*_`): a batch of them is large, and on a
CPU, memory for a second one costs more than the augmentation. Other functions return new tensors.

Shapes: B clips, M clips an effect was drawn for, T samples, F mel bins, N frames, J masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor

from birdclef_core.audio.float32 import exact_float32
from birdclef_core.audio.mel_scale import bin_centres_hz, hz_to_bin
from birdclef_core.config import AugmentConfig, SpectrogramConfig

_TINY = 1e-6
_SEED_LIMIT = 2**62
ParametersT = TypeVar("ParametersT")


@dataclass(frozen=True, kw_only=True)
class WaveAugment:
    """Parameters drawn for the waveforms of a batch. `*_clip_M` are rows of the batch; shares are parts of a clip's length."""

    gain_db_B: Tensor
    """Gain of each clip; 0 if none was drawn."""
    transition_clip_M: Tensor
    transition_db_M2: Tensor
    """Gain before and after the transition."""
    transition_share_M2: Tensor
    """Where the transition begins and ends."""
    noise_clip_M: Tensor
    """Clips that get Gaussian noise, followed by those that get pink noise."""
    noise_snr_db_M: Tensor
    num_pink: int
    noise_seed: int
    shift_clip_M: Tensor
    shift_share_M: Tensor


@dataclass(frozen=True, kw_only=True)
class MelAugment:
    """Parameters drawn for the spectrograms of a batch."""

    pitch_clip_M: Tensor
    pitch_semitones_M: Tensor
    tilt_db_B: Tensor
    """Change of the last mel bin against the first; 0 if none was drawn."""
    time_mask_start_BJ: Tensor
    """Start of each mask, as a share of the places where it fits."""
    time_mask_frames_BJ: Tensor
    frequency_mask_start_BJ: Tensor
    frequency_mask_bins_BJ: Tensor


def augment_wave_(wave_BT: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Draw an augmentation for each waveform, and apply it in place."""
    return apply_wave_augment_(wave_BT, draw_wave_augment(config, len(wave_BT), generator))


def augment_mel_db(db_BFN: Tensor, config: AugmentConfig, spectrogram: SpectrogramConfig, generator: torch.Generator) -> Tensor:
    """Draw an augmentation for each spectrogram in decibels, and return the augmented ones."""
    return apply_mel_augment(db_BFN, draw_mel_augment(config, len(db_BFN), generator), spectrogram)


def draw_wave_augment(config: AugmentConfig, batch_size: int, generator: torch.Generator) -> WaveAugment:
    """Draw gain, gain transition, Gaussian and pink noise and time shift for each clip; `generator` is on the CPU."""
    gain = _chosen(config.gain_prob, batch_size, generator)
    gain_db_B = torch.zeros(batch_size)
    gain_db_B[gain] = _uniform(-config.gain_db, config.gain_db, len(gain), generator=generator)
    transition = _chosen(config.gain_transition_prob, batch_size, generator)
    gaussian = _chosen(config.gaussian_noise_prob, batch_size, generator)
    pink = _chosen(config.pink_noise_prob, batch_size, generator)
    snr_db = (config.coloured_noise_snr_db_min, config.coloured_noise_snr_db_max)
    shift = _chosen(config.time_shift_prob, batch_size, generator)
    return WaveAugment(
        gain_db_B=gain_db_B,
        transition_clip_M=transition,
        transition_db_M2=_uniform(-config.gain_db, config.gain_db, len(transition), 2, generator=generator),
        transition_share_M2=torch.rand(len(transition), 2, generator=generator).sort(dim=1).values,
        noise_clip_M=torch.cat((gaussian, pink)),
        noise_snr_db_M=_uniform(*snr_db, len(gaussian) + len(pink), generator=generator),
        num_pink=len(pink),
        noise_seed=int(torch.randint(_SEED_LIMIT, (), generator=generator)),
        shift_clip_M=shift,
        shift_share_M=torch.rand(len(shift), generator=generator),
    )


def apply_wave_augment_(wave_BT: Tensor, drawn: WaveAugment) -> Tensor:
    """Apply gain, then noise at its signal-to-noise ratio, then the shift. Return wave_BT itself."""
    shifts = zip(drawn.shift_clip_M.tolist(), drawn.shift_share_M.tolist(), strict=True)  # read before they leave the host
    drawn = _on_device(drawn, wave_BT.device)
    wave_BT *= _db_to_factor(drawn.gain_db_B)[:, None]
    if len(drawn.transition_clip_M):
        _fade_(wave_BT, drawn)
    if len(drawn.noise_clip_M):
        noise_MT = _coloured_noise(drawn, wave_BT)
        add_noise_(wave_BT, drawn.noise_clip_M, noise_MT, drawn.noise_snr_db_M)
    for clip, share in shifts:
        wave_BT[clip] = torch.roll(wave_BT[clip], int(share * wave_BT.shape[1]))
    return wave_BT


def add_noise_(wave_BT: Tensor, clip_M: Tensor, noise_MT: Tensor, snr_db_M: Tensor) -> Tensor:
    """Add noise m to clip clip_M[m], snr_db_M[m] decibels (RMS) below the clip before any noise. Return wave_BT itself.

    Noise may come at any level. A clip may get several noises; a silent clip gets none, and silent noise adds nothing.
    """
    if wave_BT.device.type != "cpu":
        return _add_noise_at_once_(wave_BT, clip_M, noise_MT, snr_db_M)
    for wave_T, own in zip(wave_BT, noise_by_clip(len(wave_BT), clip_M), strict=True):
        add_noise_to_clip_(wave_T, own, noise_MT, snr_db_M)
    return wave_BT


def _add_noise_at_once_(wave_BT: Tensor, clip_M: Tensor, noise_MT: Tensor, snr_db_M: Tensor) -> Tensor:
    level_M = torch.linalg.vector_norm(wave_BT, dim=1).index_select(0, clip_M)
    noise_level_M = torch.linalg.vector_norm(noise_MT, dim=1).clamp(min=_TINY)
    scale_M = level_M / noise_level_M * _db_to_factor(-snr_db_M)
    return wave_BT.index_add_(0, clip_M, noise_MT * scale_M[:, None])


def add_noise_to_clip_(wave_T: Tensor, own: Sequence[int], noise_MT: Tensor, snr_db_M: Tensor) -> Tensor:
    """Add the noises `own` to one clip as `add_noise_` does, on a CPU: with numbers, not tensors, and without a second batch."""
    if own:
        level = float(torch.linalg.vector_norm(wave_T))
    for noise in own:
        noise_T = noise_MT[noise].float()
        noise_level = max(float(torch.linalg.vector_norm(noise_T)), _TINY)
        wave_T.add_(noise_T, alpha=level / noise_level * 10 ** (-float(snr_db_M[noise]) / 20))
    return wave_T


def noise_by_clip(num_clips: int, clip_M: Tensor) -> list[list[int]]:
    """Return the indices of the noises of each clip."""
    own: list[list[int]] = [[] for _ in range(num_clips)]
    for noise, clip in enumerate(clip_M.tolist()):
        own[clip].append(noise)
    return own


def draw_mel_augment(config: AugmentConfig, batch_size: int, generator: torch.Generator) -> MelAugment:
    """Draw pitch shift, tilt and masks for each spectrogram; `generator` is on the CPU."""
    pitch = _chosen(config.pitch_shift_prob, batch_size, generator)
    limit = config.pitch_shift_semitones
    tilt = _chosen(config.tilt_prob, batch_size, generator)
    tilt_db_B = torch.zeros(batch_size)
    tilt_db_B[tilt] = _uniform(-config.tilt_db, config.tilt_db, len(tilt), generator=generator)
    time_masks, frequency_masks = (batch_size, config.time_masks), (batch_size, config.frequency_masks)
    return MelAugment(
        pitch_clip_M=pitch,
        pitch_semitones_M=_uniform(-limit, limit, len(pitch), generator=generator),
        tilt_db_B=tilt_db_B,
        time_mask_start_BJ=torch.rand(time_masks, generator=generator),
        time_mask_frames_BJ=torch.randint(config.time_mask_frames + 1, time_masks, generator=generator),
        frequency_mask_start_BJ=torch.rand(frequency_masks, generator=generator),
        frequency_mask_bins_BJ=torch.randint(config.frequency_mask_bins + 1, frequency_masks, generator=generator),
    )


def apply_mel_augment(db_BFN: Tensor, drawn: MelAugment, spectrogram: SpectrogramConfig) -> Tensor:
    """Return db_BFN shifted in pitch, tilted, and masked with the mean of each spectrogram.

    A mask covers at most half of the spectrogram, so that a short clip is not masked completely.
    """
    drawn = _on_device(drawn, db_BFN.device)
    if len(drawn.pitch_clip_M):
        db_BFN = db_BFN.index_copy(
            0, drawn.pitch_clip_M, shift_pitch(db_BFN.index_select(0, drawn.pitch_clip_M), drawn.pitch_semitones_M, spectrogram)
        )
    slope_F = torch.linspace(-0.5, 0.5, db_BFN.shape[1], device=db_BFN.device)
    db_BFN = db_BFN + (drawn.tilt_db_B[:, None] * slope_F)[:, :, None]
    masked_BN = _masked(db_BFN.shape[2], drawn.time_mask_start_BJ, drawn.time_mask_frames_BJ)
    masked_BF = _masked(db_BFN.shape[1], drawn.frequency_mask_start_BJ, drawn.frequency_mask_bins_BJ)
    return torch.where(masked_BN[:, None, :] | masked_BF[:, :, None], db_BFN.mean(dim=(1, 2), keepdim=True), db_BFN)


def shift_pitch(db_MFN: Tensor, semitones_M: Tensor, config: SpectrogramConfig) -> Tensor:
    """Return the spectrograms shifted up by `semitones_M`: bin f takes the interpolated value at f * 2**(-semitones/12).

    On the Slaney scale a semitone is 27 * ln(2) / (12 * ln(6.4)) = 0.840 mel above 1 kHz, at every pitch, and f * 0.06 / 66.7 mel
    below. A bin is (mel(f_max) - mel(f_min)) / (num_mels + 1) wide: 4 semitones are 7.8 of 128 bins from 0 to 16 kHz, 8.2 of 128
    and 4.1 of 64 bins from 50 Hz to 14 kHz. Beyond the edge, the outermost bin is repeated.
    """
    source_MF = bin_centres_hz(config, db_MFN.device).to(db_MFN.dtype) * torch.exp2(-semitones_M[:, None] / 12)
    bin_MF = hz_to_bin(source_MF, config).clamp(0, config.num_mels - 1)
    # Linear interpolation as a matrix with two entries a row: one batched product, where a gather would need an index a frame.
    weight_MFF = (1 - (bin_MF[:, :, None] - torch.arange(config.num_mels, device=db_MFN.device)).abs()).clamp(min=0)
    with exact_float32(db_MFN.device):
        return weight_MFF @ db_MFN


_LN_10_OVER_20 = 0.11512925464970229


def _fade_(wave_BT: Tensor, drawn: WaveAugment) -> None:
    """Apply gains that move, linearly in decibels, from one value to another within a part of the clip."""
    place_T = torch.linspace(0, 1, wave_BT.shape[1], device=wave_BT.device)
    begin_M1, end_M1 = drawn.transition_share_M2.split(1, dim=1)
    from_M1, to_M1 = drawn.transition_db_M2.split(1, dim=1)
    ramp_MT = ((place_T - begin_M1) / (end_M1 - begin_M1).clamp(min=_TINY)).clamp(0, 1)
    faded_MT = wave_BT.index_select(0, drawn.transition_clip_M) * _db_to_factor(from_M1 + (to_M1 - from_M1) * ramp_MT)
    wave_BT.index_copy_(0, drawn.transition_clip_M, faded_MT)


def _coloured_noise(drawn: WaveAugment, wave_BT: Tensor) -> Tensor:
    """noise_MT, made on the device: white noise, then pink noise (power falls with 1/f, made in the spectrum)."""
    num_samples, device = wave_BT.shape[1], wave_BT.device
    generator = torch.Generator(device).manual_seed(drawn.noise_seed)
    num_white = len(drawn.noise_clip_M) - drawn.num_pink
    white_MT = torch.randn(num_white, num_samples, generator=generator, device=device)
    if not drawn.num_pink:
        return white_MT
    spectrum = torch.randn(drawn.num_pink, num_samples // 2 + 1, 2, generator=generator, device=device)
    bins = torch.arange(num_samples // 2 + 1, device=device)
    spectrum *= torch.where(bins > 0, bins.clamp(min=1).rsqrt(), 0.0)[:, None]
    return torch.cat((white_MT, torch.fft.irfft(torch.view_as_complex(spectrum), n=num_samples)))


def _masked(size: int, start_BJ: Tensor, length_BJ: Tensor) -> Tensor:
    """Whether each of `size` places lies in a mask of a spectrogram: (B, size)."""
    length_BJ1 = length_BJ.clamp(max=size // 2)[:, :, None]
    first_BJ1 = (start_BJ[:, :, None] * (size - length_BJ1 + 1)).long()
    place = torch.arange(size, device=start_BJ.device)
    return ((place >= first_BJ1) & (place < first_BJ1 + length_BJ1)).any(dim=1)


def _db_to_factor(db: Tensor) -> Tensor:
    return torch.exp(db * _LN_10_OVER_20)


def _chosen(prob: float, batch_size: int, generator: torch.Generator) -> Tensor:
    return torch.nonzero(torch.rand(batch_size, generator=generator) < prob)[:, 0]


def _uniform(low: float, high: float, *shape: int, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator) * (high - low) + low


def _on_device(drawn: ParametersT, device: torch.device) -> ParametersT:
    """The drawn tensors on the device, through pinned memory: otherwise each copy would wait for the device."""
    if device.type == "cpu":
        return drawn
    values = {item.name: getattr(drawn, item.name) for item in fields(drawn)}  # type: ignore[arg-type]
    moved = {
        name: (value.pin_memory() if device.type == "cuda" else value).to(device, non_blocking=True)
        for name, value in values.items()
        if isinstance(value, Tensor)
    }
    return type(drawn)(**values | moved)
