"""Measure what one driver bears: a thousand trials at once, and by simulation ten thousand.

python benchmarks/scale.py records     the start of 1,000 trials on S3, and how long it stops the driver
python benchmarks/scale.py driver      1,000 running trials with epochs of a minute, for 90 seconds
python benchmarks/scale.py tune        the same through Ray Tune's own controller
python benchmarks/scale.py workers     simulated: what a decision costs with 100 to 10,000 workers

Coordinator, queue, sampler, records, journal and observers are the real ones; epochs are made up and take no CPU. S3 is moto's server in
another process, and each request takes 31 ms more, as one to a cloud does. The control, in the same run, writes each changed record with
a request of its own and waits for it, as an earlier version did.
"""

import argparse
import heapq
import os
import platform
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from made_up_stages import made_up_record
from rich.console import Console
from safetensors.torch import save_file
from scale_driver import EPOCH_S, Driver, Load, OneEach, far_storage, made_up_updates, make_chains
from torch import zeros

from birdclef_core.stages.task import StageTask
from birdclef_core.store.stage_store import WEIGHTS, StageStore
from birdclef_core.store.storage import Storage
from sweeps.plan.simulate import MemoryRecords, SimulatedStore, SimulatedSweep, SimulatedView, simulate
from sweeps.schedule.coordinator import Coordinator
from sweeps.schedule.records import SweepRecords
from sweeps.schedule.trial_log.writer import RecordWriter
from sweeps.schedule.trials import Trial, TrialBook
from sweeps.schedule.update import TrialUpdate
from sweeps.tracking.connect import make_tracker
from sweeps.tracking.server import run_local

STEP_S = 0.1
"""Tune's controller asks for a trial after each event, and at least this often."""


def describe(count: int) -> str:
    return (
        f"{os.cpu_count()} CPUs, Python {platform.python_version()}, ray {version('ray')}, optuna {version('optuna')}, mlflow {version('mlflow')}, "
        f"{count} trials; load {os.getloadavg()[0]:.1f}"
    )


# The start of many trials.


def measure_records(trials: int, control_trials: int) -> None:
    """Print how long the start of many trials takes, and for how long it stops the driver at a time."""
    with far_storage() as storage:
        together = _start_all(storage.at("together"), RecordWriter, trials)
        each = _start_all(storage.at("each"), OneEach, control_trials)
    print(
        f"a trial's start stops the driver {each / together:.0f} times as long where each record is a request that it waits for"
    )


def _start_all(storage: Storage, kind: type[RecordWriter], trials: int) -> float:
    """Return the seconds per trial in which the driver could not do anything else."""
    records = SweepRecords(storage)
    book = TrialBook(kind(records), SimulatedView(SimulatedStore(), "s"))
    coordinator = Coordinator(make_chains("random"), book, samples=trials, max_running=trials)
    blocks: list[float] = []
    handed, began = 0, time.perf_counter()
    while handed < trials:
        asked = time.perf_counter()
        handed += coordinator.next_trial() is not None
        blocks.append(time.perf_counter() - asked)
        if coordinator.book.num_running > handed:
            time.sleep(0.01)  # Tune looks for events
    took_s = time.perf_counter() - began
    files = len(storage.at("trials").names() or storage.at("each").names())
    print(
        f"{kind.__name__:>12}: {trials} trials handed out in {took_s:5.1f} s, driver stopped for {sum(blocks):5.2f} s of them, at most "
        f"{1e3 * max(blocks):.0f} ms at a time; {files} files",
        flush=True,
    )
    return sum(blocks) / trials


# A driver with many running trials.


