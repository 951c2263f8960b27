"""Kills sweeps at random moments until they are done nevertheless, and then checks what they left: a script of its own, because
it forks.

python tests/helpers/crashes.py FOLDER --seed 7 --kills 60
python tests/helpers/crashes.py FOLDER --s3   # the storage on moto's server, which is away now and then, and each driver in a new folder

A machine of forked processes stands for Ray: two sweeps on one store, each with a driver and some workers, which live on when
their driver dies and take the next one. What drivers and workers run is the sweeps' own: coordinator, records, view of the store,
leases, trials, journal. Only the stage's training is made up (`made_up_stage.py`).
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch
from crash_checks import check
from crash_place import SWEEPS, Place, make_chain_builder
from crash_s3 import ObjectStore
from made_up_stage import NO_DATA, MadeUpStage

import sweeps.execution.trial
import sweeps.schedule.store_view
from birdclef_core.store.leases import Holder, Leases
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from sweeps.execution.trial import run_trial
from sweeps.objective import Objective
from sweeps.schedule.coordinator import Coordinator
from sweeps.schedule.store_view import DriverStoreView
from sweeps.schedule.trial_log.writer import RecordWriter
from sweeps.schedule.trials import Trial, TrialBook
from sweeps.schedule.update import TrialUpdate
from sweeps.tracking.delivery import JournalTracker
from sweeps.tracking.events import SweepFinished, SweepStarted
from sweeps.tracking.journal import Journal
from sweeps.tracking.observer import TrackingObserver

WORKERS = 3
"""Of each sweep."""


# A worker


def work(place: Place, sweep: str) -> None:
    """Takes trials from the sweep's driver, one update at a time, until the driver is gone."""
    sweeps.execution.trial.train_stage = MadeUpStage(place.log)
    leases = place.leases
    driver = _connect(place.socket_of(sweep))
    with suppress(EOFError, OSError):
        while True:
            run, trial, chain = driver.recv()
            notes: list[str] = []
            holder = Holder(sweep=sweep, run=run, trial=trial)
            updates = run_trial(
                chain,
                NO_DATA,
                StageStore(place.store.storage, notes.append),
                torch.device("cpu"),
                notes,
                hold=lambda stage_id, holder=holder: leases.hold(stage_id, holder),
                name=f"{sweep}/{trial}",
            )
            for update in updates:
                driver.send(update)
                if not driver.recv():
                    updates.close()
                    break


def _connect(path: str) -> Connection:
    while True:
        with suppress(OSError):
            plug = socket.socket(socket.AF_UNIX)
            plug.connect(path)
            return Connection(plug.detach())
        time.sleep(0.005)


# A driver


