"""What the terminal shows while a sweep runs: one live table, or a plain line per event where there is no terminal."""

import time

from rich.console import Console
from rich.live import Live
from rich.table import Table

from sweeps.schedule.coordinator import Coordinator, Trial
from sweeps.schedule.records import TrialRecord
from sweeps.schedule.update import TrialUpdate
from sweeps.wording import format_duration


class SweepConsole:
    """An observer that shows trials as they run. Use as a context manager around the sweep."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._coordinator: Coordinator | None = None
        self._rows: dict[str, tuple[Trial, TrialUpdate | None]] = {}
        self._started = time.monotonic()
        self._epochs, self._epochs_s = 0, 0.0
        """Trained so far, and how long they took."""
        self._started_trials, self._their_epochs = 0, 0

    def __enter__(self) -> "SweepConsole":
        if self._console.is_terminal:
            self._live = Live(
                console=self._console,
                refresh_per_second=2,
                get_renderable=self._table,
                redirect_stdout=False,  # they go to Ray's log
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def follow(self, coordinator: Coordinator) -> None:
        """Whose trials are shown and counted."""
        self._coordinator = coordinator

    def trial_started(self, planned: Trial) -> None:
        self._rows[planned.record.trial] = (planned, None)
        self._started_trials, self._their_epochs = self._started_trials + 1, self._their_epochs + _epochs_of(planned)
        self._say(planned.record, f"started with {describe_params(planned.record.params)}")

    def updated(self, planned: Trial, update: TrialUpdate) -> None:
        self._rows[planned.record.trial] = (planned, update)
        if update.kind == "epoch":
            self._epochs, self._epochs_s = self._epochs + 1, self._epochs_s + update.cost_s
        if update.message and update.kind != "failed":
            self._console.print(f"[yellow]{update.message}[/yellow]", highlight=False)
        if update.kind != "failed":
            loss = f"loss {update.metrics['train/loss']:.3f}  " if "train/loss" in update.metrics else ""
            what = "reused" if update.kind != "epoch" else f"epoch {update.epoch}/{update.epochs}"
            place = f"{update.device} on {update.node}"
            self._say(planned.record, f"{update.stage} {what}  score {update.score:.3f}  {loss}{place}  {self._left()}")

    def worker_lost(self, planned: Trial) -> None:
        record = planned.record
        self._console.print(f"[yellow]{record.trial}: {record.reason}; it goes on from its last epoch[/yellow]", highlight=False)

    def trial_ended(self, planned: Trial) -> None:
        record = planned.record
        score = f" with {record.score:.3f}" if record.score is not None else ""
        self._say(record, f"{record.status}{score}{': ' + record.reason if record.reason else ''}")

    def _say(self, record: TrialRecord, text: str) -> None:
        if self._live is None:
            self._console.print(
                f"{time.strftime('%H:%M:%S')} {record.trial} {record.recipe}  {text}", highlight=False, soft_wrap=True
            )

    def _left(self) -> str:
        """How long the sweep may still take, from the mean epoch so far; reuse and pruning make it shorter."""
        if self._coordinator is None or not self._epochs:
            return ""
        open_trials = self._coordinator.open_trials
        undrawn = self._coordinator.samples - len(self._coordinator.trials)
        open_epochs = undrawn * self._their_epochs / self._started_trials
        open_epochs += sum(_epochs_of(planned) - planned.record.epochs_done for planned in open_trials)
        running = max(1, sum(planned.record.status == "running" for planned in open_trials))
        left_s = max(0, open_epochs) * self._epochs_s / self._epochs / running
        return f"at most about {format_duration(left_s)} left"

    def _table(self) -> Table:
        elapsed = format_duration(time.monotonic() - self._started)
        table = Table(title=f"{elapsed} passed, {self._left() or 'first epochs running'}", title_justify="left")
        for name in ("trial", "recipe", "status", "stage", "epoch", "score", "device"):
            table.add_column(name, justify="right" if name in ("epoch", "score") else "left")
        for planned, update in list(self._rows.values())[-20:]:
            table.add_row(*_cells(planned.record, update))
        return table


def _epochs_of(planned: Trial) -> int:
    return sum(task.config.epochs for task in planned.chain)


def _cells(record: TrialRecord, update: TrialUpdate | None) -> tuple[str, ...]:
    if update is None:
        return record.trial, record.recipe, record.status, "", "", "", ""
    stage = f"{update.stage} (reused)" if update.kind == "reused" else update.stage
    score = record.score if record.score is not None else update.score
    return (
        record.trial,
        record.recipe,
        record.status,
        stage,
        f"{update.epoch}/{update.epochs}",
        f"{score:.3f}",
        f"{update.device} on {update.node}",
    )


def describe_params(params: dict[str, object]) -> str:
    """Parameters in one line, numbers with three digits."""
    return ", ".join(f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}" for key, value in params.items())
