"""Turns what happens in a sweep into tracking events: who trained which stage, from what, with what result."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from birdclef_core.store.stage_store import StageStore
from sweeps.checkpoints.lineage import lineage_page, trace
from sweeps.schedule.coordinator import OBJECTIVE, Trial
from sweeps.schedule.records import TrialRecord
from sweeps.schedule.update import TrialUpdate
from sweeps.search.space import value_of
from sweeps.tracking.events import (
    CheckpointUsed,
    EpochFinished,
    StageFinished,
    StageStarted,
    Tracker,
    TrialFinished,
    TrialStarted,
    TrialStatus,
)

REMEMBERED_RECORDS = 256
"""Of stages, for pictures of lineages: most trials have the same few prefixes."""


class TrackingObserver:
    """Reports trials, stage executions and checkpoints to a tracker."""

    def __init__(
        self, tracker: Tracker, store: StageStore, sweep_dir: Path, *, space: Iterable[str], tags: Mapping[str, str]
    ) -> None:
        """`space`: the parameters of the search, whose values are what trials are compared by."""
        self._tracker, self._store, self._sweep_dir = tracker, store, sweep_dir
        self._space, self._tags = tuple(space), dict(tags)
        self._open: dict[str, tuple[str, str]] = {}
        self._stage_names: dict[str, str] = {}
        self._record_of = lru_cache(maxsize=REMEMBERED_RECORDS)(store.record)

    def trial_started(self, planned: Trial) -> None:
        record = planned.record
        stages = [task.config for task in planned.chain]
        values = {key: value_of(stages, key) for key in self._space}
        params = {"recipe": record.recipe, **{key: value for key, value in values.items() if value is not None}}
        tags = {**self._tags, "birdclef.recipe": record.recipe, "birdclef.encoder": planned.chain[0].model.encoder}
        self._tracker.record(TrialStarted(trial=record.trial, params=params, tags=tags))
        if start := planned.chain[0].parent_id:
            self._tracker.record(
                CheckpointUsed(
                    trial=record.trial, stage_id=start, stage=self._stage_name(start), checkpoint_uri=self._checkpoint_uri(start)
                )
            )

    def updated(self, planned: Trial, update: TrialUpdate) -> None:
        if update.kind == "reused":
            self._checkpoint_used(planned, update)
        elif update.kind == "epoch":
            self._epoch(planned, update)
        elif update.kind == "published":
            self._published(planned, update)

    def worker_lost(self, planned: Trial) -> None:
        """Nothing: the execution goes on, under its name."""

    def trial_ended(self, planned: Trial) -> None:
        record = planned.record
        if record.status == "interrupted":
            self._open.pop(record.trial, None)
        elif record.trial in self._open:
            execution, stage_id = self._open.pop(record.trial)
            self._tracker.record(StageFinished(trial=record.trial, execution=execution, stage_id=stage_id, status="failed"))
        metrics = {name: value for name, value in record.metrics.items() if record.status == "finished" and math.isfinite(value)}
        metrics |= {"cost/spent_s": record.cost_s, "cost/saved_s": record.saved_s}
        if record.score is not None:
            metrics["objective"] = record.score
        tags = {"birdclef.objective": OBJECTIVE, "birdclef.last_stage": record.stage}
        self._tracker.record(
            TrialFinished(
                trial=record.trial,
                status=cast(TrialStatus, record.status),
                metrics=metrics,
                tags=tags,
                reason=record.reason,
                artifacts=self._write_lineage(record) if record.ended else None,
            )
        )

    def _checkpoint_used(self, planned: Trial, update: TrialUpdate) -> None:
        self._tracker.record(
            CheckpointUsed(
                trial=planned.record.trial,
                stage_id=update.stage_id,
                stage=update.stage,
                checkpoint_uri=self._checkpoint_uri(update.stage_id),
                metrics=_finite(update.metrics),
            )
        )

    def _epoch(self, planned: Trial, update: TrialUpdate) -> None:
        trial = planned.record.trial
        execution = self._execution(planned, update)
        self._tracker.record(
            EpochFinished(
                trial=trial,
                execution=execution,
                epoch=update.epoch,
                trial_epoch=planned.record.epochs_done,
                metrics=_finite(update.metrics),
                time_s=update.time_s,
            )
        )
        if update.stage_done:
            self._published(planned, update)

    def _published(self, planned: Trial, update: TrialUpdate) -> None:
        """The trial has trained the stage to its end; of its last epochs it may have been killed before it could tell."""
        execution = self._execution(planned, update)
        del self._open[planned.record.trial]
        self._tracker.record(
            StageFinished(
                trial=planned.record.trial,
                execution=execution,
                stage_id=update.stage_id,
                status="finished",
                checkpoint_uri=self._checkpoint_uri(update.stage_id),
                metrics=_finite(update.metrics),
                artifacts=self._copy_reports(update.stage_id),
            )
        )

    def _execution(self, planned: Trial, update: TrialUpdate) -> str:
        """The name of the stage's execution by this trial, which is begun if that was not said yet."""
        trial = planned.record.trial
        execution = f"{trial}/{update.stage}"
        if self._open.get(trial, ("",))[0] != execution:
            self._open[trial] = (execution, update.stage_id)
            self._stage_started(planned, update, execution)
        return execution

    def _stage_started(self, planned: Trial, update: TrialUpdate, execution: str) -> None:
        task = planned.chain[update.stage_index]
        identity = task.identity
        self._tracker.record(
            StageStarted(
                trial=planned.record.trial,
                execution=execution,
                stage=update.stage,
                params=flat_params(task.config),
                tags={
                    **self._tags,
                    "birdclef.stage_id": task.stage_id,
                    "birdclef.starts_from": str(identity["parent"]),
                    "birdclef.data": str(identity["data"]),
                    "birdclef.code": str(identity["code"]),
                    "birdclef.device": update.device,
                },
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
        """A page with the stages that the trial came to the end of; None when there are none."""
        stage_ids = record.reached_ids()
        if not stage_ids:
            return None
        folder = self._sweep_dir / "lineages" / record.trial
        folder.mkdir(parents=True, exist_ok=True)
        score = "" if record.score is None else f" with {record.score:.3f}"
        title = f"Lineage of {record.trial} ({record.recipe}, {record.status}{score})"
        (folder / "lineage.html").write_text(lineage_page(trace(stage_ids[-1], self._record_of), title))
        return str(folder.relative_to(self._sweep_dir))

    def _copy_reports(self, stage_id: str) -> str:
        folder = self._sweep_dir / "updates" / stage_id[:16]
        self._store.copy_reports(stage_id, folder)
        return str(folder.relative_to(self._sweep_dir))


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def flat_params(config: Any, prefix: str = "") -> dict[str, str | int | float]:
    """A nested config as dotted names and plain values."""
    flat: dict[str, str | int | float] = {}
    for item in fields(config):
        value, name = getattr(config, item.name), f"{prefix}{item.name}"
        if is_dataclass(value):
            flat |= flat_params(value, f"{name}.")
        elif isinstance(value, tuple):
            for index, part in enumerate(value):
                flat |= flat_params(part, f"{name}.{index}.")
        else:
            flat[name] = value if isinstance(value, (str, int, float)) else str(value)
    return flat
