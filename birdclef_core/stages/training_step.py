"""One step of training, from a batch of the feed to new weights: augmentation, spectrogram, model, loss.

Nothing in it waits for the device. Mixing works on the whole batch. The model may take the batch in micro-batches, whose gradients add
up to those of the batch's loss.

Shapes: B clips, X clips or pieces of clips with a spectrogram of their own, T samples, F mel bins, N frames, K channels, C species.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from birdclef_core.audio.mel_augment import augment_mel
from birdclef_core.audio.mixing import mix_spectrograms, mix_waves
from birdclef_core.audio.wave_augment import (
    BackgroundNoise,
    augment_clip_,
    augment_waves_,
    by_clip,
    draw_wave_augment,
    shift_waves_,
)
from birdclef_core.augment_config import AugmentConfig
from birdclef_core.config import StageConfig
from birdclef_core.data.buffers import WaveBuffers
from birdclef_core.data.decode import INT16_SCALE
from birdclef_core.data.feed import TrainBatch
from birdclef_core.errors import TrainingError
from birdclef_core.models.detector import Detector
from birdclef_core.models.losses import batch_share_of_loss
from birdclef_core.stages.precision import Arithmetic


@dataclass(frozen=True)
class ReadyBatch:
    """A batch as the model takes it: on its device, in float32."""

    mel_BKFN: Tensor
    target_BC: Tensor
    weight_B: Tensor


class TrainingStep:
    """Trains a model with its optimiser, one batch at a time. If memory is too small, it continues with smaller micro-batches."""

    def __init__(
        self,
        model: Detector,
        optimizer: torch.optim.Optimizer,
        config: StageConfig,
        arithmetic: Arithmetic,
        device: torch.device,
        *,
        on_note: Callable[[str], None],
    ) -> None:
        self.micro_batch_size = config.micro_batch_size or config.batch_size
        self._model, self._optimizer, self._config = model, optimizer, config
        self._arithmetic, self._device, self._on_note = arithmetic, device, on_note
        self._waves = WaveBuffers(1, "float32")
        parameters = dict(model.named_parameters())
        self._trained = [parameter for parameter in parameters.values() if parameter.requires_grad]
        self._statistics = _Snapshot([tensor for name, tensor in model.state_dict().items() if name not in parameters])

    def __call__(self, batch: TrainBatch, seed: int) -> Tensor:
        """Train on a batch, and return its loss, a scalar on the device. All random numbers come from `seed`.

        Raises TrainingError when a single clip does not fit into memory.
        """
        loss = self._accumulate_within_memory(batch, seed)
        if self._config.clip_gradient_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._trained, self._config.clip_gradient_norm)
        self._optimizer.step()
        return loss

    def rehearse(self, batch: TrainBatch) -> float:
        """Return the seconds of a step without the optimiser, which changes nothing. Waits for the device."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        started = time.perf_counter()
        float(self._accumulate_within_memory(batch, seed=0))
        seconds = time.perf_counter() - started
        self._statistics.restore()
        self._optimizer.zero_grad(set_to_none=True)
        return seconds

    def _accumulate_within_memory(self, batch: TrainBatch, seed: int) -> Tensor:
        """Call `_accumulate` with smaller micro-batches until they fit. What did not fit changes nothing."""
        self._statistics.take()
        while True:
            # The next try is outside the handler, which keeps the tensors of the failed one in memory.
            try:
                return self._accumulate(batch, seed)
            except torch.OutOfMemoryError:
                pass
            self._statistics.restore()
            self._halve(len(batch.wave_BT))

    def _accumulate(self, batch: TrainBatch, seed: int) -> Tensor:
        """Compute the gradients of the batch's loss, and return the loss."""
        self._optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(seed)
        ready = self.prepare(batch, torch.Generator().manual_seed(seed))
        total_weight = ready.weight_B.sum()
        losses = []
        for mel_BKFN, target_BC, weight_B in zip(
            ready.mel_BKFN.split(self.micro_batch_size),
            ready.target_BC.split(self.micro_batch_size),
            ready.weight_B.split(self.micro_batch_size),
            strict=True,
        ):
            loss = self._loss(mel_BKFN, target_BC, weight_B, total_weight)
            loss.backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def prepare(self, batch: TrainBatch, generator: torch.Generator) -> ReadyBatch:
        """Return the batch with noise, augmentation and mixing, as spectrograms.

        The order is that of the 2023 solution: noise and gain, mixing of waves, time shift, spectrogram, its augmentation, mixing of
        spectrograms.
        """
        config, model = self._config, self._model
        wave_BT = augmented_waves(batch, config.augment, self._device, generator, self._waves)
        target_BC = batch.target_BC.to(self._device, non_blocking=True)
        weight_B = batch.weight_B.to(self._device, non_blocking=True)
        wave_BT, target_BC, weight_B = mix_waves(wave_BT, target_BC, weight_B, config.mixing, generator)
        wave_XT = shift_waves_(model.cut_waves(wave_BT), config.augment, generator)
        # In micro-batches too: a spectrum takes several times as much memory as its waves.
        pieces = len(wave_XT) // len(wave_BT)
        mel_XFN = torch.cat([model.wave_to_mel(part) for part in wave_XT.split(self.micro_batch_size * pieces)])
        mel_XFN = augment_mel(mel_XFN, config.augment, model.config.spectrogram, generator)
        mel_BKFN = model.mel_to_channels(mel_XFN, len(wave_BT))
        return ReadyBatch(*mix_spectrograms(mel_BKFN, target_BC, weight_B, config.mixing, generator))

    def _loss(self, mel_BKFN: Tensor, target_BC: Tensor, weight_B: Tensor, total_weight: Tensor) -> Tensor:
        """Contribution of a micro-batch to the loss of its batch."""
        with self._arithmetic.autocast():
            output = self._model(mel_BKFN)
        return batch_share_of_loss(self._config, output, target_BC, weight_B, total_weight)

    def _halve(self, batch_size: int) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        size = min(self.micro_batch_size, batch_size)
        if size == 1:
            raise TrainingError(
                f"One clip of {self._config.clip_s:g} s must fit into the device's memory, but does not in stage "
                f"{self._config.name}: use shorter clips, a smaller encoder, or a larger share of the GPU (--gpus-per-trial)."
            )
        self.micro_batch_size = -(-size // 2)
        self._on_note(
            f"Stage {self._config.name}: out of memory with {size} clips at once; it continues with {self.micro_batch_size}, and the "
            f"same batch of {batch_size}. BatchNorm then takes its statistics from fewer clips; --set {self._config.name}."
            f"micro_batch_size={self.micro_batch_size} does so from the start."
        )


class _Snapshot:
    """A copy of the BatchNorm statistics before a step, to restore them when the step runs out of memory."""

    def __init__(self, tensors: list[Tensor]) -> None:
        # A GPU copies a list of tensors of one type at once.
        real, counters = ([t for t in tensors if t.is_floating_point() == is_real] for is_real in (True, False))
        self._pairs = [([torch.empty_like(t) for t in part], part) for part in (real, counters) if part]

    def take(self) -> None:
        for saved, tensors in self._pairs:
            torch._foreach_copy_(saved, tensors)

    def restore(self) -> None:
        for saved, tensors in self._pairs:
            torch._foreach_copy_(tensors, saved)


def augmented_waves(
    batch: TrainBatch, config: AugmentConfig, device: torch.device, generator: torch.Generator, buffers: WaveBuffers
) -> Tensor:
    """Return wave_BT of a batch as float32 on the device, with its noise and the augmentation of single clips.

    On a CPU it is in memory from `buffers`: new memory would cost more than the augmentation.
    """
    batch_size, num_samples = batch.wave_BT.shape
    drawn = draw_wave_augment(config, batch_size, num_samples, generator)
    background = BackgroundNoise(batch.noise_clip_M, batch.noise_wave_MT, batch.noise_snr_db_M)
    if device.type != "cpu":
        return augment_waves_(to_float(batch.wave_BT, device), drawn, background, config)
    out_BT, noise_generator = buffers.take(batch_size, num_samples), torch.Generator().manual_seed(drawn.noise_seed)
    for wave_T, out_T, clip in zip(batch.wave_BT, out_BT, by_clip(drawn, background, config), strict=True):
        augment_clip_(to_float(wave_T, device, out_T), clip, background.wave_MT, noise_generator)
    return out_BT


def to_float(wave: Tensor, device: torch.device, out: Tensor | None = None) -> Tensor:
    """Return int16 samples as float32 in [-1, 1) on the device, written into `out` if it is given."""
    return torch.mul(wave.to(device, non_blocking=True), 1 / INT16_SCALE, out=out)
