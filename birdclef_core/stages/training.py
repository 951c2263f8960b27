"""Trains one stage: from its parent's weights (or an encoder's) to a published stage, one epoch at a time.

Every random number comes from stage seed, epoch and step, so an interrupted stage that continues computes the same as one that was
not interrupted.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

import numpy as np
import torch
from safetensors.torch import save_file

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.data.clip_windows import ClipWindows, labelled_windows
from birdclef_core.data.dataset import TRAINING_SOUNDSCAPES_NAME
from birdclef_core.data.feed import TrainFeed
from birdclef_core.data.prefetch import READER_THREADS
from birdclef_core.data.windows import EvaluationWindows, SoundscapeWindows, Windows
from birdclef_core.errors import DataError, StoreError
from birdclef_core.evaluation.jackknife import standard_errors
from birdclef_core.evaluation.metrics import summarise
from birdclef_core.models.detector import Detector
from birdclef_core.reports.bottleneck import bottleneck_line
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
from birdclef_core.stages.compilation import compile_if_faster
from birdclef_core.stages.embeddings.embedding import embed_stage
from birdclef_core.stages.embeddings.head import train_head
from birdclef_core.stages.environment import environment
from birdclef_core.stages.epochs import EpochMetrics, LossLog, StageCounters, ignore_epochs
from birdclef_core.stages.initial_model import initial_model
from birdclef_core.stages.interruption import StageInterrupted, Stop, never
from birdclef_core.stages.optimizers import build_optimizer, set_learning_rate
from birdclef_core.stages.precision import Arithmetic
from birdclef_core.stages.schedule import learning_rate, num_frozen_blocks, step_seed
from birdclef_core.stages.scoring import Scorer
from birdclef_core.stages.task import StageTask
from birdclef_core.stages.teachers.predicting import predict_stage
from birdclef_core.stages.teachers.student import predicted_windows
from birdclef_core.stages.throughput import EpochMeter, Throughput, peak_memory_bytes, reset_peak_memory
from birdclef_core.stages.training_data import TrainingData
from birdclef_core.stages.training_step import TrainingStep, to_float
from birdclef_core.store.stage_store import WEIGHTS, StageRecord, StageStore
from birdclef_core.taxonomy import SOUNDSCAPES

EARLY_STOP_SCORE = "cmap"
"""The score on validation recordings that decides on an early stop, in the stage's own label space.

