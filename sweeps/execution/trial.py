"""A trial as plain Python: its chain of stages, each reused from the store or trained, one report an epoch. No Ray here."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch

from birdclef_core.errors import BirdclefError
from birdclef_core.stages.interruption import StageInterrupted, Stop, any_of, never
from birdclef_core.stages.progress import EpochMetrics
from birdclef_core.stages.training import SOUNDSCAPES, StageTask, TrainingData, environment, train_stage
from birdclef_core.store.leases import Hold, alone
from birdclef_core.store.stage_store import StageStore
from sweeps.search.chains import Chain

SCORE = "cmap_pad5"
ReportKind = Literal["epoch", "reused", "published", "failed", "held"]


@dataclass(kw_only=True)
class TrialReport:
    """What a trial tells its driver: after each epoch, for each reused stage, when it fails, and when its next stage is being
    trained by another sweep (`held`: the trial is to be run again later). The driver makes `published` of a reused stage that the
    trial itself had trained and was killed before it could say so. Plain JSON types."""

    kind: ReportKind
    stage: str
    stage_index: int
    stage_id: str
    epoch: int
    epochs: int
    score: float
    """`cmap_pad5` in the stage's own label space: what trials are compared by at the same stage."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Under the names they are tracked by: `val/...` for the target species, `val_all/...` for all species,
    `val_soundscapes/...` for the target species in labelled soundscapes, `train/...`."""
    cost_s: float = 0.0
    """Device seconds: spent since the last report, or saved by a reused stage."""
    is_own: bool = False
    """Of a reused stage: whether this trial has trained it."""
    message: str = ""
    """Why the trial failed, or what the user should know (a damaged checkpoint, for one)."""
    device: str = ""
    node: str = ""
    """Of a Ray cluster, where the trial runs."""
    time_s: float = 0.0
    """Seconds since the epoch, Unix time."""
    done: bool = False

    @property
    def stage_done(self) -> bool:
        return self.kind in ("epoch", "reused", "published") and self.epoch == self.epochs

    def to_result(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_result(cls, result: dict[str, Any]) -> "TrialReport":
        """From a Tune result, which has other entries too and may have been flattened."""
        values = {name: result[name] for name in cls.__dataclass_fields__ if name in result}
        if "metrics" not in values:
            values["metrics"] = {key[8:]: value for key, value in result.items() if key.startswith("metrics/")}
        return cls(**values)


def tracked_name(label_space: str, name: str) -> str:
    """The name that a score is tracked by: `val_soundscapes/...` for those on soundscapes."""
    if name.startswith(SOUNDSCAPES):
        return f"val_{name}"
    return f"val/{name}" if label_space == "target" else f"val_{label_space}/{name}"


def run_trial(
    chain: Chain,
    data: TrainingData,
    store: StageStore,
    device: torch.device,
    notes: list[str],
    stop: Stop = never,
    hold: Hold = alone,
    name: str = "",
) -> Iterator[TrialReport]:
    """Takes a chain to its end: published stages are reused, the others trained, an interrupted one goes on.

    Everything that a trial needs to go on is in the store, so running it again after a crash is the same call. `notes` is
    where store and training tell what the user should know (damaged entries, memory that did not suffice); they go out with
    the next report.

    `name`: the trial's among all that use the store; the stages that it trains keep it.

    A BirdclefError (such as a loss that is not a number) ends the trial with a report of kind `failed`. When `stop` gives a
    reason, StageInterrupted is raised once a checkpoint is written: whoever runs the trial again goes on from there. A stage is
    trained under a lease; when another sweep has it, or has taken it over, the trial ends with a report of kind `held`.
    """
    first = _first_to_train(chain, store)
    for index, task in enumerate(chain[:first]):
        yield _finish(_reused(task, index, store, name), chain, device, notes)
    for index, task in enumerate(chain[first:], start=first):
        with hold(task.stage_id) as lease:
            if lease is None:
                yield _finish(_held(task, index), chain, device, notes)
                return
            if store.open(task.stage_id) is not None:  # whoever had the lease before has trained it
                yield _finish(_reused(task, index, store, name), chain, device, notes)
                continue
            try:
                stops = any_of(stop, lease.reason_to_stop)
                for epoch in train_stage(task, data, store, device, stop=stops, on_note=notes.append, trained_by=name):
                    report = _trained(task, index, epoch)
                    report.cost_s = epoch.epoch_s
                    if report.stage_done:
                        lease.release()
                    with lease.suspended():
                        yield _finish(report, chain, device, notes)
            except StageInterrupted:
                if not lease.lost or stop():
                    raise
                yield _finish(_held(task, index), chain, device, notes)
                return
            except BirdclefError as error:
                failed = _report("failed", task, index, epoch=0, score=float("nan"), metrics={})
                failed.message, failed.done = str(error), True
                yield _finish(failed, chain, device, notes)
                return


def _first_to_train(chain: Chain, store: StageStore) -> int:
    """Index of the first stage after the deepest published one, whose files are verified here."""
    for index in range(len(chain) - 1, -1, -1):
        if store.open(chain[index].stage_id) is not None:
            return index + 1
    return 0


def _trained(task: StageTask, index: int, epoch: EpochMetrics) -> TrialReport:
    space = task.config.label_space
    metrics = {tracked_name(space, name): value for name, value in epoch.scores.items()}
    metrics |= {
        "train/loss": epoch.train_loss,
        "train/learning_rate": epoch.learning_rate,
        "train/clips_per_s": epoch.clips_per_s,
        "train/waited_s": epoch.waited_s,
        "train/device_s": epoch.device_s,
        "train/evaluate_s": epoch.evaluate_s,
        "train/epoch_s": epoch.epoch_s,
        "train/memory_gib": epoch.memory_bytes / 2**30,
    }
    report = _report("epoch", task, index, epoch=epoch.epoch, score=epoch.scores[SCORE], metrics=metrics)
    if epoch.is_last:
        report.epochs = epoch.epoch  # an early stop is an end too
    if epoch.waits_for_data and epoch.epoch == 1:
        report.message = f"Stage {task.config.name}: {epoch.bottleneck}"
    return report


def _reused(task: StageTask, index: int, store: StageStore, name: str) -> TrialReport:
    record = store.record(task.stage_id)
    scores = record.metrics if record else {}
    metrics = {tracked_name(task.config.label_space, name): value for name, value in scores.items()}
    report = _report("reused", task, index, epoch=task.config.epochs, score=scores.get(SCORE, float("nan")), metrics=metrics)
    if record is not None:
        report.cost_s, report.is_own = record.cost_s, bool(name) and record.trained_by == name
    return report


def _held(task: StageTask, index: int) -> TrialReport:
    return _report("held", task, index, epoch=0, score=float("nan"), metrics={})


def _report(kind: ReportKind, task: StageTask, index: int, **values: Any) -> TrialReport:
    return TrialReport(
        kind=kind, stage=task.config.name, stage_index=index, stage_id=task.stage_id, epochs=task.config.epochs, **values
    )


def _finish(report: TrialReport, chain: Chain, device: torch.device, notes: list[str]) -> TrialReport:
    report.device = environment(device)["device"] if device.type == "cuda" else "cpu"
    report.time_s = time.time()
    report.done = report.done or (report.stage_index == len(chain) - 1 and report.stage_done)
    if notes:
        report.message = " ".join([*notes, report.message]).strip()
        notes.clear()
    return report
