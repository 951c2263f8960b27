"""The end of a run: the sweep's result is written, sent to the tracker and printed."""

from pathlib import Path

from rich.console import Console

from birdclef_core.errors import BirdclefError
from sweeps.report.ranking import early_endings, leak_lines, ranked_markdown, ranked_table
from sweeps.report.results import RESULT_FOLDER, SweepResult, sweep_result, write_result
from sweeps.run import messages
from sweeps.run.console import WARNING, print_lines
from sweeps.run.driver.place import SweepPlace
from sweeps.run.request import SweepRequest
from sweeps.schedule.coordinator import Coordinator
from sweeps.schedule.records import State, SweepRecord
from sweeps.tracking.events import FrontFound, SweepFinished, Tracker

DELIVERY_TIMEOUT_S = 30.0


def conclude(
    coordinator: Coordinator,
    record: SweepRecord,
    tracker: Tracker,
    console: Console,
    *,
    request: SweepRequest,
    place: SweepPlace,
    interrupted: bool,
) -> SweepResult:
    """Write the result, send it to the tracker and print it. Raises BirdclefError when no trial has finished."""
    trials = list(coordinator.trials.values())
    result = sweep_result(record, trials, place.store, interrupted=interrupted)
    state: State = "interrupted" if interrupted else "finished" if result.best else "failed"
    request.end(record, state, trials=len(trials), ran_s=coordinator.budget.ran_s)
    write_result(place.result, result, place.store)
    place.keep_result()
    if result.objective.cost is not None:
        tracker.log(FrontFound(trials=tuple(record.trial for record in result.front)))
    tracker.log(
        SweepFinished(
            status=state,
            table_markdown=ranked_markdown(trials, result.objective, result.leaks),
            artifacts=place.result.name,
        )
    )
    _print_result(result, coordinator, console, place)
    return result


def _print_result(result: SweepResult, coordinator: Coordinator, console: Console, place: SweepPlace) -> None:
    """Raises BirdclefError when no trial has finished, or the nodes could train none."""
    console.print(ranked_table(result.trials, result.objective, result.leaks), soft_wrap=True)
    print_lines(console, *leak_lines(result.leaks), style=WARNING)
    if endings := early_endings(result.trials):
        print_lines(console, "Trials that did not finish, and why:", *endings)
    if coordinator.left_out:
        print_lines(console, messages.left_out_line(coordinator.left_out))
    flag = messages.storage_flag(place.address)
    reached = coordinator.limit_reached
    pages = Path(place.records.storage.path(RESULT_FOLDER))
    print_lines(console, *messages.outcome_lines(result, None if reached else coordinator.samples, pages))
    print_lines(console, *messages.limit_lines(coordinator.budget, reached, place.name, flag))
    if coordinator.stopped_because:
        raise BirdclefError(messages.unfit_text(coordinator.stopped_because, place.name, flag))
    if result.interrupted:
        print_lines(console, messages.resume_line(place.name, flag))
    elif result.best is None:
        raise BirdclefError(messages.failure_text(result, place.local_dir / "ray.log"))


def deliver(tracker: Tracker, console: Console, place: SweepPlace, tracking_uri: str | None) -> None:
    """Wait a while for the tracker to receive the last events."""
    if tracking_uri != "off":
        print_lines(console, f"Delivering the last events to MLflow (at most {DELIVERY_TIMEOUT_S:.0f} s).")
    status = tracker.close(DELIVERY_TIMEOUT_S)
    print_lines(console, *messages.delivery_lines(status, place.name, place.local_dir, tracking_uri))
