"""Makes the plan of a sweep from its store, this machine and a short calibration, and compares it with what the sweep took."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from birdclef_core.config import Recipe
from birdclef_core.data.dataset import Dataset
from birdclef_core.errors import FileContentError, InputError
from birdclef_core.models.detector import Detector
from birdclef_core.models.heads import EmbeddingHead
from birdclef_core.stages.embeddings.encoders import onnx_file
from birdclef_core.stages.environment import environment
from birdclef_core.stages.task import StageTask
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from birdclef_core.store.summary import Spread, StageSummary
from sweeps.budget import Limits
from sweeps.devices import DeviceSpeeds
from sweeps.execution.nodes.slots import Slots
from sweeps.options import PruningName
from sweeps.plan.calibration import HEAD_NUMBERS, measure_clips_per_s
from sweeps.plan.costs import CostModel, DataSize, HeardSound, Measurement, measured, speeds_of, work_of_task
from sweeps.plan.plan import Amount, Plan, make_plan
from sweeps.plan.text import hours_text
from sweeps.schedule.records import TrialRecord
from sweeps.schedule.spending import EpochSeconds
from sweeps.search.chains import ChainBuilder
from sweeps.search.names import MODEL
from sweeps.search.parameters import Choice

BYTES_A_FLOAT, BYTES_OF_HALF, BYTES_OF_A_PLACE = 4, 2, 16
PREDICTS = "predicts"
"""The field of a stage that names its encoder."""


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Makes the plans of one sweep on one store."""

    chains: ChainBuilder
    dataset: Dataset
    store: StageStore
    slots: Slots
    pruning: PruningName = "halving"
    known: Sequence[TrialRecord] = ()
    """The trials that the sweep has already."""
    limits: Limits = field(default_factory=Limits)
    ran_s: float = 0.0
    """Seconds in which the sweep's drivers ran already."""

    def plan(self, samples: int | None, *, calibrate: Callable[[str], None] | None = None) -> Plan:
        """Return the plan of a sweep of `samples` trials, known ones included; None: as many as the limits allow.

        `calibrate` is called with a line on each measurement before it is made. With None nothing is measured, and costs of which the
        store has no example stay unknown.
        """
        stored = self.store.summaries()
        device, speeds = self._device(), self.speeds(stored)
        costs = self._costs(stored, speeds)
        if calibrate is not None and device is not None:
            self._calibrate(costs, device, speeds, calibrate)
        by_work = {summary.work: summary.num_bytes for summary in stored.values()}
        heard = HeardSound.of(self.dataset, unlabelled=bool(self.chains.unlabelled_fingerprint))

        def stage_bytes(task: StageTask) -> int | None:
            if task.teachers:
                return heard.predicted_windows(task.config) * (BYTES_OF_HALF * len(self.chains.all_species) + BYTES_OF_A_PLACE)
            work = work_of_task(task)
            if work not in by_work and calibrate is not None:
                by_work[work] = _stage_bytes(task, len(self.chains.all_species), heard)
            return by_work.get(work)

        return make_plan(
            self.chains,
            samples=samples,
            workers=self.slots.max_concurrent,
            gpus_per_worker=self.slots.gpus_per_trial,
            device=speeds.base,
            devices=self.slots.devices,
            speeds=speeds,
            stored=stored,
            costs=costs,
            stage_bytes=stage_bytes,
            pruning=self.pruning,
            known=self.known,
            limits=self.limits,
            ran_s=self.ran_s,
        )

    def epoch_seconds(self) -> EpochSeconds:
        """Return what tells the seconds of an epoch on the base of `speeds` from the stages in the store; None where these do not."""
        stored = self.store.summaries()
        costs = self._costs(stored, self.speeds(stored))

        def of_task(task: StageTask) -> float | None:
            cost = costs.epoch(task)
            return None if cost is None else cost.middle_s

        return of_task

    def speeds(self, stored: Mapping[str, StageSummary] | None = None) -> DeviceSpeeds:
        """Return how fast devices are beside the one in whose hours the plan is. `stored`: the stages of the store, where they are at hand."""
        stored = self.store.summaries() if stored is None else stored
        return speeds_of(stored.values(), self._base(stored))

    def _costs(self, stored: Mapping[str, StageSummary], speeds: DeviceSpeeds) -> CostModel:
        sizes = {space: DataSize.of(self.dataset, space) for space in ("all", "target")}
        return CostModel(
            measured(stored.values(), speeds),
            sizes,
            self.chains.data_fingerprint,
            HeardSound.of(self.dataset, unlabelled=bool(self.chains.unlabelled_fingerprint)),
        )

    def _base(self, stored: Mapping[str, StageSummary]) -> str:
        """The device that most trials run on, of those that have trained stages if there are any.

        Where the names are not known: this machine's, or of a driver without the device, the newest GPU of the store.
        """
        if devices := self.slots.devices:
            measured_on = {item.device for item in stored.values() if item.clips_per_s is not None}
            return max(devices, key=lambda name: (name in measured_on, devices[name]))
        device = self._device()
        return environment(device)["device"] if device is not None else _usual_gpu(stored.values())

    def _device(self) -> torch.device | None:
        """Return the device that trials run on; None when only other machines have it."""
        if not self.slots.gpus_per_trial:
            return torch.device("cpu")
        return torch.device("cuda") if torch.cuda.is_available() else None

    def _calibrate(self, costs: CostModel, device: torch.device, speeds: DeviceSpeeds, say: Callable[[str], None]) -> None:
        """Measure one stage of each kind of work of which the store has no example: of each recipe, with each encoder.

        Nothing is measured where it is not known how fast this machine's device is beside those of the workers.
        """
        own = environment(device)["device"]
        if not speeds.is_joined(own):
            return
        for recipe, point in self._kinds_of_work():
            for task in self.chains.chain(recipe.name, point):
                if task.encoder_work or costs.epoch(task) is not None:  # an encoder is measured where it makes embeddings
                    continue
                encoder = onnx_file(task.config) if task.config.embeds else None
                say(
                    f"Measuring {recipe.name} with {encoder or task.model.encoder}, {task.config.name} ({task.config.clip_s:g} s clips)"
                )
                space = self.chains.all_species if task.config.label_space == "all" else self.chains.target_species
                rate = measure_clips_per_s(task, space, device, threads=self.slots.threads_per_trial)
                costs.add(Measurement.of_task(task, rate.scaled(1 / speeds.of(own).value)))

    def _kinds_of_work(self) -> Iterator[tuple[Recipe, dict[str, Any]]]:
        """Points of the search that may do different work: each recipe at its own values, and with each choice of its model or of the encoder of its
        embeddings."""
        search = self.chains.search
        for recipe in search.recipes:
            own = search.baseline(recipe)
            yield recipe, own
            for key, parameter in search.sampled_space(recipe).items():
                if isinstance(parameter, Choice) and (key.partition(".")[0] == MODEL or key.endswith(f".{PREDICTS}")):
                    points = ({**own, key: value} for value in parameter.values)
                    yield from ((recipe, point) for point in points if not search.problem(recipe, point))


