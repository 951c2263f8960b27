"""What is still to be written to each run of an MLflow server: as few requests a run as MLflow allows, and several runs at a time.

A request takes 5 ms, or 250 ms where the server checks a password each time. So all epochs, parameters and tags that a run gets from a
batch of events are one request (MLflow's client makes more of them above 1000 metrics or 100 parameters), as are all checkpoints that it uses.

MLflow's client takes milliseconds of CPU for each request, in the driver's process, whose own thread must take the updates of all trials. So the
outbox rests between requests: it takes at most CPU_SHARE of a core, and what comes meanwhile goes together into fewer requests.
"""

import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import LoggedModelInput, LoggedModelOutput, Metric, Param, RunTag
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from sweeps.tracking.events import part_of

T = TypeVar("T")

CPU_SHARE = 0.1
"""The most of a core that requests take, over some seconds, while a sweep runs."""
FREE_CPU_S = 0.3
"""So many seconds of CPU are taken at once before the outbox rests: a small sweep never does."""

TAG_CHARACTERS = 8000
_COPY_S = 60.0
"""How long files that are being copied are waited for. A driver that was killed left them so."""
_PARAM_CHARACTERS = 6000
_NOT_IN_PARAM_NAMES = re.compile(r"[^\w.\- :/]")


@dataclass
class _Entries:
    """What will be written to one run."""

    metrics: list[Metric] = field(default_factory=list)
    params: list[Param] = field(default_factory=list)
    tags: list[RunTag] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    """Ids of the models of checkpoints that it uses."""
    outputs: list[tuple[str, int]] = field(default_factory=list)
    """Ids of the models of checkpoints that it made, with the step of each."""
    status: str = ""
    ended_ms: int | None = None
    """Unix time at which it ended, if its status is the last one."""
    folders: list[Path] = field(default_factory=list)
    """Folders whose files are uploaded."""


