"""Makes a stage of predictions: one or several trained stages hear windows of sound, and their logits are kept.

Shapes: W windows in all, C species.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from birdclef_core.data.wave_cache import WaveCache
from birdclef_core.data.windows import EvaluationWindows, PredictionWindows, window_grid
from birdclef_core.errors import DataError, FileContentError, StoreError
from birdclef_core.evaluation.metrics import summarise
from birdclef_core.stages.environment import environment
from birdclef_core.stages.epochs import EpochMetrics, metrics_of_hearing
from birdclef_core.stages.interruption import StageInterrupted, Stop, never
from birdclef_core.stages.precision import Arithmetic
from birdclef_core.stages.scoring import Scorer
from birdclef_core.stages.task import StageTask
from birdclef_core.stages.teachers.predictions import Predictions
from birdclef_core.stages.teachers.together import Together
from birdclef_core.stages.training_data import TrainingData
from birdclef_core.store.stage_store import StageEntry, StageRecord, StageStore
from birdclef_core.taxonomy import LabelSpace

AT_ONCE = 2048
"""Windows between two looks at the clock for a checkpoint."""
CPU_BATCH_SIZE = 8
"""Windows that go through a network at once on a CPU, where more of them leave its cache: docs/benchmarks/teachers.md."""
_DONE = "logits.safetensors"


def predict_stage(
    task: StageTask,
    data: TrainingData,
    store: StageStore,
    device: torch.device,
    *,
    stop: Stop = never,
    on_note: Callable[[str], None] = lambda note: None,
    trained_by: str = "",
) -> Iterator[EpochMetrics]:
    """Make the predictions of the task's teachers, publish them, and yield once, as after the only epoch of a stage.

    The scores are those of the teacher; of several together, they are computed on the validation recordings. Predictions of recordings
    are of the training recordings alone. A head on embeddings hears with the encoder of these, by clips of the encoder's length (see
    `clips_of`). An interrupted stage continues with the windows that are left.

    Raises StoreError when a teacher or the embeddings of a head are not in the store or a teacher has none of the species of another,
    InputError when the encoder of a head was not kept or cannot be run, DataError when there is nothing to hear, and StageInterrupted when
    `stop` gives a reason, after what has been done was saved.
    """
    started = time.perf_counter()
    entries = [_teacher(store, task, stage_id) for stage_id, _ in task.teachers]
    weights = [weight for _, weight in task.teachers]
    model, species = Together.of_stages(store, entries, weights, task.config.clip_samples, device)
    arithmetic = Arithmetic(task.config.precision, device)  # after the teachers: the last one sets the switches of TF32
    cache, rows_R = _heard(task, data)
    row_W, start_W = window_grid(
        np.array([cache.num_samples(int(row)) for row in rows_R], np.int64), rows_R, task.config.clip_samples
    )
    if not len(row_W):
        raise DataError(f"Stage {task.config.name} must have at least one window to predict, but none could be decoded.")
    job = _Job(task, store, model, arithmetic, device, cache, row_W, start_W, len(species))
    logits_WC = job.run(stop)
    heard_s = time.perf_counter() - started
    scores = entries[0].record.metrics if len(entries) == 1 else _scores(task, data, model, species, arithmetic, device)
    now_s = time.perf_counter() - started
    metrics = metrics_of_hearing(
        len(row_W), heard_s=heard_s, evaluate_s=now_s - heard_s, all_s=job.earlier_s + now_s, scores=scores
    )

    def record() -> StageRecord:
        return StageRecord(
            stage_id=task.stage_id,
            parent_id=task.parent_id,
            recipe=task.recipe,
            stage=task.config.name,
            identity=task.identity,
            species=list(species.species),
            metrics=scores,
            history=[asdict(metrics)],
            cost_s=metrics.epoch_s,
            surgery=f"{len(row_W):,} windows of {task.config.clip_s:g} s in {len(np.unique(row_W)):,} files, heard by {len(entries)}",
            environment=environment(device),
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            trained_by=trained_by,
        )

    with store.publish(record, task.stage_id) as folder:
        Predictions(
            row_W=row_W, start_W=start_W, window_samples=task.config.clip_samples, logits_WC=logits_WC.astype(np.float16)
        ).save(folder)
    yield metrics


class _Job:
    """The windows of a stage of predictions, some of which may be done."""

    def __init__(
        self,
        task: StageTask,
        store: StageStore,
        model: Together,
        arithmetic: Arithmetic,
        device: torch.device,
        cache: WaveCache,
        row_W: np.ndarray,
        start_W: np.ndarray,
        num_species: int,
    ) -> None:
        self._task, self._store, self._model, self._arithmetic, self._device = task, store, model, arithmetic, device
        self._cache, self._row_W, self._start_W, self._num_species = cache, row_W, start_W, num_species
        most = task.config.evaluation_batch_size
        self._batch_size = min(most, CPU_BATCH_SIZE) if device.type == "cpu" else most
        self.earlier_s = 0.0
        """Seconds that earlier attempts took."""

    def run(self, stop: Stop) -> np.ndarray:
        """Return the logits of all windows."""
        parts, number = self._done()
        started = saved = time.monotonic()
        done = sum(map(len, parts))
        where = f"stage {self._task.config.name}"
        while done < len(self._row_W):
            part = slice(done, done + AT_ONCE)
            windows = PredictionWindows(
                self._cache,
                self._row_W[part],
                self._start_W[part],
                self._task.config.clip_samples,
                num_species=self._num_species,
                batch_size=self._batch_size,
                side=self._model.side,
            )
            try:
                logits = Scorer(self._model, windows, self._arithmetic, self._device).logits(where, stop)  # type: ignore[arg-type]
            except StageInterrupted:
                self._save(parts, number + 1, time.monotonic() - started)
                raise
            parts.append(logits.cpu().numpy())
            done += len(parts[-1])
            if done < len(self._row_W) and time.monotonic() - saved >= self._task.config.checkpoint_every_s:
                number, saved = number + 1, time.monotonic()
                self._save(parts, number, saved - started)
        return np.concatenate(parts)

    def _done(self) -> tuple[list[np.ndarray], int]:
        found = self._store.latest_epoch_checkpoint(self._task.stage_id, _read)
        if found is None:
            return [], 0
        logits_WC, number, self.earlier_s = found
        return [logits_WC], number

    def _save(self, parts: list[np.ndarray], number: int, seconds: float) -> None:
        if not parts:
            return
        with self._store.save_epoch_checkpoint(self._task.stage_id, number) as folder:
            state = np.array([number, self.earlier_s + seconds])
            save_file({"logits": np.concatenate(parts), "state": state}, folder / _DONE)


def _read(folder: Path) -> tuple[np.ndarray, int, float]:
    try:
        arrays = load_file(folder / _DONE)
        return arrays["logits"], int(arrays["state"][0]), float(arrays["state"][1])
    except (OSError, KeyError, ValueError) as error:
        raise FileContentError(str(folder / _DONE), str(error)) from None


def _heard(task: StageTask, data: TrainingData) -> tuple[WaveCache, np.ndarray]:
    """The cache of what is heard, and its rows."""
    if task.config.predicts_on == "recordings":
        return data.cache, np.flatnonzero(~data.dataset.recordings["is_validation"].to_numpy())
    cache = data.unlabelled_cache
    return cache, np.arange(len(cache.recording_samples))


def _teacher(store: StageStore, task: StageTask, stage_id: str) -> StageEntry:
    entry = store.open(stage_id)
    if entry is None:
        raise StoreError(f"Stage {task.config.name} makes predictions of {stage_id[:12]}, which is not in the store.")
    return entry


def _scores(
    task: StageTask, data: TrainingData, model: Together, species: LabelSpace, arithmetic: Arithmetic, device: torch.device
) -> dict[str, float]:
    """Scores of several teachers together on the validation recordings; empty where all recordings train."""
    config = task.config
    windows = EvaluationWindows(
        data.dataset, data.cache, species, config.clip_s, batch_size=config.evaluation_batch_size, side=model.side
    )
    if not len(windows.rows_R):
        return {}
    scorer = Scorer(model, windows, arithmetic, device)  # type: ignore[arg-type]
    return summarise(windows.truth_RC, scorer.scores(f"stage {config.name}"))
