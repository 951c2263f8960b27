"""A trial as plain Python, without Ray: each stage of its chain is reused from the store or trained, with one update an epoch."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from birdclef_core.errors import BirdclefError, FileContentError
from birdclef_core.json_files import from_values
from birdclef_core.stages.environment import environment
from birdclef_core.stages.epochs import EpochMetrics
from birdclef_core.stages.interruption import StageInterrupted, Stop, any_of, never
from birdclef_core.stages.task import StageTask
from birdclef_core.stages.training import train_stage
from birdclef_core.stages.training_data import TrainingData
from birdclef_core.store.leases import Hold, alone
from birdclef_core.store.stage_store import StageRecord, StageStore
from sweeps.objective import Objective, tracked
from sweeps.replicates import level_of
from sweeps.schedule.pruning import middle_epochs
from sweeps.schedule.update import EpochPoint, TrialUpdate, UpdateKind
from sweeps.search.chains import Chain


def run_trial(
    chain: Chain,
    data: TrainingData,
    store: StageStore,
    device: torch.device,
    notes: list[str],
    stop: Stop = never,
    hold: Hold = alone,
    name: str = "",
    objective: Objective | None = None,
) -> Iterator[TrialUpdate]:
    """Take a chain to its end: published stages are reused, the others are trained, and an interrupted one continues.

    Everything that a trial needs to continue is in the store, so the same call runs it again after a crash.

    `notes`: the list to which the store and the training add what the user should know, such as damaged entries or too little
    memory; it is emptied into the next update. `name`: `sweep/trial`, which the stages that it trains keep in their records.
    `objective`: what the score of an update is; None: the default. Soundscapes that it needs are scored wherever scores are compared.

    A BirdclefError, such as a loss that is not finite, ends the trial with an update of kind `failed`. When `stop` gives a
    reason, StageInterrupted is raised after a checkpoint has been written. A stage is trained under a lease; when another sweep
    holds it or has taken it over, the trial ends with an update of kind `held`.
    """
    objective = objective or Objective.of(None)
    missing = _missing(chain, store)
    for index, task in enumerate(chain):
        if index not in missing:
            yield _finish(_reused(task, index, store, name, objective), chain, device, notes)
            continue
        with hold(task.stage_id) as lease:
            if lease is None:
                yield _finish(_held(task, index), chain, device, notes)
                return
            if store.open(task.stage_id) is not None:  # the lease's last holder has trained it
                yield _finish(_reused(task, index, store, name, objective), chain, device, notes)
                continue
            earlier: list[EpochMetrics] = []
            try:
                stops = any_of(stop, lease.reason_to_stop)
                for epoch in train_stage(
                    task,
                    data.of_fold(task.fold),
                    store,
                    device,
                    stop=stops,
                    on_note=notes.append,
                    on_earlier=earlier.extend,
                    trained_by=name,
                    soundscapes_at=middle_epochs(task.config) if objective.on_soundscapes else (),
                ):
                    update = _trained(task, index, epoch, objective)
                    update.earlier = _points(task, earlier)
                    earlier.clear()
                    if update.stage_done:
                        lease.release()
                    with lease.suspended():
                        yield _finish(update, chain, device, notes)
            except StageInterrupted:
                if not lease.lost or stop():
                    raise
                yield _finish(_held(task, index), chain, device, notes)
                return
            except BirdclefError as error:
                failed = _update("failed", task, index, epoch=0, score=float("nan"), metrics={})
                failed.message, failed.done, failed.earlier = str(error), True, _points(task, earlier)
                yield _finish(failed, chain, device, notes)
                return


def unfit(chain: Chain, problem: str) -> TrialUpdate:
    """Return the only update of a trial whose machine cannot train: it is no fault of the trial, which is run again elsewhere."""
    update = _update("unfit", chain[0], 0, epoch=0, score=float("nan"), metrics={})
    update.message, update.done, update.time_s = problem, True, time.time()
    return update


def _missing(chain: Chain, store: StageStore) -> set[int]:
    """Indexes of the stages that must be made: the last one of each replicate if it is not in the store, and what those need that must be made.

    The files of the stages that these start from are verified here. What nothing needs any more may be gone from the store.
    """
    place = {task.stage_id: index for index, task in enumerate(chain)}
    missing: set[int] = set()
    looked_at, pending = set(), level_of([task.name for task in chain], -1)
    while pending:
        index = pending.pop()
        if index in looked_at:
            continue
        looked_at.add(index)
        if store.open(chain[index].stage_id) is None:
            missing.add(index)
            pending += [place[stage_id] for stage_id in chain[index].needs if stage_id in place]
    return missing


def _trained(task: StageTask, index: int, epoch: EpochMetrics, objective: Objective) -> TrialUpdate:
    score = objective.score(tracked(task.config.label_space, epoch.scores), task.config.label_space)
    update = _update(
        "epoch",
        task,
        index,
        epoch=epoch.epoch,
        score=score.value,
        error=score.error or 0.0,
        metrics=_metrics(task, epoch),
        cost_s=epoch.epoch_s,
        time_s=epoch.time_s,
    )
    if epoch.is_last:
        update.epochs = epoch.epoch  # an early stop is an end, too
    if epoch.waits_for_data and epoch.epoch == 1:
        update.message = f"Stage {task.name}: {epoch.bottleneck}"
    return update


def _metrics(task: StageTask, epoch: EpochMetrics) -> dict[str, float]:
    return tracked(task.config.label_space, epoch.scores) | {
        "train/loss": epoch.train_loss,
        "train/learning_rate": epoch.learning_rate,
        "train/clips_per_s": epoch.clips_per_s,
        "train/waited_s": epoch.waited_s,
        "train/device_s": epoch.device_s,
        "train/evaluate_s": epoch.evaluate_s,
        "train/epoch_s": epoch.epoch_s,
        "train/memory_gib": epoch.memory_bytes / 2**30,
    }


def _points(task: StageTask, epochs: Sequence[EpochMetrics]) -> list[EpochPoint]:
    return [EpochPoint(epoch=epoch.epoch, metrics=_metrics(task, epoch), time_s=epoch.time_s) for epoch in epochs]


def _reused(task: StageTask, index: int, store: StageStore, name: str, objective: Objective) -> TrialUpdate:
    record, space = store.record(task.stage_id), task.config.label_space
    metrics = tracked(space, record.metrics if record else {})
    score = objective.score(metrics, space)
    update = _update(
        "reused", task, index, epoch=task.config.epochs, score=score.value, error=score.error or 0.0, metrics=metrics
    )
    if record is not None:
        # What an adopted stage has cost was charged to its trial under the id that it had then.
        is_own = bool(name) and record.trained_by == name and not record.adopted_from
        update.cost_s, update.is_own = record.cost_s, is_own
        update.earlier = _points(task, _epochs(record)) if is_own else []
    return update


def _epochs(record: StageRecord) -> list[EpochMetrics]:
    """The epochs of a stage's record; none of one that another version of the code has trained, whose epochs may be described otherwise."""
    try:
        return from_values(list[EpochMetrics], record.history, file="history")
    except FileContentError:
        return []


def _held(task: StageTask, index: int) -> TrialUpdate:
    return _update("held", task, index, epoch=0, score=float("nan"), metrics={})


def _update(kind: UpdateKind, task: StageTask, index: int, **values: Any) -> TrialUpdate:
    return TrialUpdate(kind=kind, stage=task.name, stage_index=index, stage_id=task.stage_id, epochs=task.config.epochs, **values)


def _finish(update: TrialUpdate, chain: Chain, device: torch.device, notes: list[str]) -> TrialUpdate:
    update.device = environment(device)["device"] if device.type == "cuda" else "cpu"
    update.time_s = update.time_s or time.time()
    update.done = update.done or (update.stage_index == len(chain) - 1 and update.stage_done)
    if notes:
        update.message = " ".join([*notes, update.message]).strip()
        notes.clear()
    return update