@dataclass
class Driver:
    """What Tune does for a sweep, by hand."""

    place: Place
    sweep: str
    run: str
    idle: list[Connection] = field(default_factory=list)
    busy: dict[Connection, Trial] = field(default_factory=dict)
    again: list[Trial] = field(default_factory=list)
    """Trials whose worker was lost."""

    def drive(self) -> None:
        place, sweep = self.place, self.sweep
        driver_leases = Leases(place.storage.at(sweep), duration_s=place.lease_s)
        with driver_leases.hold("driver", Holder(sweep=self.run, run=self.run, trial="driver")) as lease:
            assert lease is not None, "the lease of a driver that was killed is still held"
            chains = make_chain_builder(sweep)
            # With the storage on S3, as on another machine: nothing but the copies there are left of the drivers before.
            folder = place.folder / (f"{sweep}-{self.run}" if place.address else sweep)
            tracker = JournalTracker(folder, "nowhere", _nowhere, place.storage.at(sweep) if place.address else None)
            observer = TrackingObserver(
                tracker,
                place.store,
                folder,
                space=chains.search.space,
                tags={},
                objective=Objective.of(chains.search.objective),
            )
            records = RecordWriter(place.records(sweep), before_batch=tracker.keep)
            book = TrialBook(records, DriverStoreView(place.store, place.leases, sweep=sweep))
            self.coordinator = Coordinator(chains, book, samples=place.samples, max_running=WORKERS, observers=(observer,))
            self.records = records
            self._compare_with_before()
            tracker.log(SweepStarted(sweep=sweep, search="crashes"))
            self._serve()
            tracker.log(SweepFinished(status="finished", table_markdown=""))
            tracker.close(0)

    def _compare_with_before(self) -> None:
        """Nothing that an earlier driver had said may be forgotten or have changed."""
        path = self.place.folder / f"{self.sweep}.said"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        before = {name: said for line in lines if line.endswith("\n") for name, said in json.loads(line).items()}
        now = self._said()
        for trial, (params, outcome) in before.items():
            assert trial in now, f"{trial} is lost"
            assert now[trial][0] == params, f"{trial} has other parameters"
            assert outcome is None or outcome[0] == "pruned" or now[trial][1] == outcome, f"{trial} ended otherwise"
        assert len(now) <= len(before) + 64

    def _said(self) -> dict[str, list]:
        return {
            name: [record.params, [record.status, record.score] if record.ended else None]
            for name, record in self.coordinator.trials.items()
        }

    def _is_kept(self, trial: str) -> bool:
        """On S3 the last quarter of a second may be lost."""
        return not self.place.address or (self.records.is_saved(trial) and trial not in self.coordinator.book._unsaved)

    def _say(self) -> None:
        with (self.place.folder / f"{self.sweep}.said").open("a") as file:
            file.write(json.dumps({name: said for name, said in self._said().items() if self._is_kept(name)}) + "\n")

    def _serve(self) -> None:
        path = self.place.socket_of(self.sweep)
        with socket.socket(socket.AF_UNIX) as door:
            Path(path).unlink(missing_ok=True)
            door.bind(path)
            door.listen(16)
            while not self.coordinator.finished:
                self._hand_out()
                for ready in wait([door, *self.idle, *self.busy], timeout=0.02):
                    if ready is door:
                        self.idle.append(Connection(door.accept()[0].detach()))
                    else:
                        self._hear(ready)
                self._say()

    def _hand_out(self) -> None:
        while self.idle:
            planned = self.again.pop() if self.again else self.coordinator.next_trial()
            if planned is None:
                return
            worker = self.idle.pop()
            self.busy[worker] = planned
            with suppress(OSError):
                worker.send((self.run, planned.record.trial, planned.chain))

    def _hear(self, worker: Connection) -> None:
        try:
            update: TrialUpdate = worker.recv()
        except (EOFError, OSError):
            self._lose(worker)
            return
        goes_on = self.coordinator.update(self.busy[worker].record.trial, update)
        if not goes_on:
            del self.busy[worker]
            self.idle.append(worker)
        with suppress(OSError):
            worker.send(goes_on)

    def _lose(self, worker: Connection) -> None:
        if worker in self.idle:
            self.idle.remove(worker)
            return
        planned = self.busy.pop(worker)
        trial = planned.record.trial
        if self.coordinator.worker_lost(trial, "killed"):
            self.again.append(planned)


class _Nowhere:
    steps = 0

    def apply(self, records: object, *, seen_before: bool) -> None:
        pass

    def is_well(self) -> bool:
        return True


@contextmanager
def _nowhere(memory: dict[str, str]) -> Iterator[_Nowhere]:
    yield _Nowhere()


# The machine, and who kills


def doom(generator: random.Random, probability: float) -> None:
    """Kills this process, with some probability, just before or just after anything that it writes, removes or says."""

    def doomed(call):
        def wrapper(*arguments, **options):
            fate = generator.random()
            if fate < probability / 2:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*arguments, **options)
            if fate < probability:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapper

    for owner, name in ((Storage, "write_bytes"), (Storage, "delete"), (Journal, "append"), (Connection, "send")):
        setattr(owner, name, doomed(getattr(owner, name)))


