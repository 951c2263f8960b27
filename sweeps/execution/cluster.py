"""Joins or starts Ray, and asks it for the nodes that there are."""

import logging
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray._private.services import canonicalize_bootstrap_address
from ray.autoscaler.sdk import request_resources
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from birdclef_core.errors import InputError
from sweeps.execution.nodes.check import NodeCheck
from sweeps.execution.nodes.slots import NODE_ID_LENGTH, Node, Slots, check_can_choose, list_nodes, plan_slots, what_is_missing
from sweeps.execution.private_ray import keep_keys_off_runtime_environments, private_ray
from sweeps.options import SweepOptions

OBJECT_STORE_BYTES = 256 * 2**20
ANSWER_S = 10.0
"""For how long a cluster's address may not answer."""
CHECK_S = 180.0
"""For how long a node may look whether it can train: it imports torch, which takes a minute where the disk is slow."""
CARDS_S = 60.0
"""For how long nodes may take to say which GPUs they have. Ray starts a process for it."""
WAIT_S = 2.0
"""How often the nodes are counted while a sweep waits for them."""


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
            if address is not None and "://" not in address:
                _check_answers(address)
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **own)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            if address is None:
                raise
            raise InputError(
                f"--address must name a running Ray cluster, but none answers at {address!r}: {error} Start one (ray start --head), correct "
                "the address (HOST:PORT as `ray start` prints it; auto on a machine of the cluster), or leave it out to run on this machine alone."
            ) from None
        try:
            yield
        finally:
            if address is not None:
                with suppress(Exception):  # the cluster may be gone
                    ask_autoscaler([])
            ray.shutdown()


def alive_nodes() -> list[Node]:
    """The nodes of the cluster that this process has joined, with what each has in all."""
    return [
        Node(
            node_id=node["NodeID"],
            name=f"{node['NodeManagerHostname']} ({node['NodeID'][:NODE_ID_LENGTH]})",
            gpus=node["Resources"].get("GPU", 0.0),
            cpus=node["Resources"].get("CPU", 0.0),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def find_slots(options: SweepOptions, *, runs_on_cpus: bool, say: Callable[[str], None]) -> Slots:
    """Find the slots of a sweep on the nodes that there are, after waiting for what the options ask for.

    `runs_on_cpus`: whether the sweep is one for CPUs (the small budget). Raises InputError as `check_can_choose` and `plan_slots` do.
    """
    if options.address is not None:
        gpus, cpus, wait_for_gpus = options.gpus_per_trial, options.cpus_per_trial or 1, options.wait_for_gpus
        check_can_choose(alive_nodes(), gpus_per_trial=gpus, wait_for_gpus=wait_for_gpus, runs_on_cpus=runs_on_cpus)
        asked = [{"GPU": 1.0}] * (wait_for_gpus or 0) or [{"GPU": gpus} if gpus else {"CPU": float(cpus)}]
        _wait_for_nodes(lambda nodes: what_is_missing(nodes, wait_for_gpus=wait_for_gpus), asked, say)
    nodes = alive_nodes()
    if options.gpus_per_trial != 0:
        # A Ray of this sweep alone is on this machine, and to start a process for the question takes seconds.
        here = options.address is None and any(node.gpus for node in nodes)
        nodes = [replace(node, cards=_cards_here()) for node in nodes] if here else with_cards(nodes)
    return plan_slots(nodes, options.gpus_per_trial, options.cpus_per_trial, options.max_concurrent)


def with_cards(nodes: Sequence[Node]) -> list[Node]:
    """Return the nodes with the names of their GPUs. One that does not answer, or has no nvidia-smi, has none."""
    task = ray.remote(num_cpus=0, num_gpus=0, max_retries=0)(_cards_here)
    refs = {
        node.node_id: task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False)).remote()
        for node in nodes
        if node.gpus
    }
    done = set(ray.wait(list(refs.values()), num_returns=len(refs), timeout=CARDS_S)[0]) if refs else set()
    cards: dict[str, tuple[str, ...]] = {}
    for node_id, ref in refs.items():
        with suppress(ray.exceptions.RayError):  # the node has just left the cluster
            cards[node_id] = ray.get(ref) if ref in done else ()
    return [replace(node, cards=cards.get(node.node_id, ())) for node in nodes]


def _cards_here() -> tuple[str, ...]:
    """The names of this machine's GPUs, as torch has them too. Asked of the driver's own tool, because Ray hides GPUs from a task without one."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CARDS_S / 2, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip()) if done.returncode == 0 else ()


def _wait_for_nodes(
    missing: Callable[[Sequence[Node]], str], wanted: Sequence[dict[str, float]], say: Callable[[str], None]
) -> None:
    """Wait until nothing is missing, and say what is whenever it changes. An autoscaler, where there is one, is asked for `wanted`."""
    said = ""
    while what := missing(nodes := alive_nodes()):
        if what != said:
            said = what
            say(f"Waiting for {what}. Nodes: {list_nodes(nodes)}.")
            ask_autoscaler(wanted)
        time.sleep(WAIT_S)


def ask_autoscaler(bundles: Sequence[dict[str, float]]) -> None:
    """Tell the cluster's autoscaler how large the cluster is to be. It holds until it is asked anew; without an autoscaler nothing happens."""
    request_resources(bundles=list(bundles))


def check_nodes(check: NodeCheck, nodes: Sequence[Node], gpus: float) -> dict[str, str]:
    """Let each node look whether it can train, and return the problem of each that cannot, by the beginning of its id.

    `gpus`: the GPUs of a trial, as they are needed to see one. A node that does not answer in time (its GPUs may be in use) is left out.
    """
    task = ray.remote(num_cpus=0, num_gpus=min(gpus, 1), max_retries=0)(_problem_here)
    asked = ray.put(check)
    refs = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False)).remote(asked): node.short_id
        for node in nodes
    }
    done, late = ray.wait(list(refs), num_returns=len(refs), timeout=CHECK_S)
    for ref in late:
        ray.cancel(ref, force=True)
    return {refs[ref]: problem for ref in done if (problem := _answer(ref))}


def _problem_here(check: NodeCheck) -> str:
    return check.problem(ray.get_runtime_context().get_node_id()[:NODE_ID_LENGTH])


def _answer(ref: Any) -> str:
    """The problem that a node found, or why it could not look: the project may not be installed there."""
    try:
        return str(ray.get(ref))
    except (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError):
        return ""  # it has just left the cluster
    except ray.exceptions.RayError as error:
        return f"what a trial needs could not be loaded there: {str(error).strip().splitlines()[-1]}"


def _check_answers(address: str) -> None:
    """Raise OSError when no cluster answers at an address, RayError when something else does. Ray itself would try for ten minutes or more."""
    found = canonicalize_bootstrap_address(address)  # `auto` may be an old cluster's address
    if found is None:
        return
    host, _, port = found.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S):
        pass
    ray._raylet.GcsClient(address=found)  # type: ignore[attr-defined]


@contextmanager
def ray_log(path: Path) -> Iterator[None]:
    """Send everything that Ray prints and logs in this process to a file. A console made before still writes to the terminal."""
    with path.open("a", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        yield
