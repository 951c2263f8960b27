"""Which share of a node a trial gets, and how many trials the nodes of a cluster have room for. Figures only, no Ray."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from birdclef_core.errors import InputError
from sweeps.wording import counted

NODE_ID_LENGTH = 6
"""How much of a node's id is shown."""
MOST_LISTED = 12
"""How many nodes a message names."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine of the cluster, with all that it has, whether it is in use or not."""

    name: str
    node_id: str = ""
    gpus: float = 0.0
    cpus: float = 0.0
    cards: tuple[str, ...] = ()
    """The name of each of its GPUs; empty when it is not known."""

    @property
    def short_id(self) -> str:
        """The beginning of its id, as updates and the terminal have it."""
        return self.node_id[:NODE_ID_LENGTH]

    def describe(self) -> str:
        """Return the node with what it has: `host-a: 1 GPU, 8 CPU`."""
        return f"{self.name}: {self.gpus:g} GPU, {self.cpus:g} CPU"


@dataclass(frozen=True, kw_only=True)
class Slots:
    """The share of a machine that one trial gets, and how many trials run at the same time."""

    gpus_per_trial: float
    cpus_per_trial: int
    max_concurrent: int
    """How many trials the nodes have room for when the sweep starts, at most as many as the user allows."""
    num_nodes: int
    """How many nodes have room."""
    devices: Mapping[str, int] = field(default_factory=dict)
    """How many of these trials run on each kind of GPU, by its name; empty where trials have none, or the names are not known."""

    @property
    def threads_per_trial(self) -> int:
        return self.cpus_per_trial

    def resources(self) -> dict[str, float]:
        """The share as Ray's resources."""
        gpus = {"GPU": self.gpus_per_trial} if self.gpus_per_trial else {}
        return {"CPU": self.cpus_per_trial, **gpus}

    @property
    def share(self) -> str:
        """The share as text."""
        return _share(self.gpus_per_trial, self.cpus_per_trial)

    def describe(self) -> str:
        cards = ", ".join(f"{number} on {name}" for name, number in self.devices.items()) if len(self.devices) > 1 else ""
        return f"{self.max_concurrent} at a time on {counted(self.num_nodes, 'machine')}, each with {self.share}{cards and f' ({cards})'}"

    def room(self, nodes: Sequence[Node]) -> int:
        """How many trials fit on some nodes at the same time, each on one node."""
        return sum(_room(node, self.gpus_per_trial, self.cpus_per_trial) for node in nodes)


def check_can_choose(
    nodes: Sequence[Node], *, gpus_per_trial: float | None, wait_for_gpus: int | None, runs_on_cpus: bool
) -> None:
    """Raise InputError where nobody said whether trials are to run on GPUs and no node has one yet: workers may be about to join.

    `runs_on_cpus`: whether the sweep is one for CPUs (the small budget), if a node has one.
    """
    if gpus_per_trial is not None or wait_for_gpus is not None or any(node.gpus for node in nodes):
        return
    if runs_on_cpus and any(node.cpus for node in nodes):
        return
    raise InputError(
        "A sweep on a cluster must know what its trials run on, but no node has a GPU and neither --wait-for-gpus nor --gpus-per-trial was "
        f"given: workers may not have joined yet. Give --wait-for-gpus N to begin once the cluster has N GPUs, or --gpus-per-trial 0 to "
        f"train on CPUs. Nodes: {list_nodes(nodes)}."
    )


def what_is_missing(nodes: Sequence[Node], *, wait_for_gpus: int | None) -> str:
    """Return what must join before a sweep can begin, as text; empty when it can begin."""
    gpus = sum(node.gpus for node in nodes)
    if gpus < (wait_for_gpus or 0):
        return f"{wait_for_gpus} GPUs (--wait-for-gpus), of which {gpus:g} are there"
    if not any(node.gpus or node.cpus for node in nodes):
        return "a node with a GPU or a CPU for trials"
    return ""


