"""Measure the cost of the stage tree for each trial: ids, look-ups, queue, leases, publishing, records and tracking.

The stages take no time; the control makes and saves the same stages with nothing around them.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from made_up_stages import made_up_record
from safetensors.torch import save_file

import sweeps.execution.trial
from birdclef_core.stages.epochs import EpochMetrics
from birdclef_core.stages.task import StageTask
from birdclef_core.store.leases import Holder, Leases
from birdclef_core.store.stage_store import WEIGHTS, StageStore
from birdclef_core.store.storage import Storage
from sweeps.execution.trial import run_trial
from sweeps.objective import Objective
from sweeps.schedule.coordinator import Coordinator
from sweeps.schedule.records import SweepRecords
from sweeps.schedule.store_view import DriverStoreView
from sweeps.schedule.trial_log.writer import RecordWriter
from sweeps.schedule.trials import TrialBook
from sweeps.search.chains import ChainBuilder
from sweeps.tracking.connect import make_tracker
from sweeps.tracking.events import SweepStarted
from sweeps.tracking.observer import TrackingObserver

SIZE_FLOATS = 250_000
"""Number of weights of a made-up stage: 1 MB, which both sides publish."""


def train_at_once(
    task: StageTask, data: object, store: StageStore, device: object, *, stop: object, on_note: object, trained_by: str = ""
) -> Iterator[EpochMetrics]:
    """Replace `train_stage`: report one epoch that takes no time, and publish the stage."""
    with store.publish(lambda: made_up_record(task, trained_by=trained_by), task.stage_id) as folder:
        _save_weights(folder / WEIGHTS)
    yield _METRICS


def _save_weights(path: Path) -> None:
    save_file({"weight": torch.zeros(SIZE_FLOATS)}, path)


_METRICS = EpochMetrics(
    epoch=1,
    is_last=True,
    train_loss=1.0,
    learning_rate=1e-3,
    clips_per_s=1.0,
    waited_s=0.0,
    device_s=0.0,
    evaluate_s=0.0,
    epoch_s=0.0,
    memory_bytes=0,
    bottleneck="",
    waits_for_data=False,
    scores={"cmap": 0.5},
    time_s=0.0,
)


@dataclass
class Clock:
    """Seconds of each part."""

    parts_s: Counter[str] = field(default_factory=Counter)

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                self.parts_s[part] += time.perf_counter() - started  # type: ignore[assignment]

        return wrapper


class TimedObserver:
    """An observer that times another."""

    def __init__(self, observer: TrackingObserver, clock: Clock) -> None:
        for name in ("trial_started", "updated", "stage_recovered", "worker_lost", "trial_ended"):
            setattr(self, name, clock.timed("tracking", getattr(observer, name)))


def timed_records(records: SweepRecords, clock: Clock) -> RecordWriter:
    """Return what writes the records, with its time on the clock: also that of waiting until they are written."""
    writer = RecordWriter(records)
    for name in ("save_trials", "wait"):
        setattr(writer, name, clock.timed("records", getattr(writer, name)))
    return writer


def overhead(chains: ChainBuilder, trials: int, s3_trials: int) -> None:
    """Print the milliseconds per trial for a local store and for one on S3."""
    print("milliseconds per trial; 'bare' makes and saves the same stages with nothing around them")
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        _measure("local", Storage.parse(f"{folder}/storage"), Path(folder), chains, trials)
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder, moto_bucket() as uri:
        _measure("S3", Storage.parse(uri), Path(folder), chains, s3_trials)


def _measure(title: str, storage: Storage, folder: Path, chains: ChainBuilder, trials: int) -> None:
    chains = _one_epoch(chains)
    clock, train_stage = Clock(), sweeps.execution.trial.train_stage
    sweeps.execution.trial.train_stage = train_at_once
    try:
        tree_s, coordinator, delivery_s = _sweep(storage, folder, chains, trials, clock)
    finally:
        sweeps.execution.trial.train_stage = train_stage
    trained = sum(len(record.trained_ids) for record in coordinator.trials.values())
    bare_s = _bare(storage.at("bare"), folder, trained)
    per_trial = {part: 1e3 * seconds / trials for part, seconds in clock.parts_s.items()}
    whole, bare = 1e3 * tree_s / trials, 1e3 * bare_s / trials
    rest = whole - sum(per_trial.values())
    print(
        f"{title:>6}: {whole - bare:6.1f} more than bare ({whole:.1f} against {bare:.1f}), {trials} trials of 5 stages, {trained} trained: "
        + ", ".join(f"{part} {value:.1f}" for part, value in per_trial.items())
        + f", look-ups, leases and publishing {rest - bare:.1f}; delivered to MLflow {delivery_s:.0f} s later",
        flush=True,
    )


def _sweep(storage: Storage, folder: Path, chains: ChainBuilder, trials: int, clock: Clock) -> tuple[float, Coordinator, float]:
    """Return the seconds for all trials, one after the other in this process, and until all events were delivered."""
    store, leases = StageStore(storage.at("store")), Leases(storage.at("store"))
    tracker = make_tracker(str(folder / "mlflow"), folder / "sweep")
    objective = Objective.of(chains.search.objective)
    observer = TrackingObserver(tracker, store, folder / "sweep", space=chains.search.space, tags={}, objective=objective)
    tracker.log(SweepStarted(sweep="overhead", search="overhead"))
    time.sleep(15)  # the server is up
    started = time.perf_counter()
    records = timed_records(SweepRecords(storage.at("overhead")), clock)
    coordinator = Coordinator(
        chains,
        TrialBook(records, DriverStoreView(store, leases, sweep="overhead")),
        samples=trials,
        max_running=1,
        observers=(TimedObserver(observer, clock),),  # type: ignore[arg-type],
    )
    inside = Clock()
    next_trial, update = (inside.timed("ids and queue", call) for call in (coordinator.next_trial, coordinator.update))
    while (planned := next_trial()) is not None:
        trial = planned.record.trial
        holder = Holder(sweep="overhead", run="1", trial=trial)
        for told in run_trial(
            planned.chain,
            None,  # type: ignore[arg-type]
            store,
            torch.device("cpu"),
            [],
            hold=lambda stage_id, holder=holder: leases.hold(stage_id, holder),  # type: ignore[misc]
            name=f"overhead/{trial}",
        ):
            if not update(trial, told):
                break
    tree_s = time.perf_counter() - started
    clock.parts_s["ids and queue"] = inside.parts_s["ids and queue"] - sum(clock.parts_s.values())  # type: ignore[assignment]
    delivering = time.perf_counter()
    delivery = tracker.close(600)
    assert not delivery.kept and not delivery.rejected, delivery
    return tree_s, coordinator, time.perf_counter() - delivering


def _bare(storage: Storage, folder: Path, stages: int) -> float:
    """Return the seconds to save the weights of a number of stages."""
    started = time.perf_counter()
    for number in range(stages):
        _save_weights(folder / "weights")
        with storage.filesystem.open_output_stream(_made(storage, f"w{number}")) as stream:
            stream.write((folder / "weights").read_bytes())
    return time.perf_counter() - started


def _made(storage: Storage, name: str) -> str:
    if storage.is_local:
        Path(storage.root).mkdir(parents=True, exist_ok=True)
    return storage.path(name)


def _one_epoch(chains: ChainBuilder) -> ChainBuilder:
    recipes = tuple(
        replace(recipe, stages=tuple(replace(stage, epochs=1) for stage in recipe.stages)) for recipe in chains.search.recipes
    )
    return replace(chains, search=replace(chains.search, recipes=recipes))


@contextmanager
def moto_bucket() -> Iterator[str]:
    """Yield an empty bucket on a moto server in a process of its own."""
    os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_EC2_METADATA_DISABLED": "true"}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        import boto3

        client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1")
        bucket = f"bucket-{uuid.uuid4().hex[:8]}"
        _until_it_answers(lambda: client.create_bucket(Bucket=bucket))
        yield f"s3://{bucket}/sweeps?endpoint_override=http://127.0.0.1:{port}&region=us-east-1"
    finally:
        server.kill()
        server.wait()


def _until_it_answers(call: Callable[[], object], limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while True:
        try:
            call()
            return
        except Exception:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)
