"""Runs a sweep from its options to its result: data, plan of trials, Ray, records, tracking, the ranked table."""

import json
import signal
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ray import tune
from rich.console import Console

from birdclef_core.data.dataset import Dataset
from birdclef_core.errors import BirdclefError, InputError
from birdclef_core.store.leases import Holder, Leases
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from sweeps.execution.actor import TrialActor, WorkerContext
from sweeps.execution.audio_cache import AudioCache
from sweeps.execution.cluster import Slots, connect, plan_slots, ray_log
from sweeps.execution.tune_adapters import METRIC, CoordinatorScheduler, CoordinatorSearcher
from sweeps.options import DEFAULT_STORAGE, SweepOptions
from sweeps.plan.picture import plan_page
from sweeps.plan.plan import Plan
from sweeps.plan.planner import Planner, against_actual, save_plan
from sweeps.plan.text import plan_lines
from sweeps.run.console import SweepConsole
from sweeps.run.inputs import load_data, make_chain_builder
from sweeps.run.ranking import best_by_end, ranked_markdown, ranked_table, ranking
from sweeps.run.request import SweepRequest, extend_request, new_request, plan_request, resume_request
from sweeps.run.store_budget import StoreBudget, budget_line
from sweeps.run.tree_picture import MAX_TRIALS, tree_page
from sweeps.schedule.coordinator import Coordinator
from sweeps.schedule.records import TrialRecord
from sweeps.schedule.store_view import DriverStoreView
from sweeps.search.chains import ChainBuilder
from sweeps.tracking.connect import make_tracker
from sweeps.tracking.events import SweepFinished, SweepStarted, Tracker
from sweeps.tracking.observer import TrackingObserver

MAX_WORKER_LOSSES = 3
DELIVERY_TIMEOUT_S = 30.0
PROBE = "writable"
"""A file that is written and removed, to see whether that can be done."""


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """How a sweep ended."""

    name: str
    trials: list[TrialRecord]
    best: TrialRecord | None
    best_checkpoint: str | None
    interrupted: bool


def start_sweep(options: SweepOptions, console: Console) -> SweepResult:
    """A new sweep. Raises InputError when its name is taken."""
    return _Sweep(new_request(options), console).run()


def resume_sweep(name: str, storage: str, given: Mapping[str, Any], console: Console) -> SweepResult:
    """Goes on with a sweep where it stopped: ended trials stay ended, the others go on from their last epoch."""
    return _Sweep(resume_request(name, storage, given), console).run()


def extend_sweep(name: str, storage: str, given: Mapping[str, Any], console: Console) -> SweepResult:
    """More trials for a sweep that has ended, of the same search or another; raises InputError as `extend_request` does."""
    return _Sweep(extend_request(name, storage, given), console).run()


def plan_sweep(options: SweepOptions, console: Console, price_per_hour: float | None) -> Plan:
    """Prints what a new sweep would do and cost, and writes it as a page; trains nothing and keeps nothing."""
    return _Sweep(plan_request(options), console).plan(price_per_hour)


def plan_extension(name: str, storage: str, given: Mapping[str, Any], console: Console, price_per_hour: float | None) -> Plan:
    """The same of what `extend_sweep` would do."""
    return _Sweep(extend_request(name, storage, given), console).plan(price_per_hour)


