"""Joins or starts Ray, and finds the share of a machine that a trial gets and how many trials run at the same time."""

import logging
import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from birdclef_core.errors import InputError
from sweeps.execution.private_ray import keep_keys_off_runtime_environments, private_ray

OBJECT_STORE_BYTES = 256 * 2**20


@dataclass(frozen=True, kw_only=True)
class Slots:
    """The share of a machine that one trial gets, and how many trials run at the same time."""

    gpus_per_trial: float
    cpus_per_trial: int
    max_concurrent: int
    num_nodes: int

    @property
    def threads_per_trial(self) -> int:
        return self.cpus_per_trial

    def resources(self) -> dict[str, float]:
        """The share as Ray's resources."""
        gpus = {"gpu": self.gpus_per_trial} if self.gpus_per_trial else {}
        return {"cpu": self.cpus_per_trial, **gpus}

    def describe(self) -> str:
        share = (
            f"{self.gpus_per_trial:g} GPU and {self.cpus_per_trial} CPU"
            if self.gpus_per_trial
            else f"{self.cpus_per_trial} CPU, no GPU"
        )
        return f"{self.max_concurrent} at a time on {self.num_nodes} machine(s), each with {share}"


@contextmanager
def connect(address: str | None) -> Iterator[None]:
    """Join the Ray cluster at `address` (`auto`: the one of this machine) for the block, or start one without an address.

    One that is started here can be reached by nobody else (`private_ray`). Raises InputError when no cluster answers at the
    address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    keep_keys_off_runtime_environments()
    place: AbstractContextManager[dict[str, Any]] = private_ray() if address is None else nullcontext({})
    with place as own:
        if address is None:
            own |= {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
        try:
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **own)
        except ConnectionError as error:
            raise InputError(f"--address must name a running Ray cluster, but none answers at {address!r}: {error}") from None
        try:
            yield
        finally:
            ray.shutdown()


def make_slots(gpus_per_trial: float | None, cpus_per_trial: int | None, max_concurrent: int | None) -> Slots:
    """Find the slots from the user's options and the cluster's resources.

    By default a trial gets one GPU, where there are any, and an equal share of the CPUs; without GPUs it gets one CPU core. A
    fraction of a GPU lets several trials share it. `max_concurrent` is not checked, because a cluster may grow. Raises
    InputError when a trial needs more GPUs or CPUs than the cluster has.
    """
    total = ray.cluster_resources()
    gpus, cpus = total.get("GPU", 0.0), total.get("CPU", 1.0)
    wanted = gpus_per_trial if gpus_per_trial is not None else float(gpus > 0)
    if wanted > gpus:
        raise InputError(
            f"--gpus-per-trial <= the cluster's GPUs must hold, but got {wanted:g} and the cluster has {gpus:g}. "
            "Leave it out to run on CPUs, or check that Ray sees the GPUs (nvidia-smi, CUDA_VISIBLE_DEVICES)."
        )
    if wanted:
        fitting = math.floor(gpus / wanted) if wanted >= 1 else math.floor(gpus) * math.floor(1 / wanted)
        share = max(1, int(cpus // fitting))
    else:
        share = 1
        fitting = int(cpus // (cpus_per_trial or share))
    cores = cpus_per_trial or share
    if cores > cpus:
        raise InputError(f"--cpus-per-trial <= the cluster's CPUs must hold, but got {cores} and the cluster has {cpus:g}.")
    nodes = sum(node["Alive"] for node in ray.nodes())
    return Slots(
        gpus_per_trial=wanted,
        cpus_per_trial=cores,
        max_concurrent=max_concurrent or max(1, fitting),
        num_nodes=nodes,
    )


@contextmanager
def ray_log(path: Path) -> Iterator[None]:
    """Send everything that Ray prints and logs in this process to a file. A console made before still writes to the terminal."""
    with path.open("a", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        yield
