"""Trains one stage: from its parent's weights (or an encoder's) to a published store entry, one epoch at a time.

Every random number comes from (stage seed, epoch, step), so a stage that goes on after an interruption computes what it
would have computed without one.

Shapes: B clips, T samples, F mel bins, N frames, K channels, C species, R recordings.
"""

import math
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor

from birdclef_core.audio.augment import add_noise, augment_mel_db, augment_wave
from birdclef_core.audio.mixing import mix_spectrograms, mix_waves
from birdclef_core.config import ModelConfig, StageConfig
from birdclef_core.data.cache import WaveCache
from birdclef_core.data.dataset import Dataset
from birdclef_core.data.feed import EvaluationWindows, TrainBatch, TrainFeed
from birdclef_core.errors import StoreError, TrainingError
from birdclef_core.evaluation.metrics import per_class_ap, summarise
from birdclef_core.evaluation.pictures import save_curves, save_predictions
from birdclef_core.models.detector import Detector
from birdclef_core.models.encoders import RANDOM, PretrainedWeights
from birdclef_core.models.losses import bce_loss, ce_loss
from birdclef_core.stages.checkpoint import load_training_state, save_training_state
from birdclef_core.stages.store import WEIGHTS, StageEntry, StageRecord, StageStore
from birdclef_core.stages.surgery import SurgeryReport, label_axes, transfer
from birdclef_core.taxonomy import LabelSpace


@dataclass(frozen=True, kw_only=True)
class StageTask:
    """One stage to be trained: what, from where, under which id."""

    stage_id: str
    parent_id: str | None
    recipe: str
    model: ModelConfig
    config: StageConfig
    pretrained: PretrainedWeights
    identity: dict[str, Any]
    """What the stage id is the hash of."""


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Recordings and where their decoded samples are."""

    dataset: Dataset
    cache: WaveCache

    def label_space(self, config: StageConfig) -> LabelSpace:
        return self.dataset.all_species if config.label_space == "all" else self.dataset.target_species


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """What one epoch did. Scores are of the stage's own label space."""

    epoch: int
    """From 1 to the stage's number of epochs."""
    train_loss: float
    learning_rate: float
    clips_per_s: float
    waited_s: float
    """Time that training stood still for data."""
    epoch_s: float
    """Training, evaluation and checkpoint together."""
    scores: dict[str, float]


@dataclass
class _Progress:
    """What a stage has behind it; saved at the end of every epoch."""

    epoch: int = 0
    cost_s: float = 0.0
    surgery: str = ""
    history: list[dict[str, Any]] = field(default_factory=list)


