"""Plans a sweep before it runs: its tree of stages, which of them are in the store, and what the others will cost.

The trials are drawn by the sweep's own sampler and run by a simulated clock through its own queue and pruning, with made-up
scores. So the tree has the shape that the sweep's tree will have, but a sampler that learns will draw other points.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace

from birdclef_core.stages.task import StageTask
from birdclef_core.store.summary import Spread, StageSummary
from sweeps.budget import Budget, Limits
from sweeps.devices import DeviceShare, DeviceSpeeds
from sweeps.options import PruningName
from sweeps.plan.costs import Basis, CostModel, EpochCost
from sweeps.plan.near_misses import Difference, find_lookalikes
from sweeps.plan.simulate import (
    EpochSeconds,
    MemoryRecords,
    SimulatedClock,
    SimulatedStore,
    SimulatedSweep,
    SimulatedView,
    SimulatedWorker,
    cpu_seconds_by_size,
    simulate,
)
from sweeps.schedule.coordinator import Coordinator
from sweeps.schedule.pruning import make_pruning
from sweeps.schedule.records import TrialRecord
from sweeps.schedule.trials import TrialBook
from sweeps.search.chains import ChainBuilder

MAX_TRIALS_BY_MODEL = 300
"""A plan of more trials draws at random: TPE's draws take longer and depend on scores that are not known yet."""
MAX_PLANNED = 2000
"""A plan of a sweep that limits alone end has at most so many new trials."""
PLANNED_WITHOUT_COSTS = 32
"""And so many where it is not known how many the limits allow."""
STATES_A_CHECKPOINT = 3
"""Times that an epoch checkpoint has the size of the weights: these, and the optimiser's two averages of their gradients."""
CHECKPOINTS_KEPT = 3
"""Epoch checkpoints that a trial has at once: two, and one that is being written."""


@dataclass(kw_only=True)
class StageNode:
    """A stage that at least one trial of the plan needs. The root of a tree stands for the recipe's first weights."""

    stage_id: str
    stage: str
    epochs: int
    hours: Spread | None
    """Hours of one worker, on the plan's device; None when the cost is not known."""
    is_stored: bool
    trials: int = 0
    """Number of trials that need it."""
    children: dict[str, "StageNode"] = field(default_factory=dict)
    """The stages that are trained from it, by stage id."""


@dataclass(frozen=True, kw_only=True)
class Amount:
    """How much is trained when the sweep is run in a certain way."""

    epochs: float
    worker_hours: Spread | None
    """Hours of all workers together; None when the cost of a stage is not known."""
    wall_hours: Spread | None
    """Hours from the start of the sweep to its end; None when the cost of a stage is not known."""


@dataclass(frozen=True, kw_only=True)
class Within:
    """What the limits of a sweep buy, with the pruning that scores drawn at random would cause."""

    trials: int
    finished: int
    worker_hours: float
    """Hours of all workers together, of the new trials."""
    limit: str
    """The limit at which the sweep ends, as the flag that sets it; empty when it ends before."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a sweep will do."""

    trials: int
    workers: int
    gpus_per_worker: float
    """0 when workers are CPU cores."""
    device: str
    """The device in whose hours stages are given."""
    devices: tuple[DeviceShare, ...]
    """Where workers have different devices, each kind with its speed beside that one; else empty."""
    stages_asked: int
    """Stages of all chains; one that several trials need counts for each of them."""
    stages_unique: int
    stages_stored: int
    """Unique stages that are in the store."""
    alone: Amount
    """Each trial trains its whole chain."""
    shared: Amount
    """Each stage is trained once, or not at all when it is in the store."""
    prunes: bool
    """Whether stages with low scores are stopped."""
    pruned: Amount
    """Like `shared`, with the pruning that scores drawn at random would cause."""
    stored_bytes: int | None
    """Bytes of the checkpoints that are published, without pruning."""
    working_bytes: int | None
    """Bytes of the epoch checkpoints of the trials that run at the same time."""
    bases: Mapping[Basis, int]
    """Number of stages by how their costs are known."""
    limits: Limits
    """The most that the sweep may spend, and the price of an hour."""
    within: Within | None
    """What the limits buy; None without limits, or where costs are not known."""
    unknown: tuple[str, ...]
    """Recipes with a stage whose cost on this device is not known."""
    lookalikes: Mapping[tuple[Difference, ...], int]
    """Number of stages that the store has in another version (see `find_lookalikes`), by the differences."""
    recipes: Mapping[str, StageNode]
    """The root of each recipe's tree, by recipe."""

    @property
    def merge_rate(self) -> float:
        """Epochs of all chains divided by the epochs of the unique stages, whether these are in the store or not."""
        unique = sum(_unique_epochs(node) for node in self.recipes.values())
        return self.alone.epochs / unique if unique else 1.0


