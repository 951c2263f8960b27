"""Runs a sweep: from a request to Ray's trials and back to a result.

Steps, in order: recordings, Ray and its slots, chains of stages (`inputs.py`); the nodes (`driver/nodes.py`); the sweep's record
(`request.py`); the decoded audio; the plan; the coordinator with its observers; Ray Tune (`driver/tuning.py`); the result
(`driver/ending.py`). What it prints is in `messages.py`.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from birdclef_core.errors import Stopped
from birdclef_core.inference.cpu_cost import CpuCosts
from birdclef_core.store.leases import Leases
from birdclef_core.store.patience import Patience, StorageAway
from sweeps.budget import Budget
from sweeps.execution.actor import WorkerContext
from sweeps.execution.cluster import connect, find_slots, ray_log
from sweeps.execution.nodes.slots import Slots
from sweeps.execution.nodes.unfit import UnfitNodes
from sweeps.execution.private_ray import close_token_file
from sweeps.execution.recordings import audio_cache, split_into_folds
from sweeps.objective import Objective
from sweeps.options import SweepOptions, storage_flag
from sweeps.plan.picture import plan_page
from sweeps.plan.plan import Plan
from sweeps.plan.planner import PlanFigures, Planner, against_actual, load_plan, save_plan
from sweeps.plan.text import plan_lines
from sweeps.report.page.writing import REPORT
from sweeps.report.results import SweepResult
from sweeps.run import messages
from sweeps.run.console import WARNING, Detail, SweepConsole, print_lines
from sweeps.run.driver.ending import conclude, deliver, say_what_next
from sweeps.run.driver.hooks import Hooks
from sweeps.run.driver.news import NewsTeller
from sweeps.run.driver.nodes import Nodes
from sweeps.run.driver.place import SweepPlace
from sweeps.run.driver.report_refresh import ReportRefresh
from sweeps.run.driver.tuning import run_trials
from sweeps.run.inputs import SweepInputs, check_leak, choose_objective, list_recordings, load_data, make_chain_builder
from sweeps.run.request import RunningTime, SweepRequest, extend_request, new_request, plan_request, resume_request
from sweeps.run.store_budget import StoreBudget, budget_line
from sweeps.schedule.coordinator import Coordinator, Observer
from sweeps.schedule.pruning import chosen_pruning, make_pruning
from sweeps.schedule.records import SweepRecord
from sweeps.schedule.spending import nothing_known
from sweeps.schedule.store_view import DriverStoreView
from sweeps.schedule.trial_log.writer import RecordWriter
from sweeps.schedule.trials import TrialBook
from sweeps.search.chains import ChainBuilder
from sweeps.tracking.connect import check_access, check_state, make_tracker
from sweeps.tracking.events import OBJECTIVE_TAG, SweepStarted, Tracker
from sweeps.tracking.observer import TrackingObserver, leak_tags


def start_sweep(options: SweepOptions, console: Console, *, detail: Detail = "normal") -> SweepResult:
    """Run a new sweep. Raises InputError when its name is taken. `detail`: what is shown of the trials while they run."""
    return _Driver(new_request(options), console, detail).run()


def resume_sweep(
    name: str,
    storage: str,
    given: Mapping[str, Any],
    console: Console,
    *,
    drop_extension: bool = False,
    retry_failed: bool = False,
    detail: Detail = "normal",
) -> SweepResult:
    """Continue a sweep where it stopped: ended trials stay as they are, the others continue from their last epoch.

    `drop_extension`, `retry_failed`: see `resume_request`.
    """
    request = resume_request(name, storage, given, drop_extension=drop_extension, retry_failed=retry_failed)
    return _Driver(request, console, detail).run()


def extend_sweep(
    name: str, storage: str, given: Mapping[str, Any], console: Console, *, detail: Detail = "normal"
) -> SweepResult:
    """Run more trials for a sweep that has ended, of the same search or another. Raises InputError as `extend_request` does."""
    return _Driver(extend_request(name, storage, given), console, detail).run()


def plan_sweep(options: SweepOptions, console: Console) -> Plan:
    """Print what a new sweep would train and cost, and write it as a page. Trains nothing and keeps nothing else."""
    return _Driver(plan_request(options), console).plan()


def plan_extension(name: str, storage: str, given: Mapping[str, Any], console: Console) -> Plan:
    """The same for what `extend_sweep` would do."""
    return _Driver(extend_request(name, storage, given), console).plan()


class _Driver:
    """One run of one driver of a sweep."""

    def __init__(self, request: SweepRequest, console: Console, detail: Detail = "normal") -> None:
        self.console, self.detail = console, detail
        self.options, self.name = options, name = request.options, request.name
        self.patience = Patience(say=self._say_away, interrupts=True)
        """It waits for nothing until the storage has been seen to work: a mistyped address is said at once."""
        self.place = SweepPlace.of(name, options.storage, self.patience)
        self.request = replace(request, records=self.place.records)
        self.run_id = uuid.uuid4().hex[:8]
        self.cache = audio_cache(options)
        self.unfit = UnfitNodes(self._say)
        self.hooks = Hooks(lambda line: self._say(line, style=WARNING))

    def plan(self) -> Plan:
        """Print the plan and write it as a page beside the sweeps."""
        folder = self.place.local_dir.parent / "plans"
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
        planned = load_plan(self.place.records.storage, self.request.plan_file)
        check_state(self.options.tracking_uri, self.place.local_dir)
        with self._inputs(self._make_place, only_driver=True) as inputs:
            search = self.request.record.search if self.request.record else inputs.chains.search.name
            check_access(self.options.tracking_uri, search=search, sweep=self.name)
            nodes = self._nodes(inputs)
            nodes.check_all(self.console)
            record = self._begin(inputs)
            with self.console.status("Reading what tells recordings apart"):
                for recordings in inputs.recordings:
                    recordings.keep()
            self.cache.build_and_say(inputs.dataset, self.console)
            started = time.monotonic()
            if planned is None:
                planned = self._keep_plan(inputs)
            tracker = make_tracker(
                self.options.tracking_uri,
                self.place.local_dir,
                None if self.place.storage.is_local else self.place.records.storage,
                self._say,
            )
            try:
                result, store_budget = self._search(inputs, nodes, record, tracker)
                mine = result.trials[self.request.first_trial :]
                self._say(*against_actual(planned, mine, time.monotonic() - started))
                self._say(*(store_budget.outcome() if store_budget else ()))
                say_what_next(result, self.console, self.place)
            finally:
                deliver(tracker, self.console, self.place, self.options.tracking_uri)
                self.hooks.close()
        return result

    @contextmanager
    def _inputs(self, make_place: Callable[[], Path], *, only_driver: bool = False) -> Iterator[SweepInputs]:
        """What the sweep runs on, with Ray running. `make_place` gives the folder for Ray's log.

        Raises InputError for a wrong search, recordings that cannot be used, or a storage that cannot be written to.
        """
        request = self.request
        search = request.check_search()
        asked = search.objective
        dataset = load_data(self.options, self.place.local_dir, self._say)
        folds = split_into_folds(dataset, self.options)
        objective = choose_objective(asked, folds, self._say)
        request.check_data(self.cache.data_fingerprint(dataset))
        recordings = list_recordings(self.place.store.storage, folds, self.cache)
        leak = check_leak(request, search, recordings, self._say)
        folder = make_place()
        folder.mkdir(parents=True, exist_ok=True)
        if self.options.address is not None and (warning := close_token_file()):
            self._say(warning, style=WARNING)
        with (
            self.place.lease(self.run_id) if only_driver else nullcontext(),
            ray_log(folder / "ray.log"),
            connect(self.options.address),
        ):
            slots = find_slots(self.options, runs_on_cpus=request.budget(has_gpus=True) == "small", say=self._say)
            budget = request.budget(has_gpus=bool(slots.gpus_per_trial))
            search = replace(request.search(budget), objective=objective)
            chains = make_chain_builder(request, search, folds, self.cache, self._say)
            yield SweepInputs(
                dataset=dataset,
                chains=chains,
                slots=slots,
                budget=budget,
                samples=request.samples(budget),
                recordings=recordings,
                leak=leak,
            )

    def _make_place(self) -> Path:
        """The sweep's local folder. From now on what is written waits for a storage that is away."""
        self.place.make(self.run_id)
        self.patience.limit_s = 60 * self.options.storage_outage_minutes
        return self.place.local_dir

    # Before the trials.

    def _nodes(self, inputs: SweepInputs) -> Nodes:
        return Nodes(
            inputs,
            self.options,
            self.unfit,
            cache=self.cache,
            sweep_folder=self.place.records.storage,
            run=self.run_id,
            say=self._say,
        )

    def _planner(self, inputs: SweepInputs) -> Planner:
        return Planner(
            chains=inputs.chains,
            dataset=inputs.dataset,
            store=self.place.store,
            slots=inputs.slots,
            pruning=chosen_pruning(self.options.pruning, inputs.chains.search),
            known=self.request.known,
            limits=self.request.limits,
            ran_s=self.request.ran_s,
        )

    def _keep_plan(self, inputs: SweepInputs) -> PlanFigures:
        """Keep the plan of a new sweep or extension, to be compared with what it takes."""
        plan = self._planner(inputs).plan(inputs.samples)
        figures = save_plan(self.place.records.storage, plan, self.request.plan_file)
        self.place.result.mkdir(exist_ok=True)
        (self.place.result / self.request.plan_file).with_suffix(".html").write_text(plan_page(plan, self.name))
        self.place.keep_result()
        self._say(*plan_lines(plan, with_tree=False), *self._budget_lines(plan))
        return figures

    def _budget_lines(self, plan: Plan) -> list[str]:
        max_bytes = self.options.max_store_bytes
        return [] if max_bytes is None else [budget_line(self.place.store, plan, max_bytes)]

    def _begin(self, inputs: SweepInputs) -> SweepRecord:
        """Say what is going to happen and write it into the sweep's record, which is returned."""
        request, chains = self.request, inputs.chains
        self._say(*messages.beginning_lines(inputs, request))
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

    def _search(
        self, inputs: SweepInputs, nodes: Nodes, record: SweepRecord, tracker: Tracker
    ) -> tuple[SweepResult, StoreBudget | None]:
        """Run the trials, and write and print their result."""
        chains, slots, samples = inputs.chains, inputs.slots, inputs.samples
        records = RecordWriter(self.place.records, before_batch=tracker.keep)
        book = TrialBook(records, DriverStoreView(self.place.store, Leases(self.place.store.storage), sweep=self.name))
        store_budget = self._store_budget(book, chains, slots, record)
        objective = Objective.of(chains.search.objective)
        tags = {
            **self.options.tags,
            "birdclef.sweep": self.name,
            OBJECTIVE_TAG: str(objective),
            "birdclef.data": inputs.dataset.fingerprint[:16],
            "birdclef.code": chains.code_version,
            **leak_tags(inputs.leak),
        }
        tracking = TrackingObserver(
            tracker,
            self.place.store,
            self.place.local_dir,
            space=self.request.space(chains.search),
            tags=tags,
            objective=objective,
        )
        pruning = chosen_pruning(self.options.pruning, chains.search)
        limits = self.request.limits
        budget = Budget(limits, gpus_per_worker=slots.gpus_per_trial, ran_s=record.ran_s)
        planner = self._planner(inputs)
        num_species = {"all": len(chains.all_species), "target": len(chains.target_species)}
        with SweepConsole(self.console, book, samples, objective, num_species, detail=self.detail) as terminal:
            running_time = RunningTime(records, record, budget)
            report = ReportRefresh(self.options.storage, self.name, self.place.result / REPORT, self._say)
            news = NewsTeller(
                self.hooks,
                self.options,
                book,
                self.place.store,
                name=self.name,
                objective=objective,
                report=self.place.report,
            )
            observers: list[Observer] = [self.unfit, tracking, terminal, running_time, report, news]
            observers += [store_budget] if store_budget else []
            coordinator = Coordinator(
                chains,
                book,
                samples=samples,
                max_running=slots.max_concurrent,
                observers=observers,
                pruning=make_pruning(pruning),
                stops_by_worth=pruning == "worth",
                budget=budget,
                epoch_s=planner.epoch_seconds() if limits.any_set else nothing_known,
                speeds=planner.speeds() if limits.any_set or len(slots.devices) > 1 else None,
                devices=slots.devices,
                cpu_seconds=CpuCosts(self.place.store.storage, self._say),
            )
            if store_budget:
                store_budget.begin()
            if coordinator.incomparable:
                self._say(messages.incomparable_line(len(coordinator.incomparable), len(self.request.known)))
            # The sweep's first search names the experiment, also when it is extended with another: its trials stay together.
            tracker.log(
                SweepStarted(
                    sweep=self.name, search=record.search, tags=tags, note=messages.note_text(self.name, inputs, self.request)
                )
            )
            try:
                interrupted = self._fit(coordinator, inputs, nodes)
            except BaseException as error:
                news.ended("stopped", problem=f"{type(error).__name__}: {error}")
                raise
            finally:
                report.stop()
        tracking.finish_copies()
        result = conclude(
            coordinator, record, tracker, self.console, request=self.request, place=self.place, news=news, interrupted=interrupted
        )
        return result, store_budget

    def _fit(self, coordinator: Coordinator, inputs: SweepInputs, nodes: Nodes) -> bool:
        """Let Ray Tune run the trials; True when it was interrupted."""
        context = WorkerContext(
            chains=inputs.chains,
            dataset=inputs.dataset,
            check=nodes.check,
            cache=self.cache,
            store=self.place.store.storage,
            threads=inputs.slots.threads_per_trial,
            sweep=self.name,
            run=self.run_id,
        )
        return run_trials(coordinator, context, inputs.slots, nodes, folder=self.place.local_dir, patience=self.patience)

    def _store_budget(self, book: TrialBook, chains: ChainBuilder, slots: Slots, record: SweepRecord) -> StoreBudget | None:
        if self.options.max_store_bytes is None:
            return None
        return StoreBudget(
            self.place.storage,
            book,
            sweep=self.name,
            max_bytes=self.options.max_store_bytes,
            max_running=slots.max_concurrent,
            stored_before=record.stored_before,
            objective=Objective.of(chains.search.objective),
            say=self._say,
        )

    @property
    def _storage_flag(self) -> str:
        """What a command needs to find the sweep."""
        return storage_flag(self.options.storage)

    def _say_away(self, line: str) -> None:
        self._say(line, style=WARNING)

    def _say(self, *lines: str, style: str | None = None) -> None:
        print_lines(self.console, *lines, style=style)