def measure_driver(trials: int, seconds: float, control_seconds: float, sampler: str) -> None:
    """Print the share of a core that a driver takes, and how late it takes events."""
    with tempfile.TemporaryDirectory(prefix="scale-") as name, far_storage() as storage, run_local(Path(name) / "mlflow") as url:
        loads = []
        for title, span_s in (("together", seconds), ("one each", control_seconds)):
            place, folder = storage.at(title[:3]), Path(name) / title[:3]
            tracker = make_tracker(url, folder, place)
            with Path(os.devnull).open("w") as nowhere:
                driver = Driver(place, folder, tracker, trials, sampler, Console(file=nowhere, force_terminal=True))
                with driver.table:
                    loop = Loop(driver.coordinator, trials, random.Random(0))
                    loop.fill()
                    loop.publish_what_ends_within(driver.store, span_s)
                    driver.make_records_due()
                    if loads:
                        driver.write_each_alone()
                    for part in driver.parts.seconds:
                        driver.parts.seconds[part] = 0.0
                    loads.append(replace(loop.run(span_s), parts_s=dict(driver.parts.seconds)))
            print(f"{title:>12}: {loads[-1].text()}", flush=True)
            status = tracker.close(0)
            print(f"{'':>12}  MLflow had {status.delivered} events at the end, {status.kept} waited", flush=True)
            if not control_seconds:
                return
    together, each = (load.busy_s / load.seconds for load in loads)
    print(f"the loop is busy {each / together:.1f} times as long with a request for each record")


class Loop:
    """Does what Tune's controller does with made-up workers: takes an event when it is due, and asks for a trial in between."""

    def __init__(self, coordinator: Coordinator, trials: int, generator: random.Random) -> None:
        self._coordinator, self._trials, self._random = coordinator, trials, generator
        self._due: list[tuple[float, int, str, Iterator[TrialUpdate]]] = []
        self._order = 0
        self.started: list[tuple[Trial, int]] = []

    def fill(self) -> None:
        """Start as many trials as there are workers, each at some epoch of its first stage."""
        began = time.perf_counter()
        while len(self._due) < self._trials:
            if not self._start(within_s=EPOCH_S):
                time.sleep(0.01)
        now, first = time.monotonic(), min(due for due, *_ in self._due)
        self._due = [(due - first + now, *rest) for due, *rest in self._due]
        print(f"{'':>12}  {self._trials} trials were started in {time.perf_counter() - began:.0f} s", flush=True)

    def publish_what_ends_within(self, store: StageStore, seconds: float) -> None:
        """Put the stages into the store that workers will have trained by then; in a real sweep workers do."""
        ending = [
            trial.chain[0] for trial, first in self.started if trial.chain[0].config.epochs - first <= seconds / EPOCH_S + 1
        ]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda task: publish(store, task), ending))
        now, first = time.monotonic(), min(due for due, *_ in self._due)
        self._due = [(due - first + now, *rest) for due, *rest in self._due]

    def run(self, seconds: float) -> Load:
        load = Load(seconds, 0, 0.0, -time.thread_time(), -time.process_time())
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            wait_s = min(self._due[0][0] - time.monotonic(), STEP_S)
            if wait_s > 0:
                time.sleep(wait_s)
            began = time.perf_counter()
            if self._due[0][0] <= time.monotonic():
                load.late_s.append(time.monotonic() - self._due[0][0])
                load.events += 1
                self._take(heapq.heappop(self._due))
            self._start(within_s=EPOCH_S)
            load.busy_s += time.perf_counter() - began
        load.loop_cpu_s += time.thread_time()
        load.cpu_s += time.process_time()
        return load

    def _start(self, within_s: float) -> bool:
        trial = self._coordinator.next_trial()
        if trial is None:
            return False
        first_epoch = self._random.randint(1, trial.chain[0].config.epochs)
        self.started.append((trial, first_epoch))
        self._push(self._random.uniform(0, within_s), trial.record.trial, made_up_updates(trial, first_epoch))
        return True

    def _take(self, item: tuple[float, int, str, Iterator[TrialUpdate]]) -> None:
        _, _, name, updates = item
        if self._coordinator.update(name, replace(next(updates), time_s=time.time())):
            self._push(EPOCH_S, name, updates)

    def _push(self, in_s: float, name: str, updates: Iterator[TrialUpdate]) -> None:
        self._order += 1
        heapq.heappush(self._due, (time.monotonic() + in_s, self._order, name, updates))