class Outbox:
    """Collects what is to be written to runs, and sends it."""

    def __init__(self, client: MlflowClient, url: str, threads: int) -> None:
        """`threads`: how many requests are under way at the same time."""
        self._client, self._url, self._threads = client, url, threads
        self.rest: Callable[[float], object] = _go_on
        """Waits for so many seconds, or less when there is no need to wait any more."""
        self._lock = threading.Lock()
        self._paid_until = 0.0
        """When the CPU time that was taken so far would have been taken at CPU_SHARE of a core."""
        self._entries: dict[str, _Entries] = {}
        self.artifact_uris: dict[str, str] = {}
        """Where the files of runs go; of other runs than these the server is asked."""
        self.steps = 0
        """How many things have been done so far."""

    def clear(self) -> None:
        self._entries = {}

    def enter(
        self,
        run_id: str,
        *,
        metrics: Mapping[str, float] | None = None,
        step: int = 0,
        time_ms: int = 0,
        model_id: str | None = None,
        params: Mapping[str, str | int | float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add metrics, parameters and tags. A metric that is not finite becomes a tag, because MLflow would draw it as 1e308."""
        entries = self._of(run_id)
        for name, value in (metrics or {}).items():
            if math.isfinite(value):
                entries.metrics.append(Metric(name, value, time_ms, step, model_id=model_id))
            else:
                entries.tags.append(RunTag(f"birdclef.not_finite.{name}", f"{value} at step {step}"))
        entries.params += [Param(param_name(name), str(value)[:_PARAM_CHARACTERS]) for name, value in (params or {}).items()]
        entries.tags += [RunTag(name, str(value)[:TAG_CHARACTERS]) for name, value in (tags or {}).items()]

    def use(self, run_id: str, model_id: str) -> None:
        """Make a checkpoint's model an input of a run."""
        inputs = self._of(run_id).inputs
        if model_id not in inputs:
            inputs.append(model_id)

    def make(self, run_id: str, model_id: str, step: int) -> None:
        """Make a checkpoint's model an output of a run."""
        self._of(run_id).outputs.append((model_id, step))

    def set_status(self, run_id: str, status: str) -> None:
        entries = self._of(run_id)
        entries.status, entries.ended_ms = status, None

    def end(self, run_id: str, status: str, time_ms: int, folder: Path | None = None) -> None:
        """End a run, then upload a folder: a failed upload affects nothing else."""
        entries = self._of(run_id)
        entries.status, entries.ended_ms = status, time_ms
        entries.folders += [folder] if folder else []

    def send(self, *, look_first: bool) -> None:
        """Write everything. Raises the first error once the other runs are written. `look_first`: whether runs may have some of it already."""
        entries, self._entries = self._entries, {}
        self.at_once(lambda item: self._send(*item, look_first=look_first), entries.items())

    def at_once(self, work: Callable[[T], object], items: Iterable[T]) -> None:
        """Do work for several things at the same time. Raises the first error once all are done."""

        def count(item: T) -> None:
            began = time.thread_time()
            try:
                work(item)
            finally:
                self._pay(time.thread_time() - began)
            self.steps += 1

        with ThreadPoolExecutor(self._threads) as pool:
            done = [pool.submit(count, item) for item in items]
        for future in done:
            future.result()

    def _pay(self, cpu_s: float) -> None:
        """Rest until CPU time that was just taken is no more than CPU_SHARE of a core."""
        with self._lock:
            now = time.monotonic()
            self._paid_until = max(self._paid_until, now) + cpu_s / CPU_SHARE
            rest_s = self._paid_until - now - FREE_CPU_S / CPU_SHARE
        if rest_s > 0:
            self.rest(rest_s)

    def _send(self, run_id: str, entries: _Entries, *, look_first: bool) -> None:
        if entries.metrics or entries.params or entries.tags:
            self._client.log_batch(run_id, entries.metrics, entries.params, entries.tags)
        if entries.inputs:
            self._client.log_inputs(run_id, models=[LoggedModelInput(model_id) for model_id in entries.inputs])
        if outputs := self._missing_outputs(run_id, entries) if look_first else entries.outputs:
            self._client.log_outputs(run_id, [LoggedModelOutput(model_id, step) for model_id, step in outputs])
        if entries.ended_ms is not None:
            self._client.set_terminated(run_id, entries.status, end_time=entries.ended_ms)
        elif entries.status:
            self._client.update_run(run_id, status=entries.status)
        for folder in entries.folders:
            if not _is_there(folder):
                self._client.set_tag(run_id, "birdclef.artifacts_missing", str(folder))
                continue
            # client.log_artifacts remembers the address of the server that a run was first uploaded to, so it is not used.
            get_artifact_repository(self._artifact_uri(run_id), tracking_uri=self._url).log_artifacts(str(folder))
        if entries.ended_ms is not None:
            self.artifact_uris.pop(run_id, None)

    def _missing_outputs(self, run_id: str, entries: _Entries) -> list[tuple[str, int]]:
        if not entries.outputs:
            return []
        there = self._client.get_run(run_id).outputs
        known = {output.model_id for output in there.model_outputs} if there else set()
        return [output for output in entries.outputs if output[0] not in known]

    def _artifact_uri(self, run_id: str) -> str:
        return self.artifact_uris.get(run_id) or self._client.get_run(run_id).info.artifact_uri

    def _of(self, run_id: str) -> _Entries:
        return self._entries.setdefault(run_id, _Entries())


def _go_on(_: float) -> None:
    """Do not wait."""


def _is_there(folder: Path) -> bool:
    """Whether a folder is there, or is soon, because its files are being copied."""
    until = time.monotonic() + _COPY_S
    while part_of(folder).is_dir() and not folder.is_dir() and time.monotonic() < until:
        time.sleep(0.1)
    return folder.is_dir()


def param_name(name: str) -> str:
    """Return the name of a parameter as MLflow takes it: `train.noise.*.prob` is `train.noise.all.prob` there."""
    return _NOT_IN_PARAM_NAMES.sub("_", name.replace("*", "all"))
