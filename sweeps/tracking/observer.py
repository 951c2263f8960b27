"""Turns what happens in a sweep into events for the tracker: which trial trained which stage, from what, with what result."""

import logging
import math
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import cast

from birdclef_core.config import Recipe, StageConfig, flatten
from birdclef_core.store.leakage import Leak
from birdclef_core.store.patience import StorageAway
from birdclef_core.store.stage_store import StageStore
from sweeps.checkpoints.lineage import lineage_page, trace
from sweeps.objective import Objective, Score
from sweeps.schedule.coordinator import Observer
from sweeps.schedule.records import TrialRecord
from sweeps.schedule.trials import Trial
from sweeps.schedule.update import EpochPoint, TrialUpdate
from sweeps.search.chains import first_replicate
from sweeps.search.parameters import Parameter
from sweeps.search.recipe_space import parameters_of
from sweeps.tracking.events import (
    LEARNS_FROM,
    OBJECTIVE,
    OBJECTIVE_ERROR,
    CheckpointUsed,
    EpochFinished,
    StageFinished,
    StageStarted,
    Tracker,
    TrialFinished,
    TrialStarted,
    TrialStatus,
    part_of,
)

_log = logging.getLogger(__name__)

COPIES_S = 30.0
REMEMBERED_RECORDS = 256
"""Number of stage records kept in memory for pictures of lineages: most trials share a few prefixes."""