def _usual_gpu(summaries: Iterable[StageSummary]) -> str:
    """Return the GPU that trained the newest of the stages that a GPU trained, or what to call an unknown GPU."""
    on_gpus = [summary for summary in summaries if summary.device_type == "cuda"]
    newest = max(on_gpus, key=lambda summary: summary.finished_at, default=None)
    return newest.device if newest is not None else "GPUs of the cluster"


def _stage_bytes(task: StageTask, num_classes: int, heard: HeardSound) -> int:
    """About the size of a stage: of embeddings in half precision with a copy of their encoder, of a head alone, else of a model's weights."""
    if (path := onnx_file(task.config) if task.config.embeds else None) is not None:
        encoder_bytes = path.stat().st_size
    elif task.config.embeddings:
        encoder_bytes = _num_bytes(EmbeddingHead(HEAD_NUMBERS, num_classes, task.config.head_hidden, 0.0))
    else:
        encoder_bytes = _num_bytes(Detector(task.model, num_classes))
    windows = heard.embedded_windows(task.config.clip_s) if task.config.embeds else 0
    return encoder_bytes + BYTES_OF_HALF * HEAD_NUMBERS * windows


def _num_bytes(model: torch.nn.Module) -> int:
    return BYTES_A_FLOAT * sum(tensor.numel() for tensor in model.state_dict().values())