def derive_seed(*parts: int) -> int:
    """A 63-bit seed from any non-negative integers, independent for different parts."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def cosine_learning_rate(config: StageConfig, epoch: int) -> float:
    """Learning rate of an epoch counted from 0: cosine from learning_rate down to min_learning_rate over the stage."""
    share = 0.5 * (1 + math.cos(math.pi * epoch / config.epochs))
    return config.min_learning_rate + (config.learning_rate - config.min_learning_rate) * share


def train_stage(
    task: StageTask, data: TrainingData, store: StageStore, device: torch.device, *, parent_space: LabelSpace | None = None
) -> Iterator[EpochMetrics]:
    """Trains the stage, yields after every epoch, and publishes it after the last.

    An epoch checkpoint is written before each yield; if one is there at the start, the stage goes on from it. The weights
    published are those of the last epoch: the cosine schedule ends there, and choosing an epoch by its validation score
    would flatter the score.

    Raises TrainingError on a loss that is not finite and StoreError when the parent is not in the store.
    """
    return _StageTraining(task, data, store, device, parent_space).run()


class _StageTraining:
    """The state of one stage in training."""

    def __init__(
        self, task: StageTask, data: TrainingData, store: StageStore, device: torch.device, parent_space: LabelSpace | None
    ) -> None:
        self.task, self.data, self.store, self.device = task, data, store, device
        self.config = task.config
        self.space = data.label_space(task.config)
        self.parent_space = parent_space
        self.progress = _Progress()
        self.model = self._initial_model()
        self.optimizer = torch.optim.Adam(
            [parameter for parameter in self.model.parameters() if parameter.requires_grad],
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
            fused=device.type == "cuda",
        )
        folder = store.latest_progress(task.stage_id)
        if folder is not None:
            self.progress = _Progress(**load_training_state(folder, self.model, self.optimizer))

    def _initial_model(self) -> Detector:
        torch.manual_seed(derive_seed(self.config.seed, 0))
        pretrained = self.task.pretrained if self.task.parent_id is None else RANDOM
        model = Detector(self.task.model, len(self.space), pretrained)
        if self.task.parent_id is not None:
            self.progress.surgery = self._transfer(model, self.task.parent_id).summary()
        else:
            self.progress.surgery = f"started from {pretrained.name} weights"
        model.to(self.device)
        if self.config.freeze_encoder:
            model.freeze()
        return model

    def _transfer(self, model: Detector, parent_id: str) -> SurgeryReport:
        entry: StageEntry | None = self.store.open(parent_id)
        if entry is None:
            raise StoreError(f"Stage {self.config.name} starts from {parent_id[:12]}, which is not in the store.")
        return transfer(
            entry.weights(),
            model,
            axes=label_axes(partial(Detector, self.task.model)),
            parent_space=LabelSpace.of("parent", entry.record.species),
            space=self.space,
            head_transfer=self.config.head_transfer,
        )

    def run(self) -> Iterator[EpochMetrics]:
        dataset, cache = self.data.dataset, self.data.cache
        windows = EvaluationWindows(dataset, cache, self.space, self.config.clip_s, batch_size=self.config.evaluation_batch_size)
        with TrainFeed(dataset, cache, self.space, self.config) as feed:
            for epoch in range(self.progress.epoch, self.config.epochs):
                started = time.perf_counter()
                loss, train_s, waited_s = self._train_epoch(feed, epoch)
                scores_RC = self._evaluate(windows)
                metrics = EpochMetrics(
                    epoch=epoch + 1,
                    train_loss=loss,
                    learning_rate=cosine_learning_rate(self.config, epoch),
                    clips_per_s=feed.num_batches * self.config.batch_size / train_s,
                    waited_s=waited_s,
                    epoch_s=time.perf_counter() - started,
                    scores=summarise(windows.truth_RC, scores_RC),
                )
                self.progress.epoch = epoch + 1
                self.progress.cost_s += metrics.epoch_s
                self.progress.history.append(asdict(metrics))
                if metrics.epoch < self.config.epochs:
                    self._save_progress()
                else:
                    self._publish(windows, scores_RC)
                yield metrics

    def _train_epoch(self, feed: TrainFeed, epoch: int) -> tuple[float, float, float]:
        """Mean loss, seconds, and seconds of those spent waiting for data."""
        for group in self.optimizer.param_groups:
            group["lr"] = cosine_learning_rate(self.config, epoch)
        self.model.train()
        losses: list[Tensor] = []
        batch_rows: list[Tensor] = []
        waited_before, started = feed.waited_s, time.perf_counter()
        for step, batch in enumerate(feed.epoch(epoch)):
            seed = derive_seed(self.config.seed, 1, epoch, step)
            torch.manual_seed(seed)
            loss = self._loss(batch, torch.Generator().manual_seed(seed))
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
            batch_rows.append(batch.rows_B)
        # One synchronisation an epoch: losses stay on the device until here.
        losses_S = torch.stack(losses).cpu()
        self._require_finite(losses_S, batch_rows, epoch)
        return float(losses_S.mean()), time.perf_counter() - started, feed.waited_s - waited_before

    def _loss(self, batch: TrainBatch, generator: torch.Generator) -> Tensor:
        config = self.config
        wave_BT = _to_float(batch.wave_BT, self.device)
        target_BC = batch.target_BC.to(self.device, non_blocking=True)
        weight_B = batch.weight_B.to(self.device, non_blocking=True)
        wave_BT = add_noise(
            wave_BT,
            batch.noise_clip_M.to(self.device, non_blocking=True),
            _to_float(batch.noise_wave_MT, self.device),
            batch.noise_snr_db_M.to(self.device, non_blocking=True),
        )
        wave_BT = augment_wave(wave_BT, config.augment, generator)
        wave_BT, target_BC, weight_B = mix_waves(wave_BT, target_BC, weight_B, config.mixing, generator)
        mel_db = augment_mel_db(self.model.wave_to_db(wave_BT), config.augment, self.task.model.spectrogram, generator)
        mel_BKFN, target_BC, weight_B = mix_spectrograms(
            self.model.db_to_channels(mel_db), target_BC, weight_B, config.mixing, generator
        )
        with self._autocast():
            output = self.model(mel_BKFN)
        if config.loss == "ce":
            return ce_loss(output, target_BC, weight_B, config.label_smoothing)
        return bce_loss(output, target_BC, weight_B)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def _require_finite(self, losses_S: Tensor, batch_rows: list[Tensor], epoch: int) -> None:
        bad = torch.nonzero(~torch.isfinite(losses_S))
        if len(bad):
            step = int(bad[0])
            names = self.data.dataset.recordings["recording_id"].to_numpy()[batch_rows[step].numpy()]
            raise TrainingError(
                f"The loss must be finite, but is {float(losses_S[step])} in stage {self.config.name}, epoch {epoch + 1}, "
                f"step {step + 1} of {len(losses_S)}; a lower learning rate than {self.config.learning_rate:g} may help. "
                f"Recordings of the batch: {', '.join(names)}."
            )

    @torch.inference_mode()
    def _evaluate(self, windows: EvaluationWindows) -> np.ndarray:
        """Probabilities (R, C): the maximum over the windows of each validation recording."""
        self.model.eval()
        logits_RC = torch.full(windows.truth_RC.shape, -torch.inf, device=self.device)
        for batch in windows:
            mel_BKFN = self.model.spectrograms(_to_float(batch.wave_BT, self.device))
            with self._autocast():
                logits_BC = self.model(mel_BKFN).logits_BC.float()
            index_BC = batch.recording_B.to(self.device)[:, None].expand_as(logits_BC)
            logits_RC.scatter_reduce_(0, index_BC, logits_BC, "amax")
        # In float64, where a sigmoid keeps the order of logits up to 36 (in float32 they tie from 17 on).
        return logits_RC.double().sigmoid().cpu().numpy()

    def _save_progress(self) -> None:
        with self.store.save_progress(self.task.stage_id, self.progress.epoch) as folder:
            save_training_state(folder, self.model, self.optimizer, asdict(self.progress))

    def _publish(self, windows: EvaluationWindows, scores_RC: np.ndarray) -> None:
        with self.store.publish(self._record, self.task.stage_id) as folder:
            save_file({name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}, folder / WEIGHTS)
            self._write_reports(folder, windows, scores_RC)

    def _write_reports(self, folder: Path, windows: EvaluationWindows, scores_RC: np.ndarray) -> None:
        recording_ids = self.data.dataset.recordings["recording_id"].iloc[windows.rows_R]
        predictions = pd.DataFrame(scores_RC.astype(np.float32), columns=list(self.space.species), index=recording_ids)
        predictions.to_parquet(folder / "predictions.parquet")
        average_precision_C, support_C = per_class_ap(windows.truth_RC, scores_RC)
        table = pd.DataFrame({"species": self.space.species, "average_precision": average_precision_C, "support": support_C})
        table.to_csv(folder / "species.csv", index=False)
        save_curves(self.progress.history, folder / "curves.png")
        wave_T = next(iter(windows)).wave_BT[0]
        save_predictions(self._db_of(wave_T), windows.truth_RC[0], scores_RC[0], self.space.species, folder / "predictions.png")

    @torch.inference_mode()
    def _db_of(self, wave_T: Tensor) -> np.ndarray:
        return self.model.wave_to_db(_to_float(wave_T[None], self.device))[0].cpu().numpy()

    def _record(self) -> StageRecord:
        return StageRecord(
            stage_id=self.task.stage_id,
            parent_id=self.task.parent_id,
            recipe=self.task.recipe,
            stage=self.config.name,
            identity=self.task.identity,
            species=list(self.space.species),
            metrics=self.progress.history[-1]["scores"],
            history=self.progress.history,
            cost_s=self.progress.cost_s,
            surgery=self.progress.surgery,
            environment=environment(self.device),
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _to_float(wave: Tensor, device: torch.device) -> Tensor:
    """int16 samples as float32 in [-1, 1) on the device."""
    return wave.to(device, non_blocking=True).float().div_(32768)


def environment(device: torch.device) -> dict[str, str]:
    """What a result may depend on beyond its identity: versions and the device."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {"python": platform.python_version(), "torch": torch.__version__, "device": name, "host": platform.node()}
