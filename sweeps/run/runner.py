"""Runs a sweep: from a request to Ray's trials and back to a result.

Steps, in order: recordings, Ray and its slots, chains of stages (`inputs.py`); the plan; the sweep's record (`request.py`); the
decoded audio; the coordinator with its observers; Ray Tune; the result (`results.py`). What it prints is in `messages.py`.
"""

import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ray import tune
from rich.console import Console
from rich.markup import escape

from birdclef_core.data.dataset import Dataset
from birdclef_core.errors import BirdclefError, InputError, Stopped
from birdclef_core.inference.cpu_cost import CpuCosts
from birdclef_core.store.leakage import Leak
from birdclef_core.store.leases import Holder, Leases
from birdclef_core.store.patience import Patience, StorageAway
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from sweeps.budget import Budget
from sweeps.execution.actor import TrialActor, WorkerContext
from sweeps.execution.cluster import alive_nodes, ask_autoscaler, check_nodes, connect, find_slots, ray_log
from sweeps.execution.nodes.check import RUN_MARK, NodeCheck
from sweeps.execution.nodes.slots import Capacity, Slots
from sweeps.execution.nodes.unfit import UnfitNodes, describe_problems
from sweeps.execution.private_ray import close_token_file
from sweeps.execution.recordings import audio_cache
from sweeps.execution.recordings_list import RecordingsList
from sweeps.execution.tune_adapters import METRIC, CoordinatorScheduler, CoordinatorSearcher, at_most_every, placement
from sweeps.objective import Objective
from sweeps.options import DEFAULT_STORAGE, SweepOptions
from sweeps.plan.picture import plan_page
from sweeps.plan.plan import Plan
from sweeps.plan.planner import PlanFigures, Planner, against_actual, load_plan, save_plan
from sweeps.plan.text import plan_lines
from sweeps.run import messages
from sweeps.run.console import SweepConsole
from sweeps.run.inputs import check_leak, choose_objective, load_data, make_chain_builder
from sweeps.run.ranking import early_endings, leak_lines, ranked_markdown, ranked_table
from sweeps.run.request import RunningTime, SweepRequest, extend_request, new_request, plan_request, resume_request
from sweeps.run.results import RESULT_FOLDER, SweepResult, sweep_result, write_result
from sweeps.run.store_budget import StoreBudget, budget_line
from sweeps.schedule.coordinator import Coordinator, Observer
from sweeps.schedule.pruning import chosen_pruning, make_pruning
from sweeps.schedule.records import State, SweepRecord, SweepRecords
from sweeps.schedule.spending import nothing_known
from sweeps.schedule.store_view import DriverStoreView
from sweeps.schedule.trials import TrialBook
from sweeps.search.chains import ChainBuilder
from sweeps.tracking.connect import check_access, check_state, make_tracker
from sweeps.tracking.events import OBJECTIVE_TAG, FrontFound, SweepFinished, SweepStarted, Tracker
from sweeps.tracking.observer import TrackingObserver, leak_tags

MOST_AT_ONCE = 10_000
"""More trials than ever run at the same time."""
COUNT_NODES_S = 5.0
"""How often the nodes are counted while trials run."""
DELIVERY_TIMEOUT_S = 30.0
WARNING = "yellow"


def start_sweep(options: SweepOptions, console: Console) -> SweepResult:
    """Run a new sweep. Raises InputError when its name is taken."""
    return _Driver(new_request(options), console).run()


def resume_sweep(
    name: str,
    storage: str,
    given: Mapping[str, Any],
    console: Console,
    *,
    drop_extension: bool = False,
    retry_failed: bool = False,
) -> SweepResult:
    """Continue a sweep where it stopped: ended trials stay as they are, the others continue from their last epoch.

    `drop_extension`, `retry_failed`: see `resume_request`.
    """
    request = resume_request(name, storage, given, drop_extension=drop_extension, retry_failed=retry_failed)
    return _Driver(request, console).run()


def extend_sweep(name: str, storage: str, given: Mapping[str, Any], console: Console) -> SweepResult:
    """Run more trials for a sweep that has ended, of the same search or another. Raises InputError as `extend_request` does."""
    return _Driver(extend_request(name, storage, given), console).run()


def plan_sweep(options: SweepOptions, console: Console) -> Plan:
    """Print what a new sweep would train and cost, and write it as a page. Trains nothing and keeps nothing else."""
    return _Driver(plan_request(options), console).plan()