It is not the objective of a sweep: a stage is shared by sweeps with different objectives, so its result depends on none of them."""


def _say_nothing(note: str) -> None:
    return None


def train_stage(
    task: StageTask,
    data: TrainingData,
    store: StageStore,
    device: torch.device,
    *,
    stop: Stop = never,
    on_note: Callable[[str], None] = _say_nothing,
    on_earlier: Callable[[Sequence[EpochMetrics]], None] = ignore_epochs,
    trained_by: str = "",
    soundscapes_at: Collection[int] = (),
) -> Iterator[EpochMetrics]:
    """Train the stage, yield after every epoch, and publish it after the last one; a stage with teachers is made as by `predict_stage`.

    A checkpoint is written before each yield, and at intervals within long epochs. If there is one at the start, the stage continues
    from it. The published weights are those of the last epoch, unless the config asks for an average or an early stop: the schedule
    of the learning rate ends there, and a score by which an epoch was chosen would be too optimistic.

    `stop` is called after every step. `on_note` is called with what the user should know, such as too little memory. `on_earlier` is
    called before the first yield with the epochs that the stage goes on from, whoever has trained them. `trained_by` is kept in the
    stage's record. Labelled soundscapes are scored at the end of the stage, and after the epochs of `soundscapes_at` (counted from 1),
    which changes nothing else.

    Data without validation recordings (`Dataset.all_training`) give a stage without scores, and without a report of them.

    Raises TrainingError for a loss that is not finite, StoreError when the parent is not in the store, and StageInterrupted when
    `stop` gives a reason, after the checkpoint has been written.
    """
    if task.config.embeds:
        return embed_stage(task, data, store, device, stop=stop, trained_by=trained_by)
    if task.embeddings_id is not None:
        return train_head(
            task,
            data,
            store,
            device,
            stop=stop,
            on_note=on_note,
            on_earlier=on_earlier,
            trained_by=trained_by,
            soundscapes_at=soundscapes_at,
        )
    if task.teachers:
        return predict_stage(task, data, store, device, stop=stop, on_note=on_note, trained_by=trained_by)
    training = _StageTraining(task, data, store, device, stop, on_note, trained_by, soundscapes_at)
    on_earlier(training.counters.history)
    return training.run()


class _StageTraining:
    """A stage in training."""

    def __init__(
        self,
        task: StageTask,
        data: TrainingData,
        store: StageStore,
        device: torch.device,
        stop: Stop,
        on_note: Callable[[str], None],
        trained_by: str,
        soundscapes_at: Collection[int],
    ) -> None:
        self.task, self.data, self.store, self.device = task, data, store, device
        self.stop, self.on_note, self.trained_by, self.soundscapes_at = stop, on_note, trained_by, soundscapes_at
        self.config = task.config
        self.space = data.label_space(task.config)
        self.arithmetic = Arithmetic(self.config.precision, device)
        checkpoint = store.latest_epoch_checkpoint(task.stage_id, load_training_state)
        groups: dict[str, State] = {}
        if checkpoint is None:
            self.model, origin = self._start()
            self.counters = StageCounters(origin=origin)
        else:
            self.model, _ = initial_model(task.model, self.config, self.space, device)
            groups, self.counters = checkpoint
            load_state(self.model, groups["model"])
        self.optimizer = build_optimizer(self.model, self.config)
        load_optimizer_state(self.optimizer, groups.get("optimizer", {}))
        self.step = TrainingStep(self.model, self.optimizer, self.config, self.arithmetic, device, on_note=on_note)
        self.step.micro_batch_size = self.counters.micro_batch_size or self.step.micro_batch_size
        self.model.compile_encoder(bool(self.counters.compiled))
        self.candidate = CandidateWeights(self.model, self.config, self.counters, groups)
        self.losses: LossLog | None = None
        self.earlier_losses = groups.get("epoch", {}).get("losses")
        self.saved_at = time.monotonic()

    def _start(self) -> tuple[Detector, str]:
        task, parent = self.task, None
        if task.parent_id is not None:
            parent = self.store.open(task.parent_id)
            if parent is None:
                raise StoreError(f"Stage {self.config.name} starts from {task.parent_id[:12]}, which is not in the store.")
        return initial_model(task.model, self.config, self.space, self.device, pretrained=task.pretrained, parent=parent)

    def run(self) -> Iterator[EpochMetrics]:
        dataset, cache, config = self.data.dataset, self.data.cache, self.config
        windows = EvaluationWindows(dataset, cache, self.space, config.clip_s, batch_size=config.evaluation_batch_size)
        scorer = Scorer(self.model, windows, self.arithmetic, self.device)
        floats = self.device.type == "cpu"
        with TrainFeed(dataset, cache, self.space, config, windows=list(self._clip_windows()), floats=floats) as feed:
            for epoch in range(self.counters.epoch, config.epochs):
                metrics, scores_RC = self._epoch(feed, scorer, windows, epoch)
                if metrics.is_last:
                    self._publish(windows, scores_RC)
                else:
                    self._save_checkpoint()
                yield metrics
                if metrics.is_last:
                    return

    def _clip_windows(self) -> Iterator[ClipWindows]:
        """What clips are drawn from besides the recordings."""
        task, data, config = self.task, self.data, self.config
        if task.predictions_id is not None:
            predictions = self.store.open(task.predictions_id)
            if predictions is None:
                raise StoreError(f"Stage {config.name} learns from {task.predictions_id[:12]}, which is not in the store.")
            yield predicted_windows(config, data, self.space, predictions)
        if config.soundscape_share:
            soundscapes, cache = data.dataset.training_soundscapes, data.training_soundscape_cache
            if soundscapes is None or cache is None:
                raise DataError(
                    f"soundscape_share of stage {config.name} is {config.soundscape_share:g}, but no labelled soundscape of "
                    f"{data.dataset.root} is for training: name some in {TRAINING_SOUNDSCAPES_NAME}, which then score nothing."
                )
            yield labelled_windows(soundscapes, cache, self.space, config.soundscape_share)

    def _epoch(self, feed: TrainFeed, scorer: Scorer, windows: EvaluationWindows, epoch: int) -> tuple[EpochMetrics, np.ndarray]:
        """Train and score an epoch, and count it as done."""
        counters, config = self.counters, self.config
        spent_before_s, started = counters.under_way.train_s, time.perf_counter()
        reset_peak_memory(self.device)
        loss, throughput = self._train(feed, epoch)
        self.candidate.after_epoch(epoch)
        evaluate_from = time.perf_counter()
        scores_RC = self._score(scorer, epoch)
        scores = _summary(windows, scores_RC)
        is_last = self.candidate.judge(epoch, scores.get(EARLY_STOP_SCORE, np.nan)) or epoch + 1 == config.epochs
        if is_last and self.candidate.take_best(epoch):
            scores_RC = scorer.scores(f"epoch {counters.best_epoch} of stage {config.name}")
            scores = _summary(windows, scores_RC)
        if is_last and scores:
            scores |= _errors(windows, scores_RC)
        if is_last or epoch + 1 in self.soundscapes_at:
            scores |= self._soundscape_scores()
        metrics = EpochMetrics(
            epoch=epoch + 1,
            is_last=is_last,
            train_loss=loss,
            learning_rate=learning_rate(config, epoch, feed.num_batches - 1, feed.num_batches),
            clips_per_s=throughput.clips_per_s,
            waited_s=throughput.waited_s,
            device_s=throughput.device_s,
            evaluate_s=time.perf_counter() - evaluate_from,
            epoch_s=spent_before_s + time.perf_counter() - started,
            memory_bytes=peak_memory_bytes(self.device),
            bottleneck=bottleneck_line(
                waited_share=throughput.waited_s / throughput.train_s,
                waits_for_data=throughput.waits_for_data,
                gpu_share=throughput.device_s / throughput.train_s if self.device.type == "cuda" else None,
                reader_share=throughput.reader_s / (READER_THREADS * throughput.train_s),
                precision=config.precision,
            ),
            waits_for_data=throughput.waits_for_data,
            scores=scores,
            time_s=time.time(),
        )
        counters.epoch, counters.step, counters.under_way = epoch + 1, 0, Throughput()
        counters.cost_s += metrics.epoch_s
        counters.history.append(metrics)
        self.losses = None
        return metrics, scores_RC

    def _train(self, feed: TrainFeed, epoch: int) -> tuple[float, Throughput]:
        """Train an epoch from the current step on. Return its mean loss and its throughput."""
        config, counters = self.config, self.counters
        if config.thaw_every:
            self.model.freeze_blocks(num_frozen_blocks(config, epoch, len(self.model.layer_groups())))
        where = f"stage {config.name}, epoch {epoch + 1}"
        self.losses, self.earlier_losses = LossLog(feed.clip_names, where, feed.num_batches, self.earlier_losses), None
        self.model.train()
        first_step = counters.step
        meter = EpochMeter(feed, self.device, counters.under_way)

        def so_far() -> Throughput:
            return meter.so_far((counters.step - first_step) * config.batch_size)

        for batch in feed.epoch(epoch, first_step):
            if config.compile_encoder and counters.compiled is None:
                counters.compiled = compile_if_faster(self.model, self.step, batch, self.on_note)
            with meter.clock.step():
                set_learning_rate(self.optimizer, learning_rate(config, epoch, counters.step, feed.num_batches))
                loss = self.step(batch, step_seed(config, epoch, counters.step))
                self.candidate.after_step(epoch * feed.num_batches + counters.step)
            self.losses.add(loss, batch.rows_B)
            counters.step += 1
            reason = self.stop()
            if reason or time.monotonic() - self.saved_at >= config.checkpoint_every_s:
                counters.under_way = so_far()
                self._save_checkpoint()
            if reason:
                raise StageInterrupted(
                    f"Stage {config.name} was interrupted in epoch {epoch + 1}, step {counters.step}: {reason}"
                )
        # The only wait for the device in an epoch: losses stay on the device until here.
        mean_loss = float(self.losses.all().mean())
        counters.under_way = so_far()
        return mean_loss, counters.under_way

    def _score(self, scorer: Scorer, epoch: int) -> np.ndarray:
        """Probabilities with the weights that would be published now."""
        try:
            with self.candidate.in_model():
                return scorer.scores(f"epoch {epoch + 1} of stage {self.config.name}", self.stop)
        except StageInterrupted:
            self._save_checkpoint()
            raise

    def _soundscape_scores(self) -> dict[str, float]:
        """Scores of the weights that would be published now on labelled windows of soundscapes, as `soundscapes/...`; each window is
        scored alone.

        `num_windows_without_birds` counts those in which no species of the label space is heard: they are false for every species,
        and are left out where species are ranked within a window (`lrap`). Empty if there are no windows, none has a target species,
        or the stage learns another label space.
        """
        data, config = self.data, self.config
        if data.dataset.soundscapes is None or data.soundscape_cache is None or config.label_space != "target":
            return {}
        windows = SoundscapeWindows(
            data.dataset.soundscapes, data.soundscape_cache, self.space, batch_size=config.evaluation_batch_size
        )
        if not windows.truth_RC.any():
            return {}
        with self.candidate.in_model():
            scorer = Scorer(self.model, windows, self.arithmetic, self.device)
            scores_RC = scorer.scores(f"stage {config.name}, on soundscapes")
        scores = summarise(windows.truth_RC, scores_RC) | _errors(windows, scores_RC)
        scores["num_windows"] = scores.pop("num_recordings")
        scores["num_windows_without_birds"] = float((~windows.truth_RC.any(axis=1)).sum())
        return {f"{SOUNDSCAPES}{name}": value for name, value in scores.items()}

    def _save_checkpoint(self) -> None:
        """Write a checkpoint. Raises TrainingError, and writes none, when a loss was not finite."""
        counters = self.counters
        counters.checkpoints += 1
        counters.micro_batch_size = self.step.micro_batch_size
        groups: dict[str, State] = {"model": self.model.state_dict(), "optimizer": optimizer_state(self.optimizer)}
        groups |= self.candidate.groups()
        if self.losses is not None:
            groups["epoch"] = {"losses": self.losses.all()}
        with self.store.save_epoch_checkpoint(self.task.stage_id, counters.checkpoints) as folder:
            save_training_state(folder, groups, counters)
        self.saved_at = time.monotonic()

    def _publish(self, windows: EvaluationWindows, scores_RC: np.ndarray) -> None:
        recordings = self.data.dataset.recordings.iloc[windows.rows_R]
        with self.candidate.in_model(), self.store.publish(self._record, self.task.stage_id) as folder:
            save_file({name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}, folder / WEIGHTS)
            outcome = StageOutcome(
                record=self._record(),
                model=self.task.model,
                config=self.config,
                recordings=recordings,
                truth_RC=windows.truth_RC,
                score_RC=scores_RC,
                spectrogram=lambda row: self._spectrogram(int(windows.rows_R[row])),
            )
            write_stage_report(folder, outcome, self.on_note)

    @torch.inference_mode()
    def _spectrogram(self, row: int) -> tuple[np.ndarray, float]:
        """Spectrogram db_FN of the beginning of a recording, and its seconds."""
        wave_T = self.data.beginning(row)
        db_BFN = self.model.spectrogram.mel_db(to_float(torch.from_numpy(wave_T)[None], self.device))
        return db_BFN[0].cpu().numpy(), len(wave_T) / SAMPLE_RATE_HZ

    def _record(self) -> StageRecord:
        counters = self.counters
        computed_with = {"micro_batch_size": str(self.step.micro_batch_size), "torch_compile": str(bool(counters.compiled))}
        return StageRecord(
            stage_id=self.task.stage_id,
            parent_id=self.task.parent_id,
            recipe=self.task.recipe,
            stage=self.config.name,
            identity=self.task.identity,
            species=list(self.space.species),
            metrics=counters.history[-1].scores,
            history=[asdict(metrics) for metrics in counters.history],
            cost_s=counters.cost_s,
            surgery=counters.origin,
            environment=environment(self.device) | computed_with,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            trained_by=self.trained_by,
        )


def _summary(windows: EvaluationWindows, scores_RC: np.ndarray) -> dict[str, float]:
    """Scores of the validation recordings; empty where all recordings train."""
    return summarise(windows.truth_RC, scores_RC) if len(windows.rows_R) else {}


def _errors(windows: Windows, scores_RC: np.ndarray) -> dict[str, float]:
    """Standard errors of the scores, each under the score's name and `_se`, without those that nobody can know, as of one author."""
    errors = standard_errors(windows.truth_RC, scores_RC, windows.group_R)
    return {f"{name}_se": error for name, error in errors.items() if not np.isnan(error)}
