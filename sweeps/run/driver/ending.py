"""The end of a run: the sweep's result is written, sent to the tracker and printed."""

from urllib.parse import unquote

from rich.console import Console

from birdclef_core.errors import BirdclefError
from sweeps.options import storage_flag
from sweeps.report.page.shown import ShownSweep
from sweeps.report.page.writing import REPORT, write_report
from sweeps.report.ranking import early_endings, leak_lines, ranked_markdown, ranked_table, stopped_line
from sweeps.report.results import SweepResult, card_links, sweep_result, write_result
from sweeps.run import messages
from sweeps.run.console import WARNING, print_lines
from sweeps.run.driver.news import NewsTeller
from sweeps.run.driver.place import SweepPlace
from sweeps.run.request import SweepRequest
from sweeps.schedule.coordinator import Coordinator
from sweeps.schedule.records import State, SweepRecord, TrialRecord
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
    news: NewsTeller,
    interrupted: bool,
) -> SweepResult:
    """Write the result, send it to the tracker and print it. Raises BirdclefError when no trial has finished."""
    trials = list(coordinator.trials.values())
    result = sweep_result(record, trials, place.store, interrupted=interrupted)
    state: State = "interrupted" if interrupted else "finished" if result.best else "failed"
    ended = request.end(record, state, trials=len(trials), ran_s=coordinator.budget.ran_s)
    write_result(place.result, result, place.store)
    _write_report(ended, trials, console, place)
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
    news.ended(state)
    _print_result(result, coordinator, console, place)
    return result


def _write_report(record: SweepRecord, trials: list[TrialRecord], console: Console, place: SweepPlace) -> None:
    """Write the sweep's page. A page that cannot be made does not cost the end of a sweep."""
    shown = ShownSweep(record=record, trials=trials, store=place.store, storage=place.records.storage)
    try:
        write_report(place.result / REPORT, [shown])
    except Exception as error:
        line = f"The sweep's page could not be made ({type(error).__name__}: {error}). birdclef report {place.name} tries again."
        print_lines(console, line, style=WARNING)


def _print_result(result: SweepResult, coordinator: Coordinator, console: Console, place: SweepPlace) -> None:
    """Raises BirdclefError when no trial has finished, or the nodes could train none."""
    console.print(ranked_table(result.trials, result.objective, result.leaks), soft_wrap=True)
    print_lines(console, *leak_lines(result.leaks), style=WARNING)
    if line := stopped_line(result.trials):
        print_lines(console, line)
    if endings := early_endings(result.trials):
        print_lines(console, "Trials that did not finish, and why:", *endings)
    if coordinator.left_out:
        print_lines(console, messages.left_out_line(coordinator.left_out))
    flag = storage_flag(place.address)
    reached = coordinator.limit_reached
    print_lines(console, *messages.outcome_lines(result, None if reached else coordinator.samples))
    print_lines(console, *messages.limit_lines(coordinator.budget, reached, place.name, flag))
    if coordinator.stopped_because:
        raise BirdclefError(messages.unfit_text(coordinator.stopped_because, place.name, flag))
    if result.interrupted:
        print_lines(console, messages.resume_line(place.name, flag))
    elif result.best is None:
        raise BirdclefError(messages.failure_text(result, place.local_dir / "ray.log"))


def say_what_next(result: SweepResult, console: Console, place: SweepPlace) -> None:
    """Print where the pages are, and what can be done with the best trial."""
    card = None
    if result.best is not None:
        stage_id = result.best.stage_ids[-1]
        link = card_links(place.store, [stage_id], place.result).get(stage_id)
        card = messages.shown_path(str(place.result / unquote(link))) if link else None
    print_lines(
        console,
        *messages.next_lines(result, messages.shown_path(str(place.result / REPORT)), card, storage_flag(place.address)),
    )


def deliver(tracker: Tracker, console: Console, place: SweepPlace, tracking_uri: str | None) -> None:
    """Wait a while for the tracker to receive the last events."""
    if tracking_uri != "off":
        print_lines(console, f"Delivering the last events to MLflow (at most {DELIVERY_TIMEOUT_S:.0f} s).")
    status = tracker.close(DELIVERY_TIMEOUT_S)
    print_lines(console, *messages.delivery_lines(status, place.name, place.local_dir, tracking_uri))