class _Sweep:
    """One run of one driver over one sweep."""

    def __init__(self, request: SweepRequest, console: Console) -> None:
        self.request, self.console = request, console
        self.options, self.name, self.records = options, name, _ = request.options, request.name, request.records
        self.record: dict[str, Any] = {}
        """The sweep's record, once it has been written."""
        self.storage = Storage.parse(options.storage)
        self.local_dir = Path(self.storage.path(name)) if self.storage.is_local else Path(DEFAULT_STORAGE).resolve() / name
        self.store = StageStore(self.storage.at("store"))
        self.run_id = uuid.uuid4().hex[:8]
        self.cache = AudioCache(
            folder=Path(options.cache_dir).expanduser().resolve(),
            max_s_per_recording=options.max_seconds_per_recording,
            max_bytes=options.max_bytes,
            max_bad_share=options.max_bad_share,
        )

    def run(self) -> SweepResult:
        self.request.check_search()
        dataset = load_data(self.options, self.local_dir, self._say)
        self._make_place()
        with self._only_driver(), ray_log(self.local_dir / "ray.log"), connect(self.options.address):
            slots = plan_slots(self.options.gpus_per_trial, self.options.cpus_per_trial, self.options.max_concurrent)
            budget = self._budget(slots)
            chains = make_chain_builder(self.request, self.request.search(budget), dataset, self.cache, self._say)
            self._begin(chains, slots, budget)
            self.cache.build_aloud(dataset, self.console)
            return self._search_trials(chains, dataset, slots, self.request.samples(budget))

    def plan(self, price_per_hour: float | None) -> Plan:
        self.request.check_search()
        dataset = load_data(self.options, self.local_dir, self._say)
        folder = self.local_dir.parent / "plans"
        folder.mkdir(parents=True, exist_ok=True)
        with ray_log(folder / "ray.log"), connect(self.options.address):
            slots = plan_slots(self.options.gpus_per_trial, self.options.cpus_per_trial, self.options.max_concurrent)
            budget = self._budget(slots)
            chains = make_chain_builder(self.request, self.request.search(budget), dataset, self.cache, self._say)
            samples = self.request.samples(budget)
            if self.request.kind == "extend":
                self._say(
                    f"Extension of {self.name} by {samples - len(self.request.known)} trials after {len(self.request.known)}."
                )
            with self.console.status("Planning") as status:
                plan = self._planner(chains, dataset, slots).plan(samples, calibrate=status.update)
        page = folder / f"{self.name}.html"
        page.write_text(plan_page(plan, self.name, price_per_hour))
        for line in plan_lines(plan, price_per_hour):
            self._say(line)
        self._say_budget(plan)
        self._say(f"\nAs a picture: {page}")
        return plan

    def _planner(self, chains: ChainBuilder, dataset: Dataset, slots: Slots) -> Planner:
        return Planner(chains=chains, dataset=dataset, store=self.store, slots=slots, known=self.request.known)

    def _plan_ahead(self, chains: ChainBuilder, dataset: Dataset, slots: Slots, samples: int) -> None:
        """Keeps the plan of a new sweep or extension, to be set against what it takes."""
        plan = self._planner(chains, dataset, slots).plan(samples)
        save_plan(self.records.storage, plan, self.request.plan_file)
        result = self.local_dir / "result"
        result.mkdir(exist_ok=True)
        (result / self.request.plan_file).with_suffix(".html").write_text(plan_page(plan, self.name))
        for line in plan_lines(plan, with_tree=False):
            self._say(line)
        self._say_budget(plan)

    def _make_place(self) -> None:
        """Raises InputError where nothing can be written: no such bucket, no access, no room."""
        try:
            self.local_dir.mkdir(parents=True, exist_ok=True)
            self.records.storage.write_text(PROBE, "")
            self.records.storage.delete(PROBE)
        except OSError as error:
            raise InputError(f"The storage {self.options.storage} must be writable, but is not: {error}") from None

    @contextmanager
    def _only_driver(self) -> Iterator[None]:
        """Two drivers of one sweep would each overwrite what the other remembers."""
        leases = Leases(self.records.storage)
        with leases.hold("driver", Holder(sweep=self.run_id, run=self.run_id, trial="driver")) as lease:
            if lease is None:
                raise InputError(
                    f"A sweep must have one driver, but another process runs {self.name!r}. Stop it first; "
                    f"if it was killed on another machine, wait {leases.duration_s:.0f} s."
                )
            yield

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)

    def _budget(self, slots: Slots) -> str:
        return self.options.budget or ("full" if slots.gpus_per_trial and self.options.data else "small")

    def _begin(self, chains: ChainBuilder, slots: Slots, budget: str) -> None:
        """Says what is going to happen and keeps it in the sweep's record."""
        request, samples, known = self.request, self.request.samples(budget), len(self.request.known)
        if budget == "small":
            self._say(
                "Budget: small (48-bin spectrograms, a few short epochs, random encoders unless weights are found): it shows that "
                "all works, not how good a recipe is. `--budget full` trains the recipes as they are."
            )
        recipes = ", ".join(recipe.name for recipe in chains.search.recipes)
        trials = f"{samples - known} trials more after {known}" if request.kind == "extend" else f"{samples} trials"
        self._say(f"Sweep {self.name}: {trials}, over {recipes}; {slots.describe()}.")
        before = request.record.get("code_version", chains.code_version)
        if before != chains.code_version:
            self._say(
                "[yellow]The code has changed since the sweep was started: stages that are not in its trials yet are trained anew.[/yellow]"
            )
        self.record = request.begin(
            chains.search,
            budget=budget,
            data_fingerprint=chains.data_fingerprint,
            pretrained={} if chains.start else {encoder: weights.name for encoder, weights in chains.pretrained.items()},
        )

    def _search_trials(self, chains: ChainBuilder, dataset: Dataset, slots: Slots, samples: int) -> SweepResult:
        started = time.monotonic()
        if not self.records.storage.exists(self.request.plan_file):
            self._plan_ahead(chains, dataset, slots, samples)
        tracker = make_tracker(self.options.tracking_uri, self.local_dir)
        tags = {"birdclef.sweep": self.name, "birdclef.data": dataset.fingerprint[:16], "birdclef.code": chains.code_version}
        observer = TrackingObserver(tracker, self.store, self.local_dir, space=self.request.space(chains.search), tags=tags)
        interrupted = False
        try:
            with SweepConsole(self.console) as terminal:
                view = DriverStoreView(self.store, Leases(self.store.storage), sweep=self.name)
                store_budget = self._store_budget(view, chains, slots)
                coordinator = Coordinator(
                    chains,
                    view,
                    self.records,
                    samples=samples,
                    max_running=slots.max_concurrent,
                    observers=(observer, terminal, *((store_budget,) if store_budget else ())),
                )
                terminal.follow(coordinator)
                if store_budget:
                    store_budget.follow(coordinator)
                self._say_what_is_unlike(coordinator)
                # Its first search names the experiment, whatever it is extended with: all its trials are found in one place.
                tracker.record(
                    SweepStarted(sweep=self.name, search=self.record["search"], tags=tags, note=self._note(chains, samples))
                )
                interrupted = self._fit(coordinator, chains, dataset, slots)
            result = self._conclude(coordinator, tracker, interrupted)
            mine = result.trials[self.request.first_trial :]
            for line in against_actual(self.records.storage, mine, time.monotonic() - started, self.request.plan_file):
                self._say(line)
            for line in store_budget.outcome() if store_budget else ():
                self._say(line)
            return result
        finally:
            self._close(tracker)

    def _fit(self, coordinator: Coordinator, chains: ChainBuilder, dataset: Dataset, slots: Slots) -> bool:
        """Runs the trials; True when it was interrupted."""
        context = WorkerContext(
            chains=chains,
            dataset=dataset,
            cache=self.cache,
            store=self.store.storage,
            threads=slots.threads_per_trial,
            sweep=self.name,
            run=self.run_id,
        )
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(TrialActor, context=context), slots.resources()),
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="max",
                search_alg=CoordinatorSearcher(coordinator),
                scheduler=CoordinatorScheduler(coordinator),
                num_samples=-1,
                max_concurrent_trials=slots.max_concurrent,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(self.local_dir),
                verbose=0,
                callbacks=[],
                failure_config=tune.FailureConfig(max_failures=MAX_WORKER_LOSSES),
            ),
        )
        try:
            with _terminated_like_interrupted():
                tuner.fit()
        except KeyboardInterrupt:
            coordinator.interrupt()
            return True
        return False

    def _say_what_is_unlike(self, coordinator: Coordinator) -> None:
        if coordinator.unlike:
            self._say(
                f"Of {len(self.request.known)} trials before, {len(coordinator.unlike)} are not told to the sampler nor compared with new ones: "
                "this search has no place for their parameters, or makes other models or stages of them."
            )

    def _say_budget(self, plan: Plan) -> None:
        if self.options.max_store_bytes is not None:
            self._say(budget_line(self.store, plan, self.options.max_store_bytes))

    def _store_budget(self, view: DriverStoreView, chains: ChainBuilder, slots: Slots) -> StoreBudget | None:
        if self.options.max_store_bytes is None:
            return None
        return StoreBudget(
            self.storage,
            view,
            sweep=self.name,
            max_bytes=self.options.max_store_bytes,
            max_running=slots.max_concurrent,
            start=chains.start,
            say=self._say,
        )

    def _note(self, chains: ChainBuilder, samples: int) -> str:
        recipes = ", ".join(recipe.name for recipe in chains.search.recipes)
        return f"Sweep **{self.name}**: {samples} trials over {recipes}. Data: {self.options.data or 'synthetic demo set'}."

    def _conclude(self, coordinator: Coordinator, tracker: Tracker, interrupted: bool) -> SweepResult:
        trials = list(coordinator.trials.values())
        finished = [record for record in ranking(trials) if record.score is not None]
        best = finished[0] if finished else None
        checkpoint = self.store.location(best.stage_ids[-1]) if best else None
        status: Literal["interrupted", "finished", "failed"] = "interrupted" if interrupted else "finished" if best else "failed"
        self.request.set_state(self.record, status, trials=len(trials))
        table = ranked_markdown(trials)
        result = self.local_dir / "result"
        result.mkdir(exist_ok=True)
        (result / "ranking.md").write_text(table + "\n")
        (result / "trials.json").write_text(json.dumps([asdict(record) for record in ranking(trials)], indent=1))
        (result / "tree.html").write_text(self._tree_page(trials))
        tracker.record(SweepFinished(status=status, table_markdown=table, artifacts=result.name))
        self.console.print(ranked_table(trials))
        if ends := best_by_end(trials):
            self._say(ends)
        if not interrupted and len(trials) < coordinator.samples:
            self._say(
                f"{coordinator.samples - len(trials)} trials fewer than asked for: the search has nothing left that is not tried."
            )
        if best:
            cmap, chance = best.metrics.get("val/cmap", float("nan")), best.metrics.get("val/cmap_chance", float("nan"))
            self._say(f"Best: {best.trial} ({best.recipe}), val/cmap_pad5 {best.score:.3f}.")
            self._say(f"Its unpadded val/cmap is {cmap:.3f}, {cmap / chance:.1f} times chance ({chance:.3f}).")
            self._say(f"Best checkpoint: {checkpoint}")
            self._say(f"All stages as a picture: {result / 'tree.html'}")
        if interrupted:
            self._say(f"Stopped. Go on with: python tune_main.py --resume {self.name}{self._storage_flag()}")
        elif best is None:
            reason = next((record.reason for record in trials if record.reason), "no trial ended")
            raise BirdclefError(f"No trial finished. The first reason: {reason} (Ray's own log: {self.local_dir / 'ray.log'})")
        return SweepResult(name=self.name, trials=trials, best=best, best_checkpoint=checkpoint, interrupted=interrupted)

    def _tree_page(self, trials: list[TrialRecord]) -> str:
        shown = ranking(trials)[:MAX_TRIALS]
        summaries = self.store.summaries({stage_id for record in shown for stage_id in record.reached_ids()})
        return tree_page(trials, summaries, self.name)

    def _storage_flag(self) -> str:
        return "" if self.options.storage == DEFAULT_STORAGE else f" --storage {self.options.storage}"

    def _close(self, tracker: Tracker) -> None:
        if self.options.tracking_uri != "off":
            self._say(f"Delivering the last records to MLflow (at most {DELIVERY_TIMEOUT_S:.0f} s).")
        delivery = tracker.close(DELIVERY_TIMEOUT_S)
        if delivery.kept:
            self._say(
                f"[yellow]The tracker is away ({delivery.problem}); {delivery.kept} records wait in {self.local_dir}. "
                f"Deliver them with: birdclef track sync {self.local_dir}[/yellow]"
            )
        elif delivery.delivered:
            uri = f" --tracking-uri {self.options.tracking_uri}" if self.options.tracking_uri else ""
            self._say(f"Compare the trials in MLflow: birdclef ui {self.name}{uri}")
        if delivery.rejected:
            self._say(f"[yellow]The tracker refused {delivery.rejected} records; see {self.local_dir}.[/yellow]")


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Makes SIGTERM end the sweep as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