class TrackingObserver(Observer):
    """Sends trials, executions of stages and checkpoints to a tracker."""

    def __init__(
        self,
        tracker: Tracker,
        store: StageStore,
        sweep_dir: Path,
        *,
        space: Mapping[str, Parameter],
        tags: Mapping[str, str],
        objective: Objective,
    ) -> None:
        """`space`: the search's parameters, by whose values trials are compared. `objective`: what they are compared by."""
        self._tracker, self._store, self._sweep_dir = tracker, store, sweep_dir
        self._space, self._tags, self._objective = dict(space), dict(tags), objective
        self._open: dict[str, tuple[str, str]] = {}
        """The execution and stage id of the stage that a trial is training, by trial."""
        self._told: dict[str, int] = {}
        """The last epoch that this driver has told of, by execution, until that has published its stage."""
        self._stage_names: dict[str, str] = {}
        self._copying: list[threading.Thread] = []
        self._record_of = lru_cache(maxsize=REMEMBERED_RECORDS)(store.record)

    def trial_started(self, trial: Trial) -> None:
        record = trial.record
        trained = Recipe(
            name=record.recipe, model=trial.chain[0].model, stages=tuple(task.config for task in first_replicate(trial.chain))
        )
        params = {"recipe": record.recipe, **parameters_of(trained, self._space)}
        tags = {**self._tags, "birdclef.recipe": record.recipe, "birdclef.encoder": trial.chain[0].model.encoder}
        self._tracker.log(TrialStarted(trial=record.trial, params=params, tags=tags))
        if start := trial.chain[0].parent_id:
            self._tracker.log(
                CheckpointUsed(
                    trial=record.trial, stage_id=start, stage=self._stage_name(start), checkpoint_uri=self._checkpoint_uri(start)
                )
            )

    def updated(self, trial: Trial, update: TrialUpdate) -> None:
        if update.kind == "reused":
            self._checkpoint_used(trial, update)
        else:
            own = EpochPoint(epoch=update.epoch, metrics=update.metrics, time_s=update.time_s)
            self._epochs(trial, update, [*update.earlier, own] if update.kind == "epoch" else update.earlier)
            if update.stage_done:
                self._published(trial, update)

    def stage_recovered(self, trial: Trial, update: TrialUpdate) -> None:
        self._epochs(trial, update, update.earlier)
        self._published(trial, update)

    def trial_ended(self, trial: Trial) -> None:
        record = trial.record
        if record.status == "interrupted":
            self._open.pop(record.trial, None)
        elif record.trial in self._open:
            execution, stage_id = self._open.pop(record.trial)
            self._tracker.log(StageFinished(trial=record.trial, execution=execution, stage_id=stage_id, status="failed"))
        metrics = {name: value for name, value in record.metrics.items() if record.status == "finished" and math.isfinite(value)}
        metrics |= {"cost/spent_s": record.cost_s, "cost/saved_s": record.saved_s}
        if record.score is not None:
            metrics[OBJECTIVE] = record.score
            if (error := self._objective.score(record.metrics).error) is not None:
                metrics[OBJECTIVE_ERROR] = error
            if (cost := self._objective.cost) is not None and math.isfinite(record.costs[cost]):
                metrics[cost] = record.costs[cost]
        tags = {"birdclef.last_stage": record.stage}
        self._tracker.log(
            TrialFinished(
                trial=record.trial,
                status=cast(TrialStatus, record.status),
                metrics=metrics,
                tags=tags,
                reason=record.reason,
                artifacts=self._write_lineage(record) if record.ended else None,
            )
        )

    def _checkpoint_used(self, trial: Trial, update: TrialUpdate) -> None:
        self._tracker.log(
            CheckpointUsed(
                trial=trial.record.trial,
                stage_id=update.stage_id,
                stage=update.stage,
                checkpoint_uri=self._checkpoint_uri(update.stage_id),
                metrics=_finite(update.metrics),
            )
        )

    def _epochs(self, trial: Trial, update: TrialUpdate, points: Sequence[EpochPoint]) -> None:
        """Tell of epochs of the stage, each once in the life of this driver. What the one before has told, the sink recognises."""
        epochs_before = sum(task.config.epochs for task in trial.chain[: update.stage_index])
        for point in points:
            execution = self._execution(trial, update)
            if point.epoch <= self._told.get(execution, 0):
                continue
            self._told[execution] = point.epoch
            self._tracker.log(
                EpochFinished(
                    trial=trial.record.trial,
                    execution=execution,
                    epoch=point.epoch,
                    trial_epoch=epochs_before + point.epoch,
                    metrics=_finite(point.metrics),
                    time_s=point.time_s,
                )
            )

    def _published(self, trial: Trial, update: TrialUpdate) -> None:
        """The trial has trained the stage to its end."""
        execution = self._execution(trial, update)
        self._tracker.log(
            StageFinished(
                trial=trial.record.trial,
                execution=execution,
                stage_id=update.stage_id,
                status="finished",
                checkpoint_uri=self._checkpoint_uri(update.stage_id),
                metrics=_finite(update.metrics),
                artifacts=self._copy_reports(update.stage_id),
            )
        )
        del self._open[trial.record.trial]
        self._told.pop(execution, None)

    def _execution(self, trial: Trial, update: TrialUpdate) -> str:
        """The name of the stage's execution by this trial; the tracker hears of its start here."""
        name = trial.record.trial
        execution = f"{name}/{update.stage}"
        if self._open.get(name, ("",))[0] != execution:
            self._open[name] = (execution, update.stage_id)
            self._stage_started(trial, update, execution)
        return execution

    def _stage_started(self, trial: Trial, update: TrialUpdate, execution: str) -> None:
        task = trial.chain[update.stage_index]
        identity = task.identity
        self._tracker.log(
            StageStarted(
                trial=trial.record.trial,
                execution=execution,
                stage=update.stage,
                params=_params(task.config),
                tags={
                    **self._tags,
                    "birdclef.stage_id": task.stage_id,
                    "birdclef.starts_from": str(identity["parent"]),
                    "birdclef.data": str(identity["data"]),
                    "birdclef.code": str(identity["code"]),
                    "birdclef.device": update.device,
                }
                | ({LEARNS_FROM: task.predictions_id} if task.predictions_id else {}),
                starts_from=task.parent_id,
            )
        )

    def _stage_name(self, stage_id: str) -> str:
        if stage_id not in self._stage_names:
            summary = self._store.summary(stage_id)
            self._stage_names[stage_id] = summary.stage if summary else ""
        return self._stage_names[stage_id]

    def _checkpoint_uri(self, stage_id: str) -> str:
        return self._store.storage.path(f"stages/{stage_id}")

    def _write_lineage(self, record: TrialRecord) -> str | None:
        """Write a page with the stages whose end the trial reached; None when there are none."""
        stage_ids = record.reached_ids()
        if not stage_ids:
            return None
        folder = self._sweep_dir / "lineages" / record.trial
        folder.mkdir(parents=True, exist_ok=True)
        error = self._objective.score(record.metrics).error
        score = "" if record.score is None else f" with {Score(record.score, error)}"
        title = f"Lineage of {record.trial} ({record.recipe}, {record.status}{score})"
        (folder / "lineage.html").write_text(lineage_page(trace(stage_ids[-1], self._record_of), title, self._objective))
        return str(folder.relative_to(self._sweep_dir))

    def _copy_reports(self, stage_id: str) -> str:
        """Copy the pictures and tables of a stage. Of a remote storage that takes ten requests, so a thread does it; the sink waits for it."""
        folder = self._sweep_dir / "reports" / stage_id[:16]
        if self._store.storage.is_local:
            self._store.copy_reports(stage_id, folder)
        elif not folder.is_dir():
            part_of(folder).mkdir(parents=True, exist_ok=True)
            thread = threading.Thread(target=self._copy_later, args=(stage_id, folder), name="reports", daemon=True)
            self._copying = [other for other in self._copying if other.is_alive()] + [thread]
            thread.start()
        return str(folder.relative_to(self._sweep_dir))

    def finish_copies(self) -> None:
        """Wait for the pictures and tables that are being copied, for a while: the pages of the result link to them."""
        until = time.monotonic() + COPIES_S
        for thread in self._copying:
            thread.join(max(0.0, until - time.monotonic()))

    def _copy_later(self, stage_id: str, folder: Path) -> None:
        try:
            self._store.copy_reports(stage_id, part_of(folder))
            part_of(folder).rename(folder)
        except Exception as error:
            if not isinstance(error, StorageAway):  # what is said of that is said once, by the driver
                _log.warning("The pictures and tables of stage %s could not be copied for MLflow.", stage_id, exc_info=True)
            shutil.rmtree(part_of(folder), ignore_errors=True)


def leak_tags(leak: Leak | None) -> dict[str, str]:
    """Return the tag of every run whose scores are leaked, or may be; none where they are not."""
    return {"birdclef.leaked": leak.mark} if leak and leak.mark else {}


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def _params(config: StageConfig) -> dict[str, str | int | float]:
    """A stage's settings under their dotted names; what a tracker has no type for, as text."""
    return {name: value if isinstance(value, (str, int, float)) else str(value) for name, value in flatten(config)}
