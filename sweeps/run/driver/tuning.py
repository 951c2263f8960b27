"""Lets Ray Tune run the trials that a coordinator hands out."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from birdclef_core.store.patience import Patience, StorageAway
from sweeps.execution.actor import TrialActor, WorkerContext
from sweeps.execution.nodes.slots import Slots
from sweeps.execution.tune_adapters import METRIC, CoordinatorScheduler, CoordinatorSearcher, placement
from sweeps.run.driver.nodes import Nodes
from sweeps.schedule.coordinator import Coordinator

MOST_AT_ONCE = 10_000
"""More trials than ever run at the same time."""


def run_trials(
    coordinator: Coordinator, context: WorkerContext, slots: Slots, nodes: Nodes, *, folder: Path, patience: Patience
) -> bool:
    """Let Ray Tune run the trials; True when it was interrupted. `folder`: Tune's own files.

    Raises StorageAway when the storage was away for too long.
    """
    tuner = make_tuner(
        tune.with_resources(tune.with_parameters(TrialActor, context=context), placement(slots.resources())),
        CoordinatorSearcher(coordinator, on_ask=nodes.counting(coordinator), avoid=nodes.unfit_ids),
        CoordinatorScheduler(coordinator),
        folder,
    )
    try:
        with _sigterm_as_ctrl_c():
            tuner.fit()
    except KeyboardInterrupt:
        coordinator.interrupt()
        coordinator.book.wait_until_saved()
        return True
    except Exception as error:
        if not patience.given_up:
            raise
        coordinator.interrupt()
        raise StorageAway(patience.given_up) from error
    if coordinator.stopped_because:
        coordinator.interrupt()
    coordinator.book.wait_until_saved()
    return bool(coordinator.stopped_because)


def make_tuner(trainable: Any, searcher: Searcher, scheduler: TrialScheduler, folder: Path) -> tune.Tuner:
    """Return the tuner of a sweep: the searcher says when there are no more trials, and the scheduler decides what becomes of each."""
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=MOST_AT_ONCE,  # the coordinator hands out what the nodes have room for
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder),
            verbose=0,
            callbacks=[],
            failure_config=tune.FailureConfig(max_failures=-1),  # the coordinator counts
            # Everything that a trial continues from is in the stage store; a worker need not share a disk with the driver.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM end the sweep as Ctrl-C does. Further ones are ignored: schedulers send several, and the end must not be cut off."""

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is interrupt:
            signal.signal(signal.SIGTERM, previous)
