"""Trains a head alone on the embeddings of an earlier stage.

Shapes: B clips, D numbers of an embedding, C species, R recordings or windows that are scored.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from birdclef_core.audio.spectrogram import MelSpectrogram
from birdclef_core.config import SAMPLE_RATE_HZ, ModelConfig, StageConfig
from birdclef_core.data.targets import training_table, validation_truth
from birdclef_core.errors import DataError, StoreError, TrainingError
from birdclef_core.evaluation.jackknife import standard_errors
from birdclef_core.evaluation.metrics import summarise
from birdclef_core.models.heads import EmbeddingHead, Output
from birdclef_core.models.losses import batch_share_of_loss
from birdclef_core.reports.outcome import StageOutcome
from birdclef_core.reports.stage_report import write_stage_report
from birdclef_core.stages.averaging import load_state
from birdclef_core.stages.candidate import CandidateWeights
from birdclef_core.stages.checkpoint import (
    State,
    load_optimizer_state,
    load_training_state,
    optimizer_state,
    save_training_state,
)
from birdclef_core.stages.embeddings.stored import Embeddings
from birdclef_core.stages.environment import environment
from birdclef_core.stages.epochs import EpochMetrics, StageCounters, ignore_epochs
from birdclef_core.stages.interruption import StageInterrupted, Stop, never
from birdclef_core.stages.optimizers import build_optimizer, set_learning_rate
from birdclef_core.stages.schedule import initial_seed, learning_rate, step_seed
from birdclef_core.stages.surgery import label_axes, transfer
from birdclef_core.stages.task import StageTask
from birdclef_core.stages.training_data import TrainingData
from birdclef_core.stages.training_step import to_float
from birdclef_core.store.stage_store import WEIGHTS, StageEntry, StageRecord, StageStore
from birdclef_core.taxonomy import SOUNDSCAPES, LabelSpace

MAX_S = 60.0
"""Seconds of a validation recording that are scored, from its beginning."""


class HeadStage:
    """A head in training on one device. All embeddings are in memory."""

    def __init__(
        self, config: StageConfig, model: ModelConfig, data: TrainingData, made: Embeddings, device: torch.device
    ) -> None:
        """Find clips and scored windows. Raises DataError when no training recording has a window."""
        self.config, self.made, self.device = config, made, device
        self.space = data.label_space(config)
        table = training_table(
            data.dataset,
            self.space,
            secondary_target=config.secondary_target,
            class_balance=config.class_balance,
            sources=config.sources,
        )
        first_R = np.searchsorted(made.row_W, table.rows_R)
        self._count_R = np.searchsorted(made.row_W, table.rows_R, side="right") - first_R
        self._first_R, self._table = first_R, table
        self._cumulative_R = np.cumsum(table.shared(table.sampling_weight_R * (self._count_R > 0)))
        if not self._cumulative_R[-1] > 0:
            raise DataError(
                f"Stage {config.name} must have at least one training recording with a window, but none could be decoded."
            )
        self.num_steps = max(1, (config.clips_per_epoch or len(table.rows_R)) // config.batch_size)
        self.rows_R, self.truth_RC = validation_truth(data.dataset, self.space)
        self.group_R = data.dataset.recordings["group"].to_numpy(dtype=object)[self.rows_R]
        place = np.full(len(data.dataset.recordings), -1)
        place[self.rows_R] = np.arange(len(self.rows_R))
        self._scored_W = np.flatnonzero((place[made.row_W] >= 0) & (made.start_W < MAX_S * SAMPLE_RATE_HZ))
        self._row_W = torch.from_numpy(place[made.row_W][self._scored_W])
        torch.manual_seed(initial_seed(config))
        self._num_numbers, self._dropout = made.embedding_WD.shape[1], model.head_dropout
        self.head = self._head(len(self.space)).to(device)
        self.optimizer = build_optimizer(self.head, config)  # type: ignore[arg-type]

    def _head(self, num_species: int) -> EmbeddingHead:
        return EmbeddingHead(self._num_numbers, num_species, self.config.head_hidden, self._dropout)

    def start_from(self, parent: StageEntry) -> str:
        """Take the weights of another head on the same embeddings, rows of species as `head_transfer` says. Return one line on it.

        Raises StoreError when the two differ in anything but their label spaces.
        """
        report = transfer(
            parent.weights(),
            self.head,
            axes=label_axes(self._head),
            parent_space=LabelSpace.of("parent", parent.record.species),
            space=self.space,
            head_transfer=self.config.head_transfer,
        )
        return report.summary()

    def train(self, epoch: int, candidate: CandidateWeights, stop: Stop) -> float:
        """Train an epoch and return its mean loss."""
        config, losses = self.config, []
        self.head.train()
        for step in range(self.num_steps):
            seed = step_seed(config, epoch, step)
            torch.manual_seed(seed)
            embedding_BD, target_BC, weight_B = self._batch(np.random.default_rng(seed))
            set_learning_rate(self.optimizer, learning_rate(config, epoch, step, self.num_steps))
            self.optimizer.zero_grad(set_to_none=True)
            output = Output(self.head(embedding_BD), None, None)
            loss = batch_share_of_loss(config, output, target_BC, weight_B, weight_B.sum())
            loss.backward()
            if config.clip_gradient_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.head.parameters(), config.clip_gradient_norm)
            self.optimizer.step()
            candidate.after_step(epoch * self.num_steps + step)
            losses.append(loss.detach())
            if reason := stop():
                raise StageInterrupted(f"Stage {config.name} was interrupted in epoch {epoch + 1}, which begins again: {reason}")
        mean = float(torch.stack(losses).mean())
        if not np.isfinite(mean):
            raise TrainingError(
                f"The loss must be finite, but is {mean} in stage {config.name}, epoch {epoch + 1}: lower learning_rate."
            )
        return mean

    def _batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        size = self.config.batch_size
        place_B = np.searchsorted(self._cumulative_R, rng.random(size) * self._cumulative_R[-1], side="right")
        place_B = place_B.clip(max=len(self._cumulative_R) - 1)
        window_B = self._first_R[place_B] + (rng.random(size) * self._count_R[place_B]).astype(np.int64)
        arrays = (
            self.made.embedding_WD[window_B].astype(np.float32),
            self._table.target_RC[place_B].toarray(),
            self._table.weight_R[place_B],
        )
        embedding_BD, target_BC, weight_B = (torch.from_numpy(array).to(self.device) for array in arrays)
        return embedding_BD, target_BC, weight_B

    def scores(self) -> NDArray[np.float64]:
        """Return the largest probability (R, C) over the windows of each validation recording; 0 for one that could not be decoded."""
        logits_WC = self._logits(self.made.embedding_WD[self._scored_W])
        logits_RC = torch.full(self.truth_RC.shape, -torch.inf, dtype=torch.float64)
        logits_RC.scatter_reduce_(0, self._row_W[:, None].expand_as(logits_WC), logits_WC, "amax")
        return logits_RC.sigmoid().numpy()

    def summary(self, score_RC: NDArray[np.float64], *, errors: bool = False) -> dict[str, float]:
        """Return the scores of probabilities of the validation recordings, with their standard errors if asked for; none where all
        recordings train."""
        if not len(self.rows_R):
            return {}
        return _with_errors(self.truth_RC, score_RC, self.group_R) if errors else summarise(self.truth_RC, score_RC)

    def soundscape_scores(self, data: TrainingData) -> dict[str, float]:
        """Return the scores on labelled windows of soundscapes, as of every stage; empty where there is nothing to score."""
        soundscapes = data.dataset.soundscapes
        if soundscapes is None or not len(self.made.scored_WD) or self.config.label_space != "target":
            return {}
        truth_RC = soundscapes.truth(self.space)
        if not truth_RC.any():
            return {}
        scores_RC = self.soundscape_logits(len(truth_RC)).sigmoid().numpy()
        scores = _with_errors(truth_RC, scores_RC, soundscapes.windows["file"].to_numpy())
        scores["num_windows"] = scores.pop("num_recordings")
        scores["num_windows_without_birds"] = float((~truth_RC.any(axis=1)).sum())
        return {f"{SOUNDSCAPES}{name}": value for name, value in scores.items()}

    def soundscape_logits(self, num_windows: int) -> Tensor:
        """Return the largest logits (R, C) over the clips of each labelled window of soundscapes."""
        return self._logits(self.made.scored_WD).unflatten(0, (num_windows, -1)).amax(dim=1)

    @torch.inference_mode()
    def _logits(self, embedding_WD: NDArray[np.float16]) -> Tensor:
        self.head.eval()
        parts = torch.from_numpy(embedding_WD).split(4096)
        return torch.cat([self.head(part.to(self.device).float()).double().cpu() for part in parts])


def _with_errors(truth_RC: NDArray, scores_RC: NDArray, group_R: NDArray) -> dict[str, float]:
    errors = standard_errors(truth_RC, scores_RC, group_R)
    return summarise(truth_RC, scores_RC) | {f"{name}_se": value for name, value in errors.items() if not np.isnan(value)}


def train_head(
    task: StageTask,
    data: TrainingData,
    store: StageStore,
    device: torch.device,
    *,
    stop: Stop = never,
    on_note: Callable[[str], None] = lambda note: None,
    on_earlier: Callable[[Sequence[EpochMetrics]], None] = ignore_epochs,
    trained_by: str = "",
    soundscapes_at: Collection[int] = (),
) -> Iterator[EpochMetrics]:
    """Train a head on the embeddings of `task.embeddings_id`, yield after every epoch, and publish it with its report after the last one.

    A checkpoint is written after each epoch, and an interrupted epoch begins again. `on_earlier` is called with the epochs that the head
    goes on from. Labelled soundscapes are scored at the end, and after the epochs of `soundscapes_at` (counted from 1). Raises StoreError
    when the embeddings or the head that it starts from are not in the store, TrainingError for a loss that is not finite, and StageInterrupted when `stop` gives a reason.
    """
    assert task.embeddings_id is not None
    entry, config = store.open(task.embeddings_id), task.config
    if entry is None:
        raise StoreError(f"Stage {config.name} is trained on {task.embeddings_id[:12]}, which is not in the store.")
    stage = HeadStage(config, task.model, data, Embeddings.load(entry.folder), device)
    groups: dict[str, State] = {}
    groups, counters = store.latest_epoch_checkpoint(task.stage_id, load_training_state) or (groups, StageCounters())
    if groups:
        load_state(stage.head, groups["model"])
    elif task.parent_id is not None:
        parent = store.open(task.parent_id)
        if parent is None:
            raise StoreError(f"Stage {config.name} starts from {task.parent_id[:12]}, which is not in the store.")
        counters.origin = stage.start_from(parent)
    load_optimizer_state(stage.optimizer, groups.get("optimizer", {}))
    candidate = CandidateWeights(stage.head, config, counters, groups)
    on_earlier(counters.history)
    for epoch in range(counters.epoch, config.epochs):
        started = time.perf_counter()
        loss = stage.train(epoch, candidate, stop)
        trained_s = time.perf_counter() - started
        candidate.after_epoch(epoch)
        with candidate.in_model():
            score_RC = stage.scores()
        scores = stage.summary(score_RC)
        is_last = candidate.judge(epoch, scores.get("cmap", np.nan)) or epoch + 1 == config.epochs
        if is_last and candidate.take_best(epoch):
            score_RC = stage.scores()
        if is_last:
            scores = stage.summary(score_RC, errors=True)
        if is_last or epoch + 1 in soundscapes_at:
            with candidate.in_model():
                scores |= stage.soundscape_scores(data)
        seconds = time.perf_counter() - started
        metrics = EpochMetrics(
            epoch=epoch + 1,
            is_last=is_last,
            train_loss=loss,
            learning_rate=learning_rate(config, epoch, stage.num_steps - 1, stage.num_steps),
            clips_per_s=stage.num_steps * config.batch_size / trained_s,
            waited_s=0.0,
            device_s=trained_s,
            evaluate_s=seconds - trained_s,
            epoch_s=seconds,
            memory_bytes=0,
            bottleneck="",
            waits_for_data=False,
            scores=scores,
            time_s=time.time(),
        )
        counters.epoch, counters.checkpoints = epoch + 1, epoch + 1
        counters.cost_s += seconds
        counters.history.append(metrics)
        if is_last:
            made = partial(_record, task, stage, counters, trained_by)
            with candidate.in_model(), store.publish(made, task.stage_id) as folder:
                save_file({name: tensor.contiguous() for name, tensor in stage.head.state_dict().items()}, folder / WEIGHTS)
                write_stage_report(folder, _outcome(made(), task, stage, data, score_RC), on_note)
        else:
            own: dict[str, State] = {"model": stage.head.state_dict(), "optimizer": optimizer_state(stage.optimizer)}
            with store.save_epoch_checkpoint(task.stage_id, counters.checkpoints) as folder:
                save_training_state(folder, own | candidate.groups(), counters)
        yield metrics
        if is_last:
            return


def _record(task: StageTask, stage: HeadStage, counters: StageCounters, trained_by: str) -> StageRecord:
    return StageRecord(
        stage_id=task.stage_id,
        parent_id=task.parent_id,
        recipe=task.recipe,
        stage=task.config.name,
        identity=task.identity,
        species=list(stage.space.species),
        metrics=counters.history[-1].scores,
        history=[asdict(metrics) for metrics in counters.history],
        cost_s=counters.cost_s,
        surgery="; ".join(
            [f"a head on {stage.made.embedding_WD.shape[1]} numbers of a window", *filter(None, [counters.origin])]
        ),
        environment=environment(stage.device),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        trained_by=trained_by,
    )


def _outcome(
    record: StageRecord, task: StageTask, stage: HeadStage, data: TrainingData, score_RC: NDArray[np.float64]
) -> StageOutcome:
    front = MelSpectrogram(task.model.spectrogram)

    def spectrogram(row: int) -> tuple[NDArray[np.float32], float]:
        wave_T = data.beginning(int(stage.rows_R[row]))
        db_BFN = front.mel_db(to_float(torch.from_numpy(wave_T)[None], torch.device("cpu")))
        return db_BFN[0].numpy(), len(wave_T) / SAMPLE_RATE_HZ

    return StageOutcome(
        record=record,
        model=task.model,
        config=task.config,
        recordings=data.dataset.recordings.iloc[stage.rows_R],
        truth_RC=stage.truth_RC,
        score_RC=score_RC,
        spectrogram=spectrogram,
    )
