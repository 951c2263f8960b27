"""Tune's searcher and scheduler as thin covers of the coordinator, which decides."""

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from sweeps.schedule.coordinator import Coordinator
from sweeps.schedule.update import TrialUpdate

METRIC = "score"


class _WithoutState:
    """Tune pickles searcher and scheduler for its own restore, which is not used: a sweep is resumed from its records."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class CoordinatorSearcher(_WithoutState, Searcher):
    """Suggests what the coordinator hands out. Tune asks again later after a None."""

    def __init__(self, coordinator: Coordinator) -> None:
        super().__init__(metric=METRIC, mode="max")
        self._coordinator = coordinator
        self._trials: dict[str, str] = {}
        """Our name of each of Tune's trial ids."""

    def suggest(self, trial_id: str) -> Any:
        planned = self._coordinator.next_trial()
        if planned is None:
            return Searcher.FINISHED if self._coordinator.finished else None
        self._trials[trial_id] = planned.record.trial
        return {"trial": planned.record.trial, "recipe": planned.record.recipe, "params": dict(planned.record.params)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        # Only here is an error final: the scheduler is also told of workers that Tune replaces.
        if error:
            self._coordinator.fail(self._trials[trial_id])

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the records hold every trial."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""


class CoordinatorScheduler(_WithoutState, FIFOScheduler):
    """Passes every update to the coordinator and stops what it says is to stop."""

    def __init__(self, coordinator: Coordinator) -> None:
        super().__init__()
        self._coordinator = coordinator

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        goes_on = self._coordinator.update(trial.config["trial"], TrialUpdate.from_result(result))
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        # The last result of a trial comes here alone; of a trial that was stopped it comes a second time and is passed over.
        if "kind" in result:
            self._coordinator.update(trial.config["trial"], TrialUpdate.from_result(result))

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        self._coordinator.worker_lost(trial.config["trial"], _last_line(trial))


def _last_line(trial: Trial) -> str:
    """The last line of the error that Ray kept of a trial."""
    lines = str(trial.get_error() or "").strip().splitlines()
    return lines[-1].strip() if lines else "its process ended"
