"""A trial as a Ray actor: one iteration of Tune is one update of `run_trial`. Ray may give the same actor another trial."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray import tune

from birdclef_core.data.dataset import Dataset
from birdclef_core.errors import BirdclefError
from birdclef_core.stages.interruption import Termination
from birdclef_core.stages.training_data import TrainingData
from birdclef_core.store.leases import Holder, Leases
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from sweeps.execution.audio_cache import AudioCache
from sweeps.execution.nodes.check import NodeCheck
from sweeps.execution.nodes.slots import NODE_ID_LENGTH
from sweeps.execution.trial import run_trial, unfit
from sweeps.objective import Objective
from sweeps.schedule.update import TrialUpdate
from sweeps.search.chains import ChainBuilder


@dataclass(frozen=True, kw_only=True)
class WorkerContext:
    """What every worker needs. Ray's object store sends it once to each."""

    chains: ChainBuilder
    dataset: Dataset
    check: NodeCheck
    """What the worker's machine must have."""
    cache: AudioCache
    """The cache of decoded audio on the worker's own machine."""
    store: Storage
    sweep: str
    run: str
    """Id of this run of the sweep's driver, which its leases name."""
    threads: int
    """Number of CPU threads of one trial."""


class TrialActor(tune.Trainable):
    """Runs trials one after another in one process and on one device."""

    def setup(self, config: dict[str, Any], context: WorkerContext) -> None:  # type: ignore[override]
        torch.set_num_threads(context.threads)
        self._context = context
        self._node = ray.get_runtime_context().get_node_id()[:NODE_ID_LENGTH]
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._chains = context.chains
        self._objective = Objective.of(context.chains.search.objective)
        self._data: TrainingData | None = None
        self._updates: Iterator[TrialUpdate] = iter(())
        self._notes: list[str] = []
        self._termination = Termination()
        self._store = StageStore(context.store, on_damage=self._notes.append)
        self._leases = Leases(context.store)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        chain = self._chains.chain(new_config["recipe"], new_config["params"])
        if problem := self._prepare():
            self._updates = iter([unfit(chain, problem)])
            return True
        sweep, trial = self._context.sweep, new_config["trial"]
        holder = Holder(sweep=sweep, run=self._context.run, trial=trial)
        self._updates = run_trial(
            chain,
            self._data,  # type: ignore[arg-type]  # _prepare has made it
            self._store,
            self._device,
            self._notes,
            stop=self._termination,
            hold=lambda stage_id: self._leases.hold(stage_id, holder),
            name=f"{sweep}/{trial}",
            objective=self._objective,
        )
        return True

    def _prepare(self) -> str:
        """Make the cache of decoded audio, once. Return what keeps this machine from training; empty when nothing does.

        It is said in an update and not raised: Ray would take it for a lost worker, and the trial would pay for it.
        """
        if self._data is None:
            if problem := self._context.check.problem(self._node):
                return problem
            try:
                self._data = self._context.cache.build(self._context.dataset)
            except (BirdclefError, OSError) as error:
                return str(error)
        return ""

    def step(self) -> dict[str, Any]:
        # SIGTERM, which comes some time before a machine is taken away, ends the step with a checkpoint and an error; Tune then
        # lets another worker continue the trial. Between steps it ends the process, as Ray's own handler does.
        with self._termination:
            return self._next_report()

    def _next_report(self) -> dict[str, Any]:
        return next(self._updates).to_result() | {"node": self._node}

    def cleanup(self) -> None:
        if isinstance(self._updates, Generator):
            self._updates.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Do nothing: everything that a trial continues from is in the stage store."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Do nothing: `run_trial` reads the stage store."""
