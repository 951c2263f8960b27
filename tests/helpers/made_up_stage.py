"""A stage whose training takes milliseconds and is counted outside of everything that a crash might confuse: each epoch that is
begun and each stage that is published is a line, synced to the disk, in a file of its own.
"""

import hashlib
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from birdclef_core.errors import StoreError
from birdclef_core.json_files import from_json, to_json
from birdclef_core.stages.epochs import EpochMetrics, ignore_epochs
from birdclef_core.stages.interruption import StageInterrupted, Stop, never
from birdclef_core.stages.task import StageTask
from birdclef_core.store.stage_store import WEIGHTS, StageRecord, StageStore

PROGRESS = "progress.json"
NO_DATA: Any = SimpleNamespace(of_fold=lambda fold: NO_DATA)
"""Made-up stages read no recordings, whichever fold validates."""


@dataclass(frozen=True)
class ExecutionLog:
    """What was executed, whoever remembers it."""

    path: Path

    def write(self, what: str, stage_id: str, epoch: int) -> None:
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(file, f"{what} {stage_id} {epoch} {os.getpid()}\n".encode())
        os.fsync(file)
        os.close(file)

    def count(self, what: str) -> Counter[tuple[str, int]]:
        """How often, by stage id and epoch."""
        lines = [line.split() for line in self.path.read_text().splitlines()] if self.path.exists() else []
        return Counter((stage_id, int(epoch)) for kind, stage_id, epoch, _ in lines if kind == what)


@dataclass(kw_only=True)
class Progress:
    """What an epoch checkpoint holds."""

    weights: str
    cost_s: float = 0.0
    history: list[EpochMetrics] = field(default_factory=list)


@dataclass(frozen=True)
class MadeUpStage:
    """Stands for `train_stage`: the same store, checkpoints, reports and interruptions, and "weights" that are the hash of every
    epoch, parent and teacher behind them, so that a stage put together from the wrong pieces is seen."""

    log: ExecutionLog
    epoch_s: float = 0.004

    def __call__(
        self,
        task: StageTask,
        data: object,
        store: StageStore,
        device: object,
        *,
        stop: Stop = never,
        on_note: Callable[[str], None] = print,
        on_earlier: Callable[[Sequence[EpochMetrics]], None] = ignore_epochs,
        trained_by: str = "",
        soundscapes_at: Collection[int] = (),
    ) -> Iterator[EpochMetrics]:
        progress = self._start(task, store)
        on_earlier(progress.history)
        for epoch in range(len(progress.history) + 1, task.config.epochs + 1):
            self.log.write("epoch", task.stage_id, epoch)
            started = time.perf_counter()
            slow = 20 if random.random() < 0.1 else 1
            for _ in range(3):
                time.sleep(random.uniform(0, self.epoch_s) * slow)
                if reason := stop():
                    raise StageInterrupted(reason)
            progress.weights = one_epoch(progress.weights, task.stage_id, epoch)
            metrics = _metrics(task, epoch, progress.weights, time.perf_counter() - started)
            progress.cost_s += metrics.epoch_s
            progress.history.append(metrics)
            if metrics.is_last:
                self._publish(task, store, progress, trained_by)
            else:
                with store.save_epoch_checkpoint(task.stage_id, epoch) as folder:
                    (folder / PROGRESS).write_text(to_json(progress))
            yield metrics

    def _start(self, task: StageTask, store: StageStore) -> Progress:
        checkpoint = store.latest_epoch_checkpoint(
            task.stage_id, lambda folder: from_json(Progress, (folder / PROGRESS).read_bytes(), file=PROGRESS)
        )
        if checkpoint is not None:
            return checkpoint
        needed = {stage_id: store.open(stage_id) for stage_id in task.needs}
        for stage_id, entry in needed.items():
            if entry is None:
                raise StoreError(f"{stage_id}, which stage {task.config.name} needs, is not in the store.")
        return Progress(weights="+".join((entry.folder / WEIGHTS).read_text() for entry in needed.values()))

    def _publish(self, task: StageTask, store: StageStore, progress: Progress, trained_by: str) -> None:
        def record() -> StageRecord:
            return StageRecord(
                stage_id=task.stage_id,
                parent_id=task.parent_id,
                recipe=task.recipe,
                stage=task.config.name,
                identity=task.identity,
                species=["x"],
                metrics=scores_of(progress.weights),
                history=[asdict(metrics) for metrics in progress.history],
                cost_s=progress.cost_s,
                surgery="",
                environment={"device": "cpu"},
                finished_at="2026-11-22T12:00:00+00:00",
                trained_by=trained_by,
            )

        with store.publish(record, task.stage_id) as folder:
            (folder / WEIGHTS).write_text(progress.weights)
        self.log.write("published", task.stage_id, task.config.epochs)


def one_epoch(weights: str, stage_id: str, epoch: int) -> str:
    return hashlib.sha256(f"{weights}/{stage_id}/{epoch}".encode()).hexdigest()


def weights_of(chain: tuple[StageTask, ...]) -> str:
    """What the last stage of a chain must be, however often it was interrupted."""
    of: dict[str, str] = {}
    for task in chain:
        weights = "+".join(of[stage_id] for stage_id in task.needs)
        for epoch in range(1, task.config.epochs + 1):
            weights = one_epoch(weights, task.stage_id, epoch)
        of[task.stage_id] = weights
    return weights


def score_of(weights: str) -> float:
    return int(weights[:8], 16) / 2**32


def scores_of(weights: str) -> dict[str, float]:
    return dict.fromkeys(("cmap_pad5", "cmap_pad3", "cmap", "cmap_chance", "lrap", "auroc"), score_of(weights))


def _metrics(task: StageTask, epoch: int, weights: str, epoch_s: float) -> EpochMetrics:
    return EpochMetrics(
        epoch=epoch,
        is_last=epoch == task.config.epochs,
        train_loss=1.0,
        learning_rate=1e-3,
        clips_per_s=1.0,
        waited_s=0.0,
        device_s=epoch_s,
        evaluate_s=0.0,
        epoch_s=epoch_s,
        memory_bytes=0,
        bottleneck="",
        waits_for_data=False,
        scores=scores_of(weights),
        time_s=time.time(),
    )