def plan_slots(
    nodes: Sequence[Node], gpus_per_trial: float | None, cpus_per_trial: int | None, max_concurrent: int | None
) -> Slots:
    """Find the slots from the user's options and what each node has.

    By default a trial gets one GPU, where there are any, and as many CPUs as every GPU's node can give each of its trials; without GPUs
    it gets one CPU core. A fraction of a GPU lets several trials share it. Raises InputError when a trial fits on none of the nodes.
    """
    wanted = gpus_per_trial if gpus_per_trial is not None else float(any(node.gpus for node in nodes))
    cores = cpus_per_trial or (_equal_share(nodes, wanted) if wanted else 1)
    slots = Slots(gpus_per_trial=wanted, cpus_per_trial=cores, max_concurrent=1, num_nodes=0)
    room = slots.room(nodes)
    if not room:
        raise InputError(
            f"A trial must fit on one node, but --gpus-per-trial {wanted:g} and --cpus-per-trial {cores} are more than each of these has: "
            f"{list_nodes(nodes)}. Ask for less (--gpus-per-trial 0 trains on CPUs), or check that Ray sees the GPUs (nvidia-smi, "
            "CUDA_VISIBLE_DEVICES). If larger nodes are to join, wait for them: --wait-for-gpus N."
        )
    at_once = min(room, max_concurrent or room)
    cards = [card for node in nodes for card in _cards(node, slots.room([node]))] if wanted else []
    return Slots(
        gpus_per_trial=wanted,
        cpus_per_trial=cores,
        max_concurrent=at_once,
        num_nodes=sum(slots.room([node]) > 0 for node in nodes),
        # Of more trials than are allowed, those that run are taken to be spread over the nodes.
        devices={} if "" in cards else Counter(cards[index * room // at_once] for index in range(at_once) if cards),
    )


def list_nodes(nodes: Sequence[Node]) -> str:
    """Return the nodes with what they have, in one line."""
    listed = [node.describe() for node in nodes[:MOST_LISTED]]
    more = [f"{len(nodes) - MOST_LISTED} more"] if len(nodes) > MOST_LISTED else []
    return "; ".join(listed + more) or "none"


class Capacity:
    """Counts the room anew while a sweep runs, as nodes come and go, and says how much more the sweep could use."""

    def __init__(self, slots: Slots, *, max_concurrent: int | None, say: Callable[[str], None]) -> None:
        """`max_concurrent`: the most trials at the same time that the user allows; None: as many as fit."""
        self._slots, self._max, self._say = slots, max_concurrent, say
        self._room = slots.max_concurrent
        self._known: dict[str, Node] = {}

    def count(self, nodes: Sequence[Node], fit: Sequence[Node] | None = None) -> int:
        """Return how many trials may run at the same time on the nodes that there are now. Say what has changed.

        `fit`: those of the nodes that can train; None: all of them.
        """
        before, self._known = self._known, {node.node_id: node for node in nodes}
        room = self._limited(self._slots.room(nodes if fit is None else fit))
        if before:
            self._say_changes(before, room)
        self._room = room
        return room

    def bundles(self, could_run: int) -> list[dict[str, float]]:
        """Return what the sweep would use, for an autoscaler: the share of a trial as often as trials could run at the same time."""
        return [self._slots.resources()] * self._limited(could_run)

    def _limited(self, number: int) -> int:
        return number if self._max is None else min(number, self._max)

    def _say_changes(self, before: dict[str, Node], room: int) -> None:
        came = [node for node_id, node in self._known.items() if node_id not in before]
        gone = [node for node_id, node in before.items() if node_id not in self._known]
        useless = [node for node in came if not self._slots.room([node])]
        what = [f"{node.describe()} joined" for node in came] + [f"{node.name} is gone" for node in gone]
        if what:
            self._say(f"Nodes: {'; '.join(what)}. Trials at a time: {room} (before: {self._room}).")
        for node in useless:
            self._say(f"{node.name} has no room for a trial of this sweep, which needs {self._slots.share}.")
        if not room and self._room:
            self._say("No node has room for a trial now: the sweep waits for one. Ctrl-C stops it; --resume goes on.")


def _equal_share(nodes: Sequence[Node], gpus: float) -> int:
    """CPU cores for each trial, so that all GPUs can be used on every node that has both."""
    shares = [int(node.cpus // fitting) for node in nodes if node.cpus >= 1 and (fitting := _fit_on_gpus(node, gpus))]
    return max(1, min(shares, default=1))


def _room(node: Node, gpus: float, cpus: int) -> int:
    by_cpus = int(node.cpus // cpus)
    return min(by_cpus, _fit_on_gpus(node, gpus)) if gpus else by_cpus


def _fit_on_gpus(node: Node, gpus: float) -> int:
    """Trials share a GPU, or have several: what is left of each GPU is lost."""
    return int(node.gpus // gpus) if gpus >= 1 else math.floor(node.gpus) * math.floor(1 / gpus)


def _cards(node: Node, room: int) -> list[str]:
    """The card of each of the trials that a node has room for; an empty name where it is not known."""
    return [node.cards[index * len(node.cards) // room] if node.cards else "" for index in range(room)]


def _share(gpus: float, cpus: int) -> str:
    return f"{gpus:g} GPU and {cpus} CPU" if gpus else f"{cpus} CPU, no GPU"
