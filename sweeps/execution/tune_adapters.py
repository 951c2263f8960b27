"""Tune's searcher and scheduler, which pass everything to the coordinator; the coordinator decides."""

import math
import time
from collections.abc import Callable
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from sweeps.schedule.coordinator import Coordinator
from sweeps.schedule.update import TrialUpdate

METRIC = "score"


def at_most_every(seconds: float, function: Callable[[], None]) -> Callable[[], None]:
    """Return a function that calls another, unless it has done so within the last seconds."""
    called_at = -math.inf

    def call() -> None:
        nonlocal called_at
        if time.monotonic() - called_at >= seconds:
            function()
            called_at = time.monotonic()

    return call


class _WithoutState:
    """Gives Tune nothing to pickle: its own restore is not used, because a sweep is resumed from its records."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class CoordinatorSearcher(_WithoutState, Searcher):
    """Suggests the trials that the coordinator hands out. After None, Tune asks again later."""

    def __init__(self, coordinator: Coordinator, on_ask: Callable[[], None]) -> None:
        """`on_ask` is called whenever Tune asks for a trial, which is several times a second."""
        super().__init__(metric=METRIC, mode="max")
        self._coordinator, self._on_ask = coordinator, on_ask
        self._trials: dict[str, str] = {}
        """Names of our trials by Tune's trial ids."""

    def suggest(self, trial_id: str) -> Any:
        self._on_ask()
        trial = self._coordinator.next_trial()
        if trial is None:
            return Searcher.FINISHED if self._coordinator.finished else None
        self._trials[trial_id] = trial.record.trial
        return {"trial": trial.record.trial, "recipe": trial.record.recipe, "params": dict(trial.record.params)}

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

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        goes_on = self._coordinator.update(trial.config["trial"], TrialUpdate.from_result(result))
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        # The last result of a trial comes only here. For a trial that was stopped it comes a second time, and the coordinator ignores it.
        if "kind" in result:
            self._coordinator.update(trial.config["trial"], TrialUpdate.from_result(result))

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        self._coordinator.worker_lost(trial.config["trial"], _last_line(trial))


def _last_line(trial: Trial) -> str:
    """The last line of the error that Ray kept of a trial."""
    lines = str(trial.get_error() or "").strip().splitlines()
    return lines[-1].strip() if lines else "its process ended"