@dataclass(frozen=True, kw_only=True)
class PlanFigures:
    """The figures of a plan that are kept with the sweep, `plan.json`, to be compared with what the sweep took."""

    trials: int
    stages_asked: int
    """Stages of all chains, those of several trials counted for each."""
    stages_new: int
    """Different stages that the store did not have."""
    alone: Amount
    shared: Amount
    pruned: Amount


def save_plan(storage: Storage, plan: Plan, file: str) -> PlanFigures:
    """Keep a plan's figures with the sweep, and return them."""
    figures = PlanFigures(
        trials=plan.trials,
        stages_asked=plan.stages_asked,
        stages_new=plan.stages_unique - plan.stages_stored,
        alone=plan.alone,
        shared=plan.shared,
        pruned=plan.pruned,
    )
    storage.write_json(file, figures, indent=1)
    return figures


def load_plan(storage: Storage, file: str) -> PlanFigures | None:
    """Return the figures that were kept; None when there are none. Raises InputError when the file cannot be read."""
    try:
        return storage.read_json(PlanFigures, file)
    except FileContentError as error:
        raise InputError(f"{error} Remove the file: the sweep is planned again when it is resumed.") from None


PLANNED = ("", "planned", "with pruning", "actual")
"""Columns of `plan_rows`."""


def plan_rows(planned: PlanFigures, trials: Sequence[TrialRecord], wall_s: float) -> list[tuple[str, str, str, str]]:
    """Return what was planned and what the trials took, as rows of PLANNED. `wall_s`: seconds in which the driver ran."""
    spent_h = sum(record.cost_s for record in trials) / 3600
    plain, pruned = planned.shared, planned.pruned
    epochs = sum(record.epochs_trained for record in trials)
    return [
        ("trials", str(planned.trials), "", str(len(trials))),
        ("stages requested", str(planned.stages_asked), "", str(sum(len(record.stage_ids) for record in trials))),
        ("stages trained", str(planned.stages_new), "", str(sum(len(record.trained_ids) for record in trials))),
        ("epochs trained", f"{plain.epochs:,.0f}", f"{pruned.epochs:,.0f}", f"{epochs:,}"),
        ("worker time", hours_text(plain.worker_hours), hours_text(pruned.worker_hours), hours_text(_exact(spent_h))),
        ("wall time", hours_text(plain.wall_hours), hours_text(pruned.wall_hours), hours_text(_exact(wall_s / 3600))),
    ]


def against_actual(planned: PlanFigures, trials: Sequence[TrialRecord], wall_s: float) -> list[str]:
    """Return `plan_rows` as lines for the terminal. `wall_s`: seconds of this run of the driver."""
    lines = ["Plan against actual"]
    lines += [
        f"  {title:<18}{plain:>41}{pruned:>41}{actual:>20}"
        for title, plain, pruned, actual in (PLANNED, *plan_rows(planned, trials, wall_s))
    ]
    saved_h = sum(record.saved_s for record in trials) / 3600
    return [*lines, f"  Wall time is of this run. Reused stages would have taken {hours_text(_exact(saved_h))} more."]


def _exact(hours: float) -> Spread:
    return Spread(low=hours, middle=hours, high=hours)