@dataclass
class Machine:
    """Keeps drivers and workers running, and kills them."""

    place: Place
    random: random.Random
    drivers: dict[str, int] = field(default_factory=dict)
    """Process id by sweep."""
    workers: dict[int, str] = field(default_factory=dict)
    """Sweep by process id."""
    finished: set[str] = field(default_factory=set)
    doom: float = 0.0
    """Of each process at everything that it writes."""
    storage: ObjectStore | None = None
    """The object store that is away now and then."""
    back_at: float = 0.0
    """When it is there again."""
    runs: int = 0
    ended_drivers: int = 0
    ended_workers: int = 0
    """Killed, or orphaned."""
    kills: Counter = field(default_factory=Counter)

    def run(self, kills: int, pause_s: float, limit_s: float) -> None:
        """Let the sweeps come to their end. Leaves no process behind, whatever happens."""
        try:
            self._run(kills, pause_s, limit_s)
        finally:
            for pid in (*self.workers, *self.drivers.values()):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def _run(self, kills: int, pause_s: float, limit_s: float) -> None:
        end = time.monotonic() + limit_s
        next_kill = 0.0
        while len(self.finished) < len(SWEEPS):
            assert time.monotonic() < end, f"not finished after {limit_s} s: {self._state()}"
            self._reap()
            self._fill()
            if self.back_at and time.monotonic() > self.back_at:
                self._storage_back()
            if kills and time.monotonic() > next_kill:
                next_kill = time.monotonic() + self.random.expovariate(1 / pause_s)
                kills -= self._kill() if next_kill else 0
            time.sleep(0.002)
        self._storage_back()

    def _storage_back(self) -> None:
        self.back_at = 0.0
        if self.storage is not None:
            self.storage.open()

    def _fill(self) -> None:
        for sweep in SWEEPS:
            if sweep in self.finished:
                continue
            if sweep not in self.drivers:
                self.runs += 1
                run = f"r{self.runs}"
                self.drivers[sweep] = self._fork(lambda sweep=sweep, run=run: Driver(self.place, sweep, run).drive())
            while sum(of == sweep for of in self.workers.values()) < WORKERS:
                self.workers[self._fork(lambda sweep=sweep: work(self.place, sweep))] = sweep

    def _fork(self, task) -> int:
        sys.stdout.flush()
        fate = self.random.random()
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            sweeps.schedule.store_view.REFRESH_S = 0.1
            doom(random.Random(fate), self.doom)
            task()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        os._exit(status)

    def _reap(self) -> None:
        for sweep, pid in list(self.drivers.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del self.drivers[sweep]
                self.ended_drivers += 1
                if os.WIFEXITED(status):
                    assert os.WEXITSTATUS(status) == 0, f"the driver of {sweep} failed"
                    self.finished.add(sweep)
        for pid in list(self.workers):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del self.workers[pid]
                self.ended_workers += 1
                assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "a worker failed"

    def _kill(self) -> int:
        what = self.random.choices(("worker", "node", "driver", "all", "storage"), (60, 10, 20, 10, 15 if self.storage else 0))[0]
        workers = list(self.workers)
        if what == "storage" and self.storage is not None:
            self.storage.shut()
            self.back_at = time.monotonic() + self.random.uniform(0, 6)
            self.kills[what] += 1
            return 1
        victims = {
            "worker": self.random.sample(workers, 1),
            "node": [pid for pid in workers if self.random.random() < 0.5],
            "driver": self.random.sample(list(self.drivers.values()), 1) if self.drivers else [],
            "all": [*workers, *self.drivers.values()],
        }[what]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        self.kills[what] += 1
        return 1

    def _state(self) -> str:
        return json.dumps(
            {sweep: [[r.trial, r.status, r.reason] for r in self.place.records(sweep).load_trials()] for sweep in SWEEPS}
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=1, help="stores, one after the other")
    parser.add_argument("--kills", type=int, default=40, help="in each round, at most")
    parser.add_argument("--doom", type=float, default=0.004, help="probability of dying by one's own hand at each thing written")
    parser.add_argument(
        "--s3", action="store_true", help="on moto's server, which is away now and then; one round, then it is checked"
    )
    parser.add_argument("--keep", action="store_true", help="what the rounds have left")
    parser.add_argument("--pause", type=float, default=0.06, help="mean seconds between two")
    options = parser.parse_args()
    for seed in range(options.seed, options.seed + options.rounds):
        storage = ObjectStore() if options.s3 else None
        place = Place(options.folder / f"seed{seed}", address=storage.uri if storage else "")
        shutil.rmtree(place.folder, ignore_errors=True)
        place.folder.mkdir(parents=True)
        machine = Machine(place, random.Random(seed), doom=options.doom, storage=storage)
        started = time.monotonic()
        try:
            machine.run(options.kills, options.pause, limit_s=(300 if storage else 60) + options.kills * options.pause)
            wall_s = time.monotonic() - started
            figures = check(place, machine.ended_workers)
        finally:
            if storage:
                storage.stop()
        ended = f"{machine.ended_drivers} drivers and {machine.ended_workers} workers ended"
        print(f"seed {seed}: {dict(machine.kills)} kills, {ended}, {figures}, {wall_s:.1f} s", flush=True)
        if not options.keep:
            shutil.rmtree(place.folder)


if __name__ == "__main__":
    main()
