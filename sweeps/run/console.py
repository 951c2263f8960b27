"""What the terminal shows while a sweep runs: a live table, or one line an update where the output is no terminal."""

import math
import time
from collections.abc import Mapping
from typing import Literal

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from birdclef_core.config import SUMMED_LOSSES
from sweeps.objective import Objective, Score, tracked_name
from sweeps.report.ranking import score_of
from sweeps.schedule.coordinator import Observer
from sweeps.schedule.records import TrialRecord, best_trials
from sweeps.schedule.trials import Trial, TrialBook
from sweeps.schedule.update import TrialUpdate
from sweeps.wording import counted, format_duration

WARNING = "yellow"
Detail = Literal["quiet", "normal", "verbose"]
"""What is shown of the trials while they run. quiet: nothing; normal: a table on a terminal, elsewhere a line an update; verbose: both."""
MOST_WHOLE = 4
"""Up to this many running trials are shown with all their parameters, on several lines; the others on one line, cut off."""
BAR = 30
"""Characters of the bar of trials that have ended."""


def print_lines(console: Console, *lines: str, style: str | None = None) -> None:
    """Print lines as they are, not as markup: paths and reasons may have brackets."""
    for line in lines:
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


class SweepConsole(Observer):
    """Shows trials as they run. Use it as a context manager around the sweep."""

    def __init__(
        self,
        console: Console,
        book: TrialBook,
        samples: int | None,
        objective: Objective,
        num_species: Mapping[str, int],
        *,
        detail: Detail = "normal",
    ) -> None:
        """`samples`: how many trials the sweep is to have in all. `objective`: what they are compared by.

        `num_species`: how many species there are by label space: a loss that is a sum over species is shown for one,
        so that it can be read across stages.
        """
        self._console, self._book, self._samples, self._objective = console, book, samples, objective
        self._num_species, self._detail = num_species, detail
        self._live: Live | None = None
        self._rows: dict[str, tuple[Trial, TrialUpdate | None]] = {}
        self._started = time.monotonic()
        self._epochs, self._epochs_s = 0, 0.0
        """How many epochs were trained so far, and their device seconds."""
        self._started_trials, self._their_epochs = 0, 0
        """How many trials were started, and how many epochs their chains have."""

    def __enter__(self) -> "SweepConsole":
        if self._console.is_terminal and self._detail != "quiet":
            self._live = Live(
                console=self._console,
                refresh_per_second=1,  # each takes 17 ms of the driver's CPU
                get_renderable=self._table,
                redirect_stdout=False,  # they go to Ray's log
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def trial_started(self, trial: Trial) -> None:
        self._rows[trial.record.trial] = (trial, None)
        self._started_trials, self._their_epochs = self._started_trials + 1, self._their_epochs + trial.num_epochs
        self._say(trial.record, f"started with {describe_params(trial.record.params)}")

    def updated(self, trial: Trial, update: TrialUpdate) -> None:
        self._rows[trial.record.trial] = (trial, update)
        if update.kind == "epoch":
            self._epochs, self._epochs_s = self._epochs + 1, self._epochs_s + update.cost_s
        if update.message and update.kind != "failed":
            self._console.print(update.message, style=WARNING, highlight=False, markup=False, soft_wrap=True)
        if update.kind != "failed":
            loss = self._loss(trial, update)
            what = "reused" if update.kind != "epoch" else f"epoch {update.epoch}/{update.epochs}"
            place = f"{update.device} on {update.node}"
            self._say(
                trial.record,
                f"{update.stage} {what}  score {_score(trial, update, self._objective)}  {loss}{place}  {self._left()}",
            )

    def stage_recovered(self, trial: Trial, update: TrialUpdate) -> None:
        self.updated(trial, update)

    def worker_lost(self, trial: Trial) -> None:
        record = trial.record
        line = f"{record.trial}: {record.reason}; another worker continues from its last epoch"
        self._console.print(line, style=WARNING, highlight=False, markup=False, soft_wrap=True)

    def trial_ended(self, trial: Trial) -> None:
        record = trial.record
        score = f" with {score_of(record, self._objective)}" if record.score is not None else ""
        reason = f": {record.reason}" if record.reason else ""
        self._say(record, f"{record.status}{score}{reason}", above_table=bool(reason))

    def _say(self, record: TrialRecord, text: str, *, above_table: bool = False) -> None:
        """Print a line about a trial; on a terminal, where the table shows most of it, only if it is to stay above the table."""
        if self._detail == "verbose" or (self._detail == "normal" and (self._live is None or above_table)):
            line = f"{time.strftime('%H:%M:%S')} {record.trial} {record.recipe}  {text}"
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _loss(self, trial: Trial, update: TrialUpdate) -> str:
        """The loss of an epoch: of one that is a sum over species, such as BCE, the mean."""
        loss, config = update.metrics.get("train/loss"), trial.chain[update.stage_index].config
        if loss is None or config.predicts:
            return ""
        if config.loss in SUMMED_LOSSES:
            return f"loss {loss / self._num_species[config.label_space]:.4f} a species  "
        return f"loss {loss:.3f}  "

    def _left(self) -> str:
        """The longest time that the sweep may still take, from the mean epoch so far. Reuse and pruning make it shorter."""
        if not self._epochs or self._samples is None:
            return ""
        undrawn = self._samples - len(self._book.records) - self._book.num_drawn
        open_epochs = undrawn * self._their_epochs / self._started_trials
        open_epochs += sum(trial.num_epochs - trial.record.epochs_done for trial in self._book.open_trials)
        running = max(1, self._book.num_running)
        left_s = max(0, open_epochs) * self._epochs_s / self._epochs / running
        return f"at most about {format_duration(left_s)} left"

    def _table(self) -> Table:
        elapsed = format_duration(time.monotonic() - self._started)
        lines = [f"{elapsed} passed, {self._left() or 'first epochs running'}", self._progress(), self._best()]
        table = Table(title=escape("\n".join(line for line in lines if line)), title_justify="left")
        for name in ("trial", "recipe", "status", "stage", "epoch", "score", "device", "parameters"):
            table.add_column(name, justify="right" if name in ("epoch", "score") else "left", no_wrap=name != "parameters")
        shown = list(self._rows.values())[-20:]
        running = sum(trial.record.status == "running" for trial, _ in shown)
        for trial, update in shown:
            is_whole = trial.record.status == "running" and running <= MOST_WHOLE
            params = Text(describe_params(trial.record.params), no_wrap=not is_whole, overflow="fold" if is_whole else "ellipsis")
            table.add_row(*(escape(cell) for cell in _cells(trial, update, self._objective)), params)
        return table

    def _progress(self) -> str:
        """How many of the trials have ended, as a bar."""
        ended = sum(record.ended for record in self._book.records.values())
        if self._samples is None:
            return f"{counted(ended, 'trial')} ended"
        filled = min(BAR, round(BAR * ended / self._samples))
        return f"{'█' * filled}{'░' * (BAR - filled)} {ended} of {counted(self._samples, 'trial')} ended"

    def _best(self) -> str:
        best = next(iter(best_trials(list(self._book.records.values()), self._objective.of_score)), None)
        return f"best so far: {best.trial} ({best.recipe}) with {score_of(best, self._objective)}" if best else ""


def _score(trial: Trial, update: TrialUpdate, objective: Objective) -> str:
    """The objective at an update, with its standard error at the end of a stage; cmAP at an epoch that was not scored for it."""
    label_space = trial.chain[update.stage_index].config.label_space
    if math.isnan(update.score):
        name = tracked_name(label_space, "cmap")
        return f"{name} {Score(update.metrics.get(name, math.nan))}"
    return str(Score(update.score, objective.score(update.metrics, label_space).error))


def _cells(trial: Trial, update: TrialUpdate | None, objective: Objective) -> tuple[str, ...]:
    record = trial.record
    if update is None:
        return record.trial, record.recipe, record.status, "", "", "", ""
    stage = f"{update.stage} (reused)" if update.kind == "reused" else update.stage
    return (
        record.trial,
        record.recipe,
        record.status,
        stage,
        f"{update.epoch}/{update.epochs}",
        _score(trial, update, objective),
        f"{update.device} on {update.node}",
    )


def describe_params(params: dict[str, object]) -> str:
    """Parameters in one line; numbers have three digits."""
    return ", ".join(f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}" for key, value in params.items())
