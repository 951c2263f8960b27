"""What a command of the user's own hears of a sweep, and the observer that tells it of each new best trial."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Literal

from birdclef_core.store.stage_store import StageStore
from sweeps.objective import Objective
from sweeps.options import SweepOptions
from sweeps.report.ranking import score_of
from sweeps.run.driver.hooks import Hooks
from sweeps.schedule.coordinator import Observer
from sweeps.schedule.records import TrialRecord, best_trials
from sweeps.schedule.trials import Trial, TrialBook


@dataclass(frozen=True, kw_only=True)
class BestTrial:
    """The finished trial with the best score."""

    trial: str
    recipe: str
    params: dict[str, Any]
    score: float
    error: float | None
    """Standard error of the score; None where it is not known."""
    checkpoint: str
    """Where the weights of its last stage are."""


@dataclass(frozen=True, kw_only=True)
class News:
    """What has happened: the JSON that a command gets."""

    event: Literal["best", "end"]
    sweep: str
    state: str
    """`running`, or how the sweep ended: `finished`, `failed`, `interrupted`, or `stopped` by a problem."""
    problem: str
    """What stopped it; empty otherwise."""
    objective: str
    best: BestTrial | None
    """None when no trial has finished."""
    trials: dict[str, int]
    """Number of trials by status."""
    device_hours: float
    report: str
    """The sweep's page."""
    tags: dict[str, str]
    note: str | None


class NewsTeller(Observer):
    """Lets the user's commands run: that of `--on-best` when a trial finishes with a better score than all before, and of `--on-end`."""

    def __init__(
        self,
        hooks: Hooks,
        options: SweepOptions,
        book: TrialBook,
        store: StageStore,
        *,
        name: str,
        objective: Objective,
        report: str,
    ) -> None:
        """`report`: where the sweep's page is."""
        self._hooks, self._options, self._book, self._store = hooks, options, book, store
        self._name, self._objective, self._report = name, objective, report
        self._best = next(iter(best_trials(list(book.records.values()), objective.of_score)), None)
        self._has_ended = False

    def trial_ended(self, trial: Trial) -> None:
        record = trial.record
        if record.score is not None and (self._best is None or record.score > (self._best.score or 0.0)):
            self._best = record
            self._tell("best", "running", self._options.on_best)

    def ended(self, state: str, problem: str = "") -> None:
        """The sweep has ended. Only the first call counts. `problem`: what ended it before its end."""
        if not self._has_ended:
            self._has_ended = True
            self._tell("end", state, self._options.on_end, problem)

    def _tell(self, event: Literal["best", "end"], state: str, command: str | None, problem: str = "") -> None:
        if command is None:
            return
        best, trials = self._best, list(self._book.records.values())
        news = News(
            event=event,
            sweep=self._name,
            state=state,
            problem=problem,
            objective=str(self._objective),
            best=None,
            trials=dict(Counter(record.status for record in trials)),
            device_hours=sum(record.cost_s for record in trials) / 3600,
            report=self._report,
            tags=self._options.tags,
            note=self._options.note,
        )
        self._hooks.run(f"--on-{event}", command, lambda: replace(news, best=self._described(best) if best else None))

    def _described(self, record: TrialRecord) -> BestTrial:
        score = score_of(record, self._objective)
        return BestTrial(
            trial=record.trial,
            recipe=record.recipe,
            params=record.params,
            score=score.value,
            error=score.error,
            checkpoint=self._store.location(record.stage_ids[-1]),
        )