def make_plan(
    chains: ChainBuilder,
    *,
    samples: int | None,
    workers: int,
    gpus_per_worker: float,
    device: str,
    stored: Mapping[str, StageSummary],
    costs: CostModel,
    stage_bytes: Callable[[StageTask], int | None],
    pruning: PruningName = "halving",
    known: Sequence[TrialRecord] = (),
    limits: Limits | None = None,
    ran_s: float = 0.0,
    devices: Mapping[str, int] | None = None,
    speeds: DeviceSpeeds | None = None,
) -> Plan:
    """Return the plan of a sweep of `samples` trials, of which it has `known` already, on a store that has the stages `stored`.

    `samples`: None where `limits` alone end it. `ran_s`: seconds in which its drivers ran already. `stage_bytes` returns the size of a
    stage's checkpoint, or None when it is not known. `devices`: how many workers have each kind of device, where that is known; costs are those
    of `device`, and `speeds` says how fast the others are.
    """
    limits, speeds = limits or Limits(), speeds or DeviceSpeeds(base=device)
    shares = [
        DeviceShare(device=name, workers=count, speed=speeds.of(name)) for name, count in (devices or {device: workers}).items()
    ]
    fleet = [SimulatedWorker(device=share.device, speed=share.speed.value) for share in shares for _ in range(share.workers)]
    if samples is None or samples > MAX_TRIALS_BY_MODEL:
        chains = replace(chains, search=replace(chains.search, sampler="random"))
    priced: dict[str, EpochCost | None] = {}
    tasks: dict[str, StageTask] = {}

    def epoch_s(task: StageTask) -> float:
        if task.stage_id not in tasks:
            tasks[task.stage_id], priced[task.stage_id] = task, costs.epoch(task)
        cost = priced[task.stage_id]
        return cost.middle_s if cost else 1.0

    # Limits of time mean nothing where the time is not known.
    is_limited = limits.any_set and all(costs.epoch(task) for task in _baselines(chains))
    if samples is None:
        samples = len(known) + (MAX_PLANNED if is_limited else PLANNED_WITHOUT_COSTS)

    def run(pruning: PruningName) -> _Run:
        clock = SimulatedClock()
        budget = Budget(limits if is_limited else None, gpus_per_worker=gpus_per_worker, ran_s=ran_s, clock=clock)
        return _run(chains, samples, fleet, stored, epoch_s, pruning, known, budget, clock, deepcopy(speeds))

    whole = run("off")
    pruned = whole if pruning == "off" else run(pruning)
    asked = [stage_id for record in whole.records for stage_id in record.stage_ids]
    # The run with pruning draws other trials, whose stages are priced too and are not part of the plan.
    tasks = {stage_id: tasks[stage_id] for stage_id in dict.fromkeys(asked)}
    priced = {stage_id: priced[stage_id] for stage_id in tasks}
    new = [stage_id for stage_id in tasks if stage_id not in stored]
    alone_hours, shared_hours = (_hours(ids, tasks, priced) for ids in (asked, new))
    fastest = sorted((worker.speed for worker in fleet), reverse=True)[: max(1, min(workers, len(whole.records)))]
    sizes = [stage_bytes(tasks[stage_id]) for stage_id in new]
    return Plan(
        trials=len(whole.records),
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        device=device,
        devices=tuple(shares) if len(shares) > 1 else (),
        stages_asked=len(asked),
        stages_unique=len(tasks),
        stages_stored=len(tasks) - len(new),
        alone=Amount(
            epochs=sum(tasks[stage_id].config.epochs for stage_id in asked),
            worker_hours=_scaled(alone_hours, len(fastest) / sum(fastest)),
            wall_hours=_scaled(alone_hours, 1 / sum(fastest)),
        ),
        shared=Amount(
            epochs=whole.epochs,
            worker_hours=_scaled(shared_hours, _ratio(whole.worker_s, whole.work_s)),
            wall_hours=_scaled(shared_hours, _ratio(whole.elapsed_s, whole.work_s)),
        ),
        prunes=pruning != "off",
        pruned=Amount(
            epochs=pruned.epochs,
            worker_hours=_scaled(shared_hours, _ratio(pruned.worker_s, whole.work_s)),
            wall_hours=_scaled(shared_hours, _ratio(pruned.elapsed_s, whole.work_s)),
        ),
        stored_bytes=_total(sizes),
        working_bytes=_working_bytes(sizes, workers),
        bases=Counter(cost.basis for cost in priced.values() if cost),
        unknown=tuple(sorted({tasks[stage_id].recipe for stage_id, cost in priced.items() if cost is None})),
        limits=limits,
        within=_within(pruned) if is_limited else None,
        lookalikes=find_lookalikes(tasks, stored),
        recipes=_tree(whole.records, tasks, priced, stored),
    )


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A simulated run of the sweep."""

    records: list[TrialRecord]
    epochs: int
    worker_s: float
    work_s: float
    """Seconds that all of it would take a worker of the speed 1."""
    elapsed_s: float
    limit: str
    """The limit at which it has ended; empty when it ended otherwise."""


def _baselines(chains: ChainBuilder) -> Iterator[StageTask]:
    """Yield the stages of each recipe at its own values."""
    for recipe in chains.search.recipes:
        yield from chains.chain(recipe.name, chains.search.baseline(recipe))


def _within(run: _Run) -> Within:
    finished = sum(record.status == "finished" for record in run.records)
    return Within(trials=len(run.records), finished=finished, worker_hours=run.worker_s / 3600, limit=run.limit)


def _run(
    chains: ChainBuilder,
    samples: int,
    fleet: Sequence[SimulatedWorker],
    stored: Mapping[str, StageSummary],
    epoch_s: EpochSeconds,
    pruning: PruningName,
    known: Sequence[TrialRecord],
    budget: Budget,
    clock: SimulatedClock,
    speeds: DeviceSpeeds,
) -> _Run:
    store = SimulatedStore(published=set(stored))
    view = SimulatedView(store, "plan")
    # Without their scores, which cannot be compared with made-up ones.
    before = {item.trial: replace(item, stage_scores={}, middle_scores={}, stopped=None, told=list(item.told)) for item in known}
    book = TrialBook(MemoryRecords(before), view)
    coordinator = Coordinator(
        chains,
        book,
        samples=samples,
        max_running=len(fleet),
        pruning=make_pruning(pruning),
        stops_by_worth=pruning == "worth",
        budget=budget,
        epoch_s=epoch_s,
        cpu_seconds=cpu_seconds_by_size,
        speeds=speeds,
        devices=Counter(worker.device for worker in fleet),
    )
    sweep = SimulatedSweep(name="plan", coordinator=coordinator)
    result = simulate([sweep], store, fleet, epoch_s, clock=clock)
    return _Run(
        records=list(coordinator.trials.values())[len(known) :],
        epochs=result.epochs,
        worker_s=result.worker_s,
        work_s=result.work_s,
        elapsed_s=result.elapsed_s,
        limit=coordinator.limit_reached,
    )


def _hours(stage_ids: Iterable[str], tasks: Mapping[str, StageTask], known: Mapping[str, EpochCost | None]) -> Spread | None:
    """Return the hours that one worker would take for complete stages, or None when the cost of one is not known."""
    low = middle = high = 0.0
    for stage_id in stage_ids:
        cost, epochs = known[stage_id], tasks[stage_id].config.epochs
        if cost is None:
            return None
        low, middle, high = low + epochs * cost.low_s, middle + epochs * cost.middle_s, high + epochs * cost.high_s
    return Spread(low=low / 3600, middle=middle / 3600, high=high / 3600)


def _scaled(hours: Spread | None, factor: float) -> Spread | None:
    return hours and hours.scaled(factor)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _total(sizes: Sequence[int | None]) -> int | None:
    return None if None in sizes else sum(size or 0 for size in sizes)


def _working_bytes(sizes: Sequence[int | None], workers: int) -> int | None:
    largest = sorted((size or 0 for size in sizes), reverse=True)[:workers]
    return None if None in sizes else sum(largest) * STATES_A_CHECKPOINT * CHECKPOINTS_KEPT


def _tree(
    records: Iterable[TrialRecord],
    tasks: Mapping[str, StageTask],
    known: Mapping[str, EpochCost | None],
    stored: Mapping[str, StageSummary],
) -> dict[str, StageNode]:
    roots: dict[str, StageNode] = {}
    for record in records:
        node = roots.setdefault(record.recipe, StageNode(stage_id="", stage=record.recipe, epochs=0, hours=None, is_stored=True))
        node.trials += 1
        for stage_id in record.stage_ids:
            if stage_id not in node.children:
                task = tasks[stage_id]
                node.children[stage_id] = StageNode(
                    stage_id=stage_id,
                    stage=task.name,
                    epochs=task.config.epochs,
                    hours=_hours([stage_id], tasks, known),
                    is_stored=stage_id in stored,
                )
            node = node.children[stage_id]
            node.trials += 1
    return roots


def _unique_epochs(node: StageNode) -> int:
    return node.epochs + sum(_unique_epochs(child) for child in node.children.values())