def publish(store: StageStore, task: StageTask) -> None:
    """Publish a made-up stage with as many files as a real one has."""
    with store.publish(lambda: made_up_record(task), task.stage_id) as folder:
        save_file({"weight": zeros(1)}, folder / WEIGHTS)
        for number in range(5):
            (folder / f"table_{number}.csv").write_text("species,ap\n")


# Ten thousand workers.


def measure_workers(counts: Sequence[int]) -> None:
    """Print the CPU time of the driver's decisions by the number of workers, and of a draw of each sampler."""
    for workers in counts:
        chains = make_chains("random")
        short = tuple(
            replace(recipe, stages=tuple(replace(stage, epochs=3) for stage in recipe.stages)) for recipe in chains.search.recipes
        )
        chains = replace(chains, search=replace(chains.search, recipes=short))
        with tempfile.TemporaryDirectory(prefix="scale-") as folder:
            store, updates = SimulatedStore(), 0
            book = TrialBook(RecordWriter(SweepRecords(Storage.parse(folder))), SimulatedView(store, "s"))
            coordinator = Coordinator(chains, book, samples=workers + workers // 5, max_running=workers)
            began = time.process_time()
            result = simulate([SimulatedSweep(name="s", coordinator=coordinator)], store, workers, lambda task: EPOCH_S)
            cpu_s, updates = time.process_time() - began, result.epochs
            size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        rate = workers / EPOCH_S
        print(
            f"{workers:>6} workers: {1e3 * cpu_s / updates:.3f} ms of CPU an epoch with records on a local disk, so {100 * rate * cpu_s / updates:.1f} % of a core at {rate:.0f} "
            f"epochs a second; records take {size / 2**20:.1f} MiB",
            flush=True,
        )
    for sampler in ("tpe", "stage"):
        for workers in counts:
            print(f"{workers:>6} running: a draw of {sampler} takes {1e3 * _draw_s(sampler, workers):.0f} ms", flush=True)


def _draw_s(sampler: str, running: int, finished: int = 200, draws: int = 5) -> float:
    """Return the median seconds of a draw while so many trials run."""
    chains = make_chains("random")
    store = SimulatedStore()
    memory = MemoryRecords()
    coordinator = Coordinator(chains, TrialBook(memory, SimulatedView(store, "s")), samples=finished, max_running=finished)
    simulate([SimulatedSweep(name="s", coordinator=coordinator)], store, finished, lambda task: EPOCH_S)
    more = Coordinator(chains, TrialBook(memory, SimulatedView(store, "s")), samples=finished + running, max_running=running)
    while more.next_trial() is not None:
        pass
    drawing = replace(chains, search=replace(chains.search, sampler=sampler))
    book = TrialBook(memory, SimulatedView(store, "s"))
    last = Coordinator(drawing, book, samples=finished + running + draws, max_running=running + draws)
    while book.num_running < running:
        last.next_trial()
    times = []
    for _ in range(draws):
        began = time.perf_counter()
        assert last.next_trial() is not None
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("records", "driver", "tune", "workers"))
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--control-seconds", type=float, default=30.0)
    parser.add_argument("--control-trials", type=int, default=100)
    parser.add_argument("--sampler", choices=("random", "tpe", "stage"), default="random")
    parser.add_argument("--workers", type=int, nargs="+", default=(100, 1000, 10_000))
    arguments = parser.parse_args()
    threading.excepthook = lambda _: None  # what is still being delivered when a measurement ends finds its folder gone
    print(describe(arguments.trials), flush=True)
    if arguments.what == "records":
        measure_records(arguments.trials, arguments.control_trials)
    elif arguments.what == "driver":
        measure_driver(arguments.trials, arguments.seconds, arguments.control_seconds, arguments.sampler)
    elif arguments.what == "tune":
        from scale_tune import measure_tune  # Ray is slow to import

        measure_tune(arguments.trials, arguments.seconds, arguments.sampler)
    else:
        measure_workers(arguments.workers)


if __name__ == "__main__":
    main()
