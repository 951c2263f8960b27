"""A thousand running trials through Ray Tune's own controller, on one machine: one process stands for all workers (`scale.py tune`).

A process for each of 1,000 trials does not fit into a small machine. Here Tune's controller, its tasks, their results through Ray, our searcher and
scheduler, and the coordinator are the real ones. Only the actors are not: Tune gets, in place of each, a part of one asynchronous actor, in
which an epoch is a pause, and no placement group for it.
"""

import asyncio
import itertools
import logging
import os
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
from ray import tune
from ray.air.execution.resources.fixed import FixedAcquiredResources, FixedResourceManager
from ray.tune.execution import tune_controller
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from rich.console import Console
from scale_driver import EPOCH_S, Driver, Load, far_storage, made_up_updates, make_chains

from sweeps.execution.tune_adapters import METRIC, CoordinatorScheduler, CoordinatorSearcher, placement
from sweeps.run.driver.tuning import MOST_AT_ONCE, make_tuner
from sweeps.sampling.draws import Draw
from sweeps.schedule.coordinator import Observer
from sweeps.schedule.records import TrialRecord
from sweeps.schedule.trials import Trial
from sweeps.schedule.update import TrialUpdate
from sweeps.search.chains import ChainBuilder
from sweeps.tracking.connect import make_tracker
from sweeps.tracking.server import run_local


@ray.remote(max_concurrency=20_000, num_cpus=0)
class AllWorkers:
    """Does what the actors of all trials do, and trains nothing."""

    def __init__(self, chains: ChainBuilder) -> None:
        self._chains = chains
        self._updates: dict[int, Any] = {}

    async def call(self, number: int, method: str, *given: Any) -> Any:
        if method == "begin":
            self._begin(number, given[0])
            return None
        if method == "reset":
            self._begin(number, given[0])
            return True
        if method != "train":
            return None
        # The first epoch ends at some moment, so that the trials do not all send at once.
        pause_s, updates = self._updates[number]
        await asyncio.sleep(pause_s)
        self._updates[number] = EPOCH_S, updates
        update = next(updates)
        return {
            **update.to_result(),
            "time_s": time.time(),
            "node": "one",
            "training_iteration": update.epoch,
            METRIC: update.score,
        }

    def _begin(self, number: int, config: dict[str, Any]) -> None:
        chain = self._chains.chain(config["recipe"], config["params"])
        record = TrialRecord(trial=config["trial"], recipe=config["recipe"], params=config["params"], stage_ids=[])
        trial = Trial(record=record, chain=chain, draw=Draw(ticket=0, recipe=config["recipe"], params=config["params"]))
        self._updates[number] = (number * 7919 % 1000) / 1000 * EPOCH_S, made_up_updates(trial, 1)


class StandIn:
    """What Tune takes for the actor of a trial."""

    def __init__(self, workers: Any, number: int) -> None:
        self._workers, self._number = workers, number

    def __getattr__(self, method: str) -> Any:
        return _Method(self._workers, self._number, method)


class _Method:
    def __init__(self, workers: Any, number: int, method: str) -> None:
        self._workers, self._number, self._method = workers, number, method

    def remote(self, *given: Any, **_: Any) -> Any:
        return self._workers.call.remote(self._number, self._method, *given)


class StandIns:
    """What Tune takes for the class of its actors."""

    numbers = itertools.count()

    def __init__(self, workers: Any) -> None:
        self._workers = workers

    def remote(self, config: dict[str, Any], **_: Any) -> StandIn:
        number = next(self.numbers)
        self._workers.call.remote(number, "begin", config)
        return StandIn(self._workers, number)


class Nothing(tune.Trainable):
    """The class of the trials, of which no actor is made."""


