"""The nodes on which trials cannot be trained: they get no trials for a while, and a sweep without a fit node ends."""

import time
from collections.abc import Callable, Sequence

from sweeps.execution.nodes.slots import Node, Slots
from sweeps.schedule.coordinator import Observer
from sweeps.schedule.trials import Trial
from sweeps.schedule.update import TrialUpdate

AGAIN_S = 600.0
"""After this time a node is tried again: somebody may have brought the data."""
MANY_NODES = 3
"""When so many nodes cannot train and none ever has, the sweep ends: another node would not help."""


class UnfitNodes(Observer):
    """Remembers which nodes cannot train, and why. Nodes are known by the beginning of their id, as updates have it."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._problems: dict[str, str] = {}
        self._since_s: dict[str, float] = {}
        self._any_trained = False
        self._news = False

    def add(self, node: str, problem: str) -> None:
        """Remember that a node cannot train, and say so once."""
        if self._problems.get(node) != problem:
            self._say(f"Node {node} cannot train and gets no trials for {AGAIN_S / 60:.0f} minutes: {problem}")
        self._problems[node], self._since_s[node] = problem, self._clock()
        self._news = True

    def take_news(self) -> bool:
        """Return whether a node has turned out to be unfit since the last call."""
        news, self._news = self._news, False
        return news

    def node_unfit(self, trial: Trial, update: TrialUpdate) -> None:
        self.add(update.node, update.message)

    def updated(self, trial: Trial, update: TrialUpdate) -> None:
        if update.kind == "epoch":
            self._any_trained = True
            self._problems.pop(update.node, None)
            self._since_s.pop(update.node, None)

    def fit(self, nodes: Sequence[Node]) -> list[Node]:
        """Return those of some nodes that may get trials."""
        return [node for node in nodes if not self._is_unfit(node)]

    def unfit(self, nodes: Sequence[Node]) -> list[Node]:
        """Return those of some nodes that get no trials for now."""
        return [node for node in nodes if self._is_unfit(node)]

    def why_end(self, nodes: Sequence[Node], slots: Slots) -> str:
        """Return why the sweep cannot go on, as a line for each node; empty while it can."""
        useful = [node for node in nodes if slots.room([node])]
        unfit = self.unfit(useful)
        if not unfit or (len(unfit) < len(useful) and (self._any_trained or len(unfit) < MANY_NODES)):
            return ""
        return describe_problems({node.name: self._problems[node.short_id] for node in unfit})

    def _is_unfit(self, node: Node) -> bool:
        since_s = self._since_s.get(node.short_id)
        return since_s is not None and self._clock() - since_s < AGAIN_S


def describe_problems(problems: dict[str, str]) -> str:
    """Return what is wrong with nodes, a line for each."""
    return "\n".join(f"  {name}: {problem}" for name, problem in problems.items())
