"""Which nodes of a cluster get trials: those that can train, before the sweep begins and while it runs."""

from collections.abc import Callable
from dataclasses import replace

from rich.console import Console

from birdclef_core.errors import InputError
from birdclef_core.store.storage import Storage
from sweeps.execution.audio_cache import AudioCache
from sweeps.execution.cluster import alive_nodes, ask_autoscaler, check_nodes
from sweeps.execution.nodes.check import NodeCheck
from sweeps.execution.nodes.slots import Capacity
from sweeps.execution.nodes.unfit import UnfitNodes, describe_problems
from sweeps.execution.tune_adapters import at_most_every
from sweeps.options import SweepOptions
from sweeps.run.inputs import SweepInputs
from sweeps.schedule.coordinator import Coordinator

COUNT_NODES_S = 5.0
"""How often the nodes are counted while trials run."""


class Nodes:
    """The nodes on which the trials of one run are trained."""

    def __init__(
        self,
        inputs: SweepInputs,
        options: SweepOptions,
        unfit: UnfitNodes,
        *,
        cache: AudioCache,
        sweep_folder: Storage,
        run: str,
        say: Callable[[str], None],
    ) -> None:
        """`sweep_folder`: the sweep's place in the storage, which every node must reach. `run`: id of this run of the driver."""
        self._slots, self._options, self._unfit, self._say = inputs.slots, options, unfit, say
        self.check = NodeCheck(
            dataset=inputs.dataset,
            cache_dir=cache.folder,
            sweep_folder=sweep_folder,
            run=run,
            needs_gpu=bool(inputs.slots.gpus_per_trial),
            packed=cache.packed,
        )
        """What a worker looks for on its node before it trains."""

    def check_all(self, console: Console) -> None:
        """Find the nodes of a cluster that cannot train. Raises InputError when none can.

        The driver's own machine needs no check where it is the only one: a worker looks at its machine, too.
        """
        if self._options.address is None:
            return
        with console.status("Looking whether every node can train"):
            nodes = [node for node in alive_nodes() if self._slots.room([node])]
            # A node without access would wait for minutes.
            check = replace(self.check, sweep_folder=self.check.sweep_folder.impatient())
            problems = check_nodes(check, nodes, self._slots.gpus_per_trial)
        if nodes and len(problems) == len(nodes):
            described = describe_problems({node.name: problems[node.short_id] for node in nodes})
            raise InputError(f"At least one node must be able to train, but none is:\n{described}")
        for node, problem in problems.items():
            self._unfit.add(node, problem)

    def counting(self, coordinator: Coordinator) -> Callable[[], None]:
        """What counts the nodes now and then, lets the coordinator use those that there are, and asks an autoscaler for more."""
        capacity = Capacity(self._slots, max_concurrent=self._options.max_concurrent, say=self._say)

        def count() -> None:
            nodes = alive_nodes()
            coordinator.max_running = capacity.count(nodes, self._unfit.fit(nodes))
            if reason := self._unfit.why_end(nodes, self._slots):
                coordinator.stop(reason)
            if self._options.address is not None:
                ask_autoscaler(capacity.bundles(coordinator.could_run))

        return at_most_every(COUNT_NODES_S, count, at_once=self._unfit.take_news)

    def unfit_ids(self) -> list[str]:
        """Return the ids of the nodes that are to get no trials now."""
        return [node.node_id for node in self._unfit.unfit(alive_nodes())]