class Window(Observer):
    """Measures for a while from the moment when all trials run, then stops the sweep as Ctrl-C does."""

    def __init__(self, trials: int, seconds: float) -> None:
        self._trials, self._seconds = trials, seconds
        self._began, self._started, self.load = 0.0, 0, Load(seconds, 0, 0.0, 0.0, 0.0)
        self._first = time.monotonic()

    def trial_started(self, trial: Trial) -> None:
        self._started += 1

    def updated(self, trial: Trial, update: TrialUpdate) -> None:
        self.note(update.time_s)

    def note(self, sent_s: float) -> None:
        now = time.monotonic()
        if not self._began and self._started >= self._trials:
            self._began = now + EPOCH_S / 4  # what had piled up is worked off by then
            print(f"{'':>12}  {self._trials} trials were started in {now - self._first:.0f} s", flush=True)
        if not self._began or now < self._began:
            return
        if not self.load.events:
            self.load.cpu_s, self.load.loop_cpu_s = -time.process_time(), -time.thread_time()
        self.load.events += 1
        self.load.late_s.append(time.time() - sent_s)
        if now - self._began > self._seconds and self.load.cpu_s < 0:
            self.load.cpu_s += time.process_time()
            self.load.loop_cpu_s += time.thread_time()
            self.load.seconds = now - self._began
            os.kill(os.getpid(), signal.SIGINT)


class BareSearcher(Searcher):
    """The control: points at random and nothing else."""

    def __init__(self, chains: ChainBuilder, window: Window, trials: int) -> None:
        super().__init__(metric=METRIC, mode="max")
        self._chains, self._window, self._left = chains, window, trials

    def suggest(self, trial_id: str) -> Any:
        if not self._left:
            return None
        self._left -= 1
        self._window._started += 1
        recipe = self._chains.search.recipes[0]
        return {"trial": trial_id, "recipe": recipe.name, "params": self._chains.search.baseline(recipe)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._window.note(result["time_s"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing."""


def measure_tune(trials: int, seconds: float, sampler: str) -> None:
    """Print the share of a core that the driver takes with Tune, and that of Tune alone."""
    os.environ |= {"RAY_CHDIR_TO_TRIAL_DIR": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_DISABLE_SIGINT_HANDLER": "1"}
    os.environ |= {"RAY_AIR_NEW_OUTPUT": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=256 * 2**20,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=False,
    )
    loads = {}
    for what, run in (("with us", _run_ours), ("Tune alone", _run_bare)):
        with tempfile.TemporaryDirectory(prefix="scale-") as name:
            load = loads[what] = run(Path(name), Window(trials, seconds), trials, sampler)
        print(f"{what:>12}: {load.text()}", flush=True)
    ours, bare = (load.cpu_s / load.seconds for load in loads.values())
    print(f"the driver takes {ours / bare:.1f} times the CPU of Tune's controller alone")


def _run_ours(folder: Path, window: Window, trials: int, sampler: str) -> Load:
    with far_storage() as storage, run_local(folder / "mlflow") as url, Path(os.devnull).open("w") as nowhere:
        driver = Driver(
            storage,
            folder,
            make_tracker(url, folder / "sweep", storage),
            trials,
            sampler,
            Console(file=nowhere, force_terminal=True),
        )
        with driver.table:
            driver.coordinator._observers = (*driver.coordinator._observers, window)
            searcher = CoordinatorSearcher(driver.coordinator, on_ask=lambda: None, avoid=list)
            _fit(searcher, CoordinatorScheduler(driver.coordinator), folder, driver.chains)
        window.load.parts_s = dict(driver.parts.seconds)
        driver.tracker.close(0)
    return window.load


def _run_bare(folder: Path, window: Window, trials: int, sampler: str) -> Load:
    chains = make_chains("random")
    _fit(BareSearcher(chains, window, trials), FIFOScheduler(), folder, chains)
    return window.load


def _fit(searcher: Searcher, scheduler: TrialScheduler, folder: Path, chains: ChainBuilder) -> None:
    """Let Tune run trials as `runner.py` does, until it is interrupted."""
    workers = AllWorkers.remote(chains)
    stand_ins = patch.object(FixedAcquiredResources, "annotate_remote_entities", lambda self, entities: [StandIns(workers)])
    slots = patch.object(tune_controller, "PlacementGroupResourceManager", lambda: FixedResourceManager({"slot": MOST_AT_ONCE}))
    with stand_ins, slots:
        tuner = make_tuner(tune.with_resources(Nothing, placement({"slot": 1.0})), searcher, scheduler, folder)
        with suppress(KeyboardInterrupt):
            tuner.fit()
    ray.kill(workers)
