"""One step of training, from a batch of the feed to new weights: augmentation, spectrogram, model, loss.

Nothing in it waits for the device. Mixing works on the whole batch. The model may take the batch in micro-batches, whose gradients add
up to those of the batch's loss.

Shapes: B clips, T samples, F mel bins, N frames, K channels, C species.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from birdclef_core.audio.augment import add_noise_, add_noise_to_clip_, augment_mel_db, augment_wave_, noise_by_clip
from birdclef_core.audio.mixing import mix_spectrograms, mix_waves
from birdclef_core.config import AugmentConfig, StageConfig
from birdclef_core.data.buffers import WaveBuffers
from birdclef_core.data.decode import INT16_SCALE
from birdclef_core.data.feed import TrainBatch
from birdclef_core.errors import TrainingError
from birdclef_core.models.detector import Detector
from birdclef_core.models.losses import bce_loss, ce_loss
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
        """Return the batch with noise, augmentation and mixing, as spectrograms."""
        config = self._config
        wave_BT = augmented_waves(batch, config.augment, self._device, generator, self._waves)
        target_BC = batch.target_BC.to(self._device, non_blocking=True)
        weight_B = batch.weight_B.to(self._device, non_blocking=True)
        wave_BT, target_BC, weight_B = mix_waves(wave_BT, target_BC, weight_B, config.mixing, generator)
        # In micro-batches too: a spectrum takes several times as much memory as its waves.
        db_BFN = torch.cat([self._model.wave_to_db(part) for part in wave_BT.split(self.micro_batch_size)])
        db_BFN = augment_mel_db(db_BFN, config.augment, self._model.config.spectrogram, generator)
        mixed = mix_spectrograms(self._model.db_to_channels(db_BFN), target_BC, weight_B, config.mixing, generator)
        return ReadyBatch(*mixed)

    def _loss(self, mel_BKFN: Tensor, target_BC: Tensor, weight_B: Tensor, total_weight: Tensor) -> Tensor:
        """Contribution of a micro-batch to the loss of its batch."""
        with self._arithmetic.autocast():
            output = self._model(mel_BKFN)
        if self._config.loss == "bce":
            return bce_loss(output, target_BC, weight_B)
        return ce_loss(output, target_BC, weight_B, self._config.label_smoothing) * (weight_B.sum() / total_weight)

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
    """Return wave_BT of a batch as float32 on the device, with its noise and the augmentation of `config`.

    On a CPU it is in memory from `buffers`: new memory would cost more than the augmentation.
    """
    if device.type == "cpu":
        wave_BT = _noisy_clip_by_clip(batch, buffers.take(*batch.wave_BT.shape))
    else:
        wave_BT = to_float(batch.wave_BT, device)
        noise = (batch.noise_clip_M, batch.noise_wave_MT, batch.noise_snr_db_M)
        clip_M, noise_MT, snr_db_M = (part.to(device, non_blocking=True) for part in noise)
        add_noise_(wave_BT, clip_M, noise_MT.float(), snr_db_M)
    return augment_wave_(wave_BT, config, generator)


def _noisy_clip_by_clip(batch: TrainBatch, out_BT: Tensor) -> Tensor:
    """Write the clips with their noise into `out_BT`, one by one: a CPU's cache can hold a clip, but not a batch."""
    own_noise = noise_by_clip(len(out_BT), batch.noise_clip_M)
    for wave_T, out_T, own in zip(batch.wave_BT, out_BT, own_noise, strict=True):
        add_noise_to_clip_(to_float(wave_T, out_BT.device, out_T), own, batch.noise_wave_MT, batch.noise_snr_db_M)
    return out_BT


def to_float(wave: Tensor, device: torch.device, out: Tensor | None = None) -> Tensor:
    """Return int16 samples as float32 in [-1, 1) on the device, written into `out` if it is given."""
    return torch.mul(wave.to(device, non_blocking=True), 1 / INT16_SCALE, out=out)
