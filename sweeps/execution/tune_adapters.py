"""Tune's searcher and scheduler, which pass everything to the coordinator; the coordinator decides."""

import errno
import math
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.exceptions import ActorUnavailableError, LocalRayletDiedError, NodeDiedError, RayActorError, RayTaskError
from ray.tune import PlacementGroupFactory
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from birdclef_core.stages.interruption import StageInterrupted
from birdclef_core.store.patience import StorageAway, reason_of
from sweeps.schedule.coordinator import Coordinator
from sweeps.schedule.update import TrialUpdate

METRIC = "score"
_AWAY = (errno.EIO, errno.ESTALE, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EHOSTDOWN)
"""Numbers of the errors of a network disk that is away."""
ASK_FOR_S = 0.2
"""Tune asks for trials until there are none, and takes no update meanwhile. After this time it is told that there are none for now."""
AVOID = "avoid"
"""The entry of a trial's configuration with the ids of the nodes that it must not run on."""


def placement(share: dict[str, float]) -> Callable[[dict[str, Any]], PlacementGroupFactory]:
    """Return what Tune asks for the resources of a trial with a configuration: a share of one node that is not to be avoided."""

    def resources(config: dict[str, Any]) -> PlacementGroupFactory:
        if not (avoid := config.get(AVOID)):
            return PlacementGroupFactory([share])
        return PlacementGroupFactory([share], bundle_label_selector=[{"ray.io/node-id": f"!in({','.join(avoid)})"}])

    return resources


def at_most_every(seconds: float, function: Callable[[], None], at_once: Callable[[], bool]) -> Callable[[], None]:
    """Return a function that calls another, unless it has done so within the last seconds; where `at_once` says so, in any case."""
    called_at = -math.inf

    def call() -> None:
        nonlocal called_at
        if at_once() or time.monotonic() - called_at >= seconds:
            function()
            called_at = time.monotonic()

    return call


class _WithoutState:
    """Gives Tune nothing to pickle: its own restore is not used, because a sweep is resumed from its records."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class CoordinatorSearcher(_WithoutState, Searcher):
    """Suggests the trials that the coordinator hands out. After None, Tune asks again later."""

    def __init__(self, coordinator: Coordinator, on_ask: Callable[[], None], avoid: Callable[[], list[str]]) -> None:
        """`on_ask` is called whenever Tune asks for a trial, which is several times a second. `avoid` gives the ids of the nodes that a new
        trial must not run on."""
        super().__init__(metric=METRIC, mode="max")
        self._coordinator, self._on_ask, self._avoid = coordinator, on_ask, avoid
        self._trials: dict[str, str] = {}
        """Names of our trials by Tune's trial ids."""
        self._asked_since = math.inf
        """Since when Tune has been asking without a pause."""

    def suggest(self, trial_id: str) -> Any:
        self._on_ask()
        self._asked_since = min(self._asked_since, time.monotonic())
        is_long = self._trials and time.monotonic() - self._asked_since > ASK_FOR_S
        trial = None if is_long else self._coordinator.next_trial()
        if trial is None:
            self._asked_since = math.inf
            return Searcher.FINISHED if self._coordinator.finished else None
        self._trials[trial_id] = trial.record.trial
        return {
            "trial": trial.record.trial,
            "recipe": trial.record.recipe,
            "params": dict(trial.record.params),
            AVOID: self._avoid(),
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        # Only here is an error final: the scheduler also hears of workers that Tune replaces.
        if error:
            self._coordinator.fail(self._trials[trial_id])

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the records hold every trial."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: see `save`."""


class CoordinatorScheduler(_WithoutState, FIFOScheduler):
    """Passes every update to the coordinator and stops the trials that do not go on."""

    def __init__(self, coordinator: Coordinator) -> None:
        super().__init__()
        self._coordinator = coordinator
        self._given_up: set[str] = set()
        """Tune's ids of the trials that lost too many workers."""

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        goes_on = self._coordinator.update(trial.config["trial"], TrialUpdate.from_result(result))
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        # The last result of a trial comes only here. For a trial that was stopped it comes a second time, and the coordinator ignores it.
        if "kind" in result:
            self._coordinator.update(trial.config["trial"], TrialUpdate.from_result(result))

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        # What waits for a place would wait for ever once the coordinator has given up on the cluster.
        if self._coordinator.stopped_because:
            for trial in tune_controller.get_trials():
                if trial.status == Trial.PENDING:
                    tune_controller.stop_trial(trial)
        return super().choose_trial_to_run(tune_controller)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        # Tune itself would begin again without end (see `runner.py`): the coordinator counts, because it counts the trial's own faults alone.
        error = _error_of(trial)
        if not self._coordinator.worker_lost(trial.config["trial"], last_line(error), by_trial=not is_fault_of_others(error)):
            self._given_up.add(trial.trial_id)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        # After an error Tune adds the trial again.
        if trial.trial_id in self._given_up:
            tune_controller.stop_trial(trial)


def is_fault_of_others(error: Exception | None) -> bool:
    """Whether a worker was lost by something that says nothing about its trial: its machine was taken away or cannot be reached, or its
    storage did not answer."""
    if isinstance(error, RayTaskError):
        return isinstance(error.cause, StageInterrupted) or _is_outage(error.cause)
    if isinstance(error, (ActorUnavailableError, NodeDiedError, LocalRayletDiedError)):
        return True
    if isinstance(error, RayActorError):
        return error.preempted or any(words in str(error) for words in ("its node has died", "node was terminated", "INTENDED_"))
    return False


def last_line(error: Exception | None) -> str:
    """Return the last line of an error: of a traceback, the one that says what went wrong."""
    lines = str(error or "").strip().splitlines()
    return lines[-1].strip() if lines else "its process ended"


def _is_outage(error: BaseException) -> bool:
    """Whether an error comes from a storage or a network that is away."""
    if isinstance(error, (ConnectionError, TimeoutError, StorageAway)):
        return True
    return isinstance(error, OSError) and (bool(reason_of(error)) or error.errno in _AWAY)


def _error_of(trial: Trial) -> Exception | None:
    """The error that Tune has just written down; `Trial.get_error` would look where it is copied later."""
    try:
        return pickle.loads(Path(trial.pickled_error_file).read_bytes())
    except (
        OSError,
        TypeError,
        AttributeError,
        ImportError,
        pickle.UnpicklingError,
    ):  # none, or of a class that only the worker has
        return None