def plan_extension(name: str, storage: str, given: Mapping[str, Any], console: Console) -> Plan:
    """The same for what `extend_sweep` would do."""
    return _Driver(extend_request(name, storage, given), console).plan()


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """What a sweep runs on."""

    dataset: Dataset
    chains: ChainBuilder
    slots: Slots
    budget: str
    samples: int | None
    """How many trials the sweep is to have in all; None: as many as its limits allow."""
    recordings: RecordingsList
    """The recordings as the store keeps them, to know later what trained a stage."""
    leak: Leak | None
    """The validation recordings that trained the start stage; None without a start stage."""


class _Driver:
    """One run of one driver of a sweep."""

    def __init__(self, request: SweepRequest, console: Console) -> None:
        self.console = console
        self.options, self.name = options, name = request.options, request.name
        self.patience = Patience(say=self._say_away, interrupts=True)
        """It waits for nothing until the storage has been seen to work: a mistyped address is said at once."""
        self.storage = replace(Storage.parse(options.storage), patience=self.patience)
        self.records = SweepRecords(self.storage.at(name))
        self.request = replace(request, records=self.records)
        self.local_dir = Path(self.storage.path(name)) if self.storage.is_local else Path(DEFAULT_STORAGE).resolve() / name
        self.store = StageStore(self.storage.at("store"))
        self.run_id = uuid.uuid4().hex[:8]
        self.cache = audio_cache(options)
        self.unfit = UnfitNodes(self._say)

    def plan(self) -> Plan:
        """Print the plan and write it as a page beside the sweeps."""
        folder = self.local_dir.parent / "plans"
        with self._inputs(lambda: folder) as inputs:
            known = len(self.request.known)
            if self.request.kind == "extend":
                self._say(messages.extension_line(self.name, self.request.limits, samples=inputs.samples, known=known))
            with self.console.status("Planning") as status:
                plan = self._planner(inputs).plan(inputs.samples, calibrate=lambda text: status.update(escape(text)))
        page = folder / f"{self.name}.html"
        page.write_text(plan_page(plan, self.name))
        self._say(*plan_lines(plan), *self._budget_lines(plan), f"\nAs a picture: {page}")
        return plan

    def run(self) -> SweepResult:
        """Run the sweep to its end, or until it is interrupted. Raises Stopped when the storage was away for too long."""
        try:
            return self._run()
        except (StorageAway, KeyboardInterrupt):
            if not self.patience.given_up:
                raise
            raise Stopped(f"{self.patience.given_up} {messages.resume_line(self.name, self._storage_flag)}") from None

    def _run(self) -> SweepResult:
        planned = load_plan(self.records.storage, self.request.plan_file)
        check_state(self.options.tracking_uri, self.local_dir)
        with self._inputs(self._make_place, only_driver=True) as inputs:
            search = self.request.record.search if self.request.record else inputs.chains.search.name
            check_access(self.options.tracking_uri, search=search, sweep=self.name)
            self._check_nodes(inputs)
            record = self._begin(inputs)
            with self.console.status("Reading what tells recordings apart"):
                inputs.recordings.keep()
            self.cache.build_and_say(inputs.dataset, self.console)
            started = time.monotonic()
            if planned is None:
                planned = self._keep_plan(inputs)
            tracker = make_tracker(
                self.options.tracking_uri, self.local_dir, None if self.storage.is_local else self.records.storage
            )
            try:
                result, store_budget = self._search(inputs, record, tracker)
                mine = result.trials[self.request.first_trial :]
                self._say(*against_actual(planned, mine, time.monotonic() - started))
                self._say(*(store_budget.outcome() if store_budget else ()))
            finally:
                self._deliver(tracker)
        return result

    @contextmanager
    def _inputs(self, make_place: Callable[[], Path], *, only_driver: bool = False) -> Iterator[_Inputs]:
        """What the sweep runs on, with Ray running. `make_place` gives the folder for Ray's log.

        Raises InputError for a wrong search, recordings that cannot be used, or a storage that cannot be written to.
        """
        request = self.request
        asked = request.check_search().objective
        dataset = load_data(self.options, self.local_dir, self._say)
        objective = choose_objective(asked, dataset, self._say)
        fingerprint = self.cache.data_fingerprint(dataset)
        request.check_data(fingerprint)
        recordings = RecordingsList(self.store.storage, dataset, fingerprint)
        leak = check_leak(request, recordings, self._say)
        folder = make_place()
        folder.mkdir(parents=True, exist_ok=True)
        if self.options.address is not None and (warning := close_token_file()):
            self._say(warning, style=WARNING)
        with self._lease(only_driver), ray_log(folder / "ray.log"), connect(self.options.address):
            slots = find_slots(self.options, runs_on_cpus=request.budget(has_gpus=True) == "small", say=self._say)
            budget = request.budget(has_gpus=bool(slots.gpus_per_trial))
            search = replace(request.search(budget), objective=objective)
            chains = make_chain_builder(request, search, dataset, self.cache, self._say)
            yield _Inputs(
                dataset=dataset,
                chains=chains,
                slots=slots,
                budget=budget,
                samples=request.samples(budget),
                recordings=recordings,
                leak=leak,
            )

    def _make_place(self) -> Path:
        """The sweep's local folder. Raises InputError where nothing can be written: no such bucket, no access, no room."""
        try:
            self.local_dir.mkdir(parents=True, exist_ok=True)
            self.records.storage.write_text(RUN_MARK, self.run_id)
        except OSError as error:
            raise InputError(f"The storage {self.options.storage} must be writable, but is not: {error}") from None
        self.patience.limit_s = 60 * self.options.storage_outage_minutes
        return self.local_dir

    @contextmanager
    def _lease(self, needed: bool) -> Iterator[None]:
        """Keep other drivers of this sweep out: two would overwrite each other's records."""
        if not needed:
            yield
            return
        leases = Leases(self.records.storage)
        with leases.hold("driver", Holder(sweep=self.run_id, run=self.run_id, trial="driver")) as lease:
            if lease is None:
                raise InputError(
                    f"A sweep must have one driver, but another process runs {self.name!r}. Stop it first; "
                    f"if it was killed on another machine, wait {leases.duration_s:.0f} s."
                )
            yield

    # Before the trials.

    def _node_check(self, inputs: _Inputs) -> NodeCheck:
        return NodeCheck(
            dataset=inputs.dataset,
            cache_dir=self.cache.folder,
            sweep_folder=self.records.storage,
            run=self.run_id,
            needs_gpu=bool(inputs.slots.gpus_per_trial),
        )

    def _check_nodes(self, inputs: _Inputs) -> None:
        """Find the nodes of a cluster that cannot train. Raises InputError when none can.

        The driver's own machine needs no check where it is the only one: a worker looks at its machine, too.
        """
        if self.options.address is None:
            return
        with self.console.status("Looking whether every node can train"):
            nodes = [node for node in alive_nodes() if inputs.slots.room([node])]
            now = self._node_check(inputs)
            check = replace(now, sweep_folder=now.sweep_folder.impatient())  # a node without access would wait for minutes
            problems = check_nodes(check, nodes, inputs.slots.gpus_per_trial)
        if nodes and len(problems) == len(nodes):
            described = describe_problems({node.name: problems[node.short_id] for node in nodes})
            raise InputError(f"At least one node must be able to train, but none is:\n{described}")
        for node, problem in problems.items():
            self.unfit.add(node, problem)

    def _planner(self, inputs: _Inputs) -> Planner:
        return Planner(
            chains=inputs.chains,
            dataset=inputs.dataset,
            store=self.store,
            slots=inputs.slots,
            pruning=chosen_pruning(self.options.pruning, inputs.chains.search),
            known=self.request.known,
            limits=self.request.limits,
            ran_s=self.request.ran_s,
        )

    def _keep_plan(self, inputs: _Inputs) -> PlanFigures:
        """Keep the plan of a new sweep or extension, to be compared with what it takes."""
        plan = self._planner(inputs).plan(inputs.samples)
        figures = save_plan(self.records.storage, plan, self.request.plan_file)
        folder = self.local_dir / RESULT_FOLDER
        folder.mkdir(exist_ok=True)
        (folder / self.request.plan_file).with_suffix(".html").write_text(plan_page(plan, self.name))
        self._keep_pages(folder)
        self._say(*plan_lines(plan, with_tree=False), *self._budget_lines(plan))
        return figures

    def _keep_pages(self, folder: Path) -> None:
        """Keep the result's files with the records: the driver's machine may be gone a minute later."""
        if not self.storage.is_local:
            self.records.storage.keep_folder(folder, RESULT_FOLDER)

    def _budget_lines(self, plan: Plan) -> list[str]:
        max_bytes = self.options.max_store_bytes
        return [] if max_bytes is None else [budget_line(self.store, plan, max_bytes)]

    def _begin(self, inputs: _Inputs) -> SweepRecord:
        """Say what is going to happen and write it into the sweep's record, which is returned."""
        request, chains, known = self.request, inputs.chains, len(self.request.known)
        if inputs.budget == "small":
            self._say(messages.SMALL_BUDGET)
        elif not self.options.budget and not inputs.slots.gpus_per_trial:
            self._say(messages.OWN_RECIPES)
        if request.dropped is not None:
            self._say(messages.dropped_line(self.name, known - request.dropped.first_trial))
        if request.retried:
            self._say(f"Tried again: {', '.join(trial.trial for trial in request.retried)}.")
        extends = request.kind == "extend"
        limits = request.limits
        self._say(
            messages.sweep_line(self.name, chains, inputs.slots, limits, samples=inputs.samples, known=known, extends=extends)
        )
        if request.record and request.record.code_version != chains.code_version:
            self._say(messages.CODE_CHANGED, style=WARNING)
        return request.begin(
            chains.search,
            budget=inputs.budget,
            data_fingerprint=chains.data_fingerprint,
            pretrained={} if chains.start else {encoder: weights.name for encoder, weights in chains.pretrained.items()},
            leak=inputs.leak,
        )

    # The trials.

    def _search(self, inputs: _Inputs, record: SweepRecord, tracker: Tracker) -> tuple[SweepResult, StoreBudget | None]:
        """Run the trials, and write and print their result."""
        chains, slots, samples = inputs.chains, inputs.slots, inputs.samples
        book = TrialBook(self.records, DriverStoreView(self.store, Leases(self.store.storage), sweep=self.name))
        store_budget = self._store_budget(book, chains, slots)
        objective = Objective.of(chains.search.objective)
        tags = {
            "birdclef.sweep": self.name,
            OBJECTIVE_TAG: str(objective),
            "birdclef.data": inputs.dataset.fingerprint[:16],
            "birdclef.code": chains.code_version,
            **leak_tags(inputs.leak),
        }
        tracking = TrackingObserver(
            tracker, self.store, self.local_dir, space=self.request.space(chains.search), tags=tags, objective=objective
        )
        pruning = chosen_pruning(self.options.pruning, chains.search)
        limits = self.request.limits
        budget = Budget(limits, gpus_per_worker=slots.gpus_per_trial, ran_s=record.ran_s)
        with SweepConsole(self.console, book, samples, objective) as terminal:
            running_time = RunningTime(self.records, record, budget)
            observers: list[Observer] = [self.unfit, tracking, terminal, running_time, *([store_budget] if store_budget else [])]
            coordinator = Coordinator(
                chains,
                book,
                samples=samples,
                max_running=slots.max_concurrent,
                observers=observers,
                pruning=make_pruning(pruning),
                stops_by_worth=pruning == "worth",
                budget=budget,
                epoch_s=self._planner(inputs).epoch_seconds() if limits.any_set else nothing_known,
                cpu_seconds=CpuCosts(self.store.storage, self._say),
            )
            if store_budget:
                store_budget.begin()
            if coordinator.incomparable:
                self._say(messages.incomparable_line(len(coordinator.incomparable), len(self.request.known)))
            # The sweep's first search names the experiment, also when it is extended with another: its trials stay together.
            tracker.log(SweepStarted(sweep=self.name, search=record.search, tags=tags, note=self._note(inputs)))
            interrupted = self._fit(coordinator, inputs)
        return self._conclude(coordinator, record, tracker, interrupted), store_budget

    def _fit(self, coordinator: Coordinator, inputs: _Inputs) -> bool:
        """Let Ray Tune run the trials; True when it was interrupted."""
        context = WorkerContext(
            chains=inputs.chains,
            dataset=inputs.dataset,
            check=self._node_check(inputs),
            cache=self.cache,
            store=self.store.storage,
            threads=inputs.slots.threads_per_trial,
            sweep=self.name,
            run=self.run_id,
        )
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(TrialActor, context=context), placement(inputs.slots.resources())),
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="max",
                search_alg=CoordinatorSearcher(
                    coordinator,
                    on_ask=self._count_nodes(coordinator, inputs.slots),
                    avoid=lambda: [node.node_id for node in self.unfit.unfit(alive_nodes())],
                ),
                scheduler=CoordinatorScheduler(coordinator),
                num_samples=-1,
                max_concurrent_trials=MOST_AT_ONCE,  # the coordinator hands out what the nodes have room for
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(self.local_dir),
                verbose=0,
                callbacks=[],
                failure_config=tune.FailureConfig(max_failures=-1),  # the coordinator counts
                # Everything that a trial continues from is in the stage store; a worker need not share a disk with the driver.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        try:
            with _sigterm_as_ctrl_c():
                tuner.fit()
        except KeyboardInterrupt:
            coordinator.interrupt()
            return True
        except Exception as error:
            if not self.patience.given_up:
                raise
            coordinator.interrupt()
            raise StorageAway(self.patience.given_up) from error
        if coordinator.stopped_because:
            coordinator.interrupt()
        while not coordinator.book.save_changed():
            time.sleep(1.0)
        return bool(coordinator.stopped_because)

    def _count_nodes(self, coordinator: Coordinator, slots: Slots) -> Callable[[], None]:
        """What counts the nodes now and then, lets the coordinator use those that there are, and asks an autoscaler for more."""
        capacity = Capacity(slots, max_concurrent=self.options.max_concurrent, say=self._say)

        def count() -> None:
            nodes = alive_nodes()
            coordinator.max_running = capacity.count(nodes, self.unfit.fit(nodes))
            if reason := self.unfit.why_end(nodes, slots):
                coordinator.stop(reason)
            if self.options.address is not None:
                ask_autoscaler(capacity.bundles(coordinator.could_run))

        return at_most_every(COUNT_NODES_S, count, at_once=self.unfit.take_news)

    def _store_budget(self, book: TrialBook, chains: ChainBuilder, slots: Slots) -> StoreBudget | None:
        if self.options.max_store_bytes is None:
            return None
        return StoreBudget(
            self.storage,
            book,
            sweep=self.name,
            max_bytes=self.options.max_store_bytes,
            max_running=slots.max_concurrent,
            start=chains.start,
            objective=Objective.of(chains.search.objective),
            say=self._say,
        )

    # After the trials.

    def _conclude(self, coordinator: Coordinator, record: SweepRecord, tracker: Tracker, interrupted: bool) -> SweepResult:
        """Write the result, send it to the tracker and print it. Raises BirdclefError when no trial has finished."""
        trials = list(coordinator.trials.values())
        result = sweep_result(record, trials, self.store, interrupted=interrupted)
        state: State = "interrupted" if interrupted else "finished" if result.best else "failed"
        self.request.end(record, state, trials=len(trials), ran_s=coordinator.budget.ran_s)
        folder = self.local_dir / RESULT_FOLDER
        write_result(folder, result, self.store)
        self._keep_pages(folder)
        if result.objective.cost is not None:
            tracker.log(FrontFound(trials=tuple(record.trial for record in result.front)))
        tracker.log(
            SweepFinished(
                status=state,
                table_markdown=ranked_markdown(trials, result.objective, result.leaks),
                artifacts=folder.name,
            )
        )
        self.console.print(ranked_table(trials, result.objective, result.leaks), soft_wrap=True)
        self._say(*leak_lines(result.leaks), style=WARNING)
        if endings := early_endings(trials):
            self._say("Trials that did not finish, and why:", *endings)
        if coordinator.left_out:
            self._say(messages.left_out_line(coordinator.left_out))
        flag = self._storage_flag
        reached = coordinator.limit_reached
        pages = Path(self.records.storage.path(RESULT_FOLDER))
        self._say(*messages.outcome_lines(result, None if reached else coordinator.samples, pages))
        self._say(*messages.limit_lines(coordinator.budget, reached, self.name, flag))
        if coordinator.stopped_because:
            raise BirdclefError(messages.unfit_text(coordinator.stopped_because, self.name, flag))
        if interrupted:
            self._say(messages.resume_line(self.name, flag))
        elif result.best is None:
            raise BirdclefError(messages.failure_text(result, self.local_dir / "ray.log"))
        return result

    def _deliver(self, tracker: Tracker) -> None:
        """Wait a while for the tracker to receive the last events."""
        if self.options.tracking_uri != "off":
            self._say(f"Delivering the last events to MLflow (at most {DELIVERY_TIMEOUT_S:.0f} s).")
        status = tracker.close(DELIVERY_TIMEOUT_S)
        self._say(*messages.delivery_lines(status, self.name, self.local_dir, self.options.tracking_uri))

    def _note(self, inputs: _Inputs) -> str:
        recipes = ", ".join(recipe.name for recipe in inputs.chains.search.recipes)
        data = self.options.data or "synthetic demo set"
        leaked = f" Scores are **{inputs.leak.sentence}**." if inputs.leak and inputs.leak.mark else ""
        objective = inputs.chains.search.objective
        return f"Sweep **{self.name}**: {messages.how_many(inputs.samples, self.request.limits)} over {recipes}. Data: {data}. Objective: {objective}.{leaked}"

    @property
    def _storage_flag(self) -> str:
        """What a command needs to find the sweep."""
        return messages.storage_flag(self.options.storage)

    def _say_away(self, line: str) -> None:
        self._say(line, style=WARNING)

    def _say(self, *lines: str, style: str | None = None) -> None:
        # Not as markup: paths and reasons may have brackets.
        for line in lines:
            self.console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM end the sweep as Ctrl-C does. Further ones are ignored: schedulers send several, and the end must not be cut off."""

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is interrupt:
            signal.signal(signal.SIGTERM, previous)
