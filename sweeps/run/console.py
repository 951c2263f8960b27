"""What the terminal shows while a sweep runs: one live table, or a plain line per event where there is no terminal."""

import time
from collections import Counter

from rich.console import Console
from rich.live import Live
from rich.table import Table

from sweeps.execution.trial import TrialReport
from sweeps.schedule.coordinator import Coordinator, PlannedTrial
from sweeps.schedule.records import TrialRecord
from sweeps.wording import format_duration


class SweepConsole:
    """An observer that shows trials as they run. Use as a context manager around the sweep."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._coordinator: Coordinator | None = None
        self._rows: dict[str, tuple[PlannedTrial, TrialReport | None]] = {}
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

    def trial_started(self, planned: PlannedTrial) -> None:
        self._rows[planned.record.trial] = (planned, None)
        self._started_trials, self._their_epochs = self._started_trials + 1, self._their_epochs + _epochs_of(planned)
        self._say(planned.record, f"started with {describe_params(planned.record.params)}")

    def reported(self, planned: PlannedTrial, report: TrialReport) -> None:
        self._rows[planned.record.trial] = (planned, report)
        if report.kind == "epoch":
            self._epochs, self._epochs_s = self._epochs + 1, self._epochs_s + report.cost_s
        if report.message and report.kind != "failed":
            self._console.print(f"[yellow]{report.message}[/yellow]", highlight=False)
        if report.kind != "failed":
            loss = f"loss {report.metrics['train/loss']:.3f}  " if "train/loss" in report.metrics else ""
            what = "reused" if report.kind != "epoch" else f"epoch {report.epoch}/{report.epochs}"
            place = f"{report.device} on {report.node}"
            self._say(planned.record, f"{report.stage} {what}  score {report.score:.3f}  {loss}{place}  {self._left()}")

    def worker_lost(self, planned: PlannedTrial) -> None:
        record = planned.record
        self._console.print(f"[yellow]{record.trial}: {record.reason}; it goes on from its last epoch[/yellow]", highlight=False)

    def trial_ended(self, planned: PlannedTrial) -> None:
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
        for planned, report in list(self._rows.values())[-20:]:
            table.add_row(*_cells(planned.record, report))
        return table


def _epochs_of(planned: PlannedTrial) -> int:
    return sum(task.config.epochs for task in planned.chain)


def _cells(record: TrialRecord, report: TrialReport | None) -> tuple[str, ...]:
    if report is None:
        return record.trial, record.recipe, record.status, "", "", "", ""
    stage = f"{report.stage} (reused)" if report.kind == "reused" else report.stage
    score = record.score if record.score is not None else report.score
    return (
        record.trial,
        record.recipe,
        record.status,
        stage,
        f"{report.epoch}/{report.epochs}",
        f"{score:.3f}",
        f"{report.device} on {report.node}",
    )


def describe_params(params: dict[str, object]) -> str:
    """Parameters in one line, numbers with three digits."""
    return ", ".join(f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}" for key, value in params.items())


def ranking(trials: list[TrialRecord]) -> list[TrialRecord]:
    """Finished trials from the best score down, then the others in their order."""
    finished = sorted((record for record in trials if record.score is not None), key=lambda record: -(record.score or 0))
    return finished + [record for record in trials if record.score is None]


def ranked_rows(trials: list[TrialRecord]) -> tuple[list[str], list[list[str]]]:
    """Column names and rows of the ranked table, for the terminal and for Markdown."""
    columns = ["trial", "recipe", "status", "cmap_pad5", "cmap", "lrap", "spent s", "saved s"]
    rows = []
    for record in ranking(trials):
        scores = [f"{record.metrics[f'val/{name}']:.3f}" if record.score is not None else "" for name in columns[3:6]]
        rows.append([record.trial, record.recipe, record.status, *scores, f"{record.cost_s:.0f}", f"{record.saved_s:.0f}"])
    return columns, rows


def best_by_end(trials: list[TrialRecord]) -> str:
    """Where chains end with different stages, the best of each end; empty where all end alike."""
    best: dict[str, TrialRecord] = {}
    for record in ranking(trials):
        if record.score is not None:
            best.setdefault(record.stages[-1], record)
    if len(best) < 2:
        return ""
    counts = Counter(record.stages[-1] for record in trials if record.score is not None)
    ends = "; ".join(f"{counts[end]} with {end}, best {item.trial} ({item.score:.3f})" for end, item in best.items())
    return f"Trials end with different stages: {ends}."


def ranked_table(trials: list[TrialRecord]) -> Table:
    columns, rows = ranked_rows(trials)
    table = Table(title="\nTrials, best first", title_justify="left", box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="left" if name in ("trial", "recipe", "status") else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def ranked_markdown(trials: list[TrialRecord]) -> str:
    columns, rows = ranked_rows(trials)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (columns, ["---"] * len(columns), *rows))
