"""What a sweep reports and to whom: its events, the tracker that takes them, and the one that takes none.

Only the driver speaks to a tracker. Events are written to a journal in the sweep's folder first and delivered from there
(`tracking_journal.py`), so a tracking server that is slow, away or dead never holds a sweep back.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, Protocol

from birdclef_core.errors import InputError

if TYPE_CHECKING:
    from sweeps.tracking.delivery import Connect, Sink

StageStatus = Literal["finished", "failed", "stopped"]
TrialStatus = Literal["finished", "pruned", "failed", "interrupted"]

# MLflow reads these when it is imported or called; what the user has set stands.
_MLFLOW_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the delivery thread retries, and can be stopped meanwhile
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
_REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class SweepStarted:
    """The first event of a sweep, recorded again when it is resumed."""

    sweep: str
    search: str
    """The search's name; its experiment is `birdclef/<search>`."""
    tags: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    """Markdown: what the sweep is, for the experiment's description."""


@dataclass(frozen=True, kw_only=True)
class TrialStarted:
    """A trial begins, or goes on after a resume: the same trial is the same run."""

    trial: str
    params: Mapping[str, str | int | float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StageStarted:
    """One execution of a stage begins, under the trial that trains it."""

    trial: str
    execution: str
    """Unique in the sweep; an execution that goes on from its last epoch keeps its name."""
    stage: str
    params: Mapping[str, str | int | float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    starts_from: str | None = None
    """stage_id of the parent checkpoint, linked as the execution's input."""


@dataclass(frozen=True, kw_only=True)
class EpochFinished:
    """Metrics of one epoch, kept on the stage's run by `epoch` and on the trial's run by `trial_epoch`."""

    trial: str
    execution: str
    epoch: int
    """Of the stage, from 0 or 1 on; an epoch that was delivered before is not delivered twice."""
    trial_epoch: int
    """Counted over all stages of the trial."""
    metrics: Mapping[str, float]
    time_s: float
    """Unix time at which the epoch ended."""


@dataclass(frozen=True, kw_only=True)
class StageFinished:
    """An execution ended; a finished one has published its checkpoint, linked as its output."""

    trial: str
    execution: str
    stage_id: str
    status: StageStatus
    checkpoint_uri: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    artifacts: str | None = None
    """A local folder whose files are uploaded to the stage's run; a relative one is taken from the sweep's folder."""


@dataclass(frozen=True, kw_only=True)
class CheckpointUsed:
    """A trial takes a stage from the store instead of training it.

    `stage` and `checkpoint_uri` describe it to a server that has never seen it: another sweep's store, another server.
    """

    trial: str
    stage_id: str
    stage: str = ""
    checkpoint_uri: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The stage's last scores, kept on the trial's run as if it had trained the stage."""


@dataclass(frozen=True, kw_only=True)
class TrialFinished:
    """A trial ended, or was interrupted and will go on when the sweep is resumed."""

    trial: str
    status: TrialStatus
    metrics: Mapping[str, float] = field(default_factory=dict)
    """`objective`, if it is there, is also shown with every checkpoint of the trial's chain."""
    tags: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    """Why it was pruned, failed or interrupted, for its description."""
    artifacts: str | None = None
    """As in StageFinished: the lineage of what it came to."""


@dataclass(frozen=True, kw_only=True)
class SweepFinished:
    """The last event of a sweep."""

    status: str
    table_markdown: str
    """The ranked table."""
    artifacts: str | None = None
    """As in StageFinished: plan, result and pictures of the whole sweep."""


Event = (
    SweepStarted | TrialStarted | StageStarted | EpochFinished | StageFinished | CheckpointUsed | TrialFinished | SweepFinished
)

_EVENT_TYPES: dict[str, Callable[..., Event]] = {
    kind.__name__: kind
    for kind in (
        SweepStarted,
        TrialStarted,
        StageStarted,
        EpochFinished,
        StageFinished,
        CheckpointUsed,
        TrialFinished,
        SweepFinished,
    )
}


def to_json(event: Event, time_ms: int) -> str:
    """One line of the journal. Numbers that are not finite are written as Python reads them (NaN, Infinity)."""
    return json.dumps({"event": type(event).__name__, "time_ms": time_ms, **asdict(event)}, separators=(",", ":"))


def from_json(line: str) -> tuple[Event, int]:
    """The event of a journal line and the Unix time in ms at which it was recorded. Raises ValueError for any other line."""
    try:
        content = json.loads(line)
        time_ms = int(content.pop("time_ms"))
        return _EVENT_TYPES[content.pop("event")](**content), time_ms
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"Not a record of a sweep: {error!r}") from error


@dataclass(frozen=True, kw_only=True)
class DeliveryReport:
    """How much of a journal has reached its server, over all runs of the sweep."""

    delivered: int
    kept: int
    """Records that wait in the journal; `birdclef track sync` delivers them."""
    rejected: int
    """Records that the server refused, kept beside the journal with its reasons."""
    problem: str = ""
    """Why records are kept, in the last attempt's words."""


class Tracker(Protocol):
    """Where the driver reports to. Only the process that runs the sweep calls it; from any of its threads."""

    def record(self, event: Event) -> None:
        """Takes an event and returns at once: it is safe from a kill -9 then, and delivered later."""

    def close(self, timeout_s: float = 60.0) -> DeliveryReport:
        """Waits up to `timeout_s` until all is delivered. Nothing may be recorded afterwards."""


class NullTracker:
    """Takes everything and keeps nothing: `--tracking-uri off`."""

    def record(self, event: Event) -> None:
        pass

    def close(self, timeout_s: float = 60.0) -> DeliveryReport:
        return DeliveryReport(delivered=0, kept=0, rejected=0)


def make_tracker(tracking: str | None, sweep_dir: Path) -> Tracker:
    """The tracker that `--tracking-uri` describes, with its journal in `sweep_dir`, a folder on a local disk.

    None or "local": a local server on the repository's `mlflow/` folder; a folder: the same there; http(s)://...: that
    server; "off": none. Returns before any server is started or asked. Raises InputError for another description or
    without MLflow, StoreError if another process is delivering this journal.
    """
    destination = parse_destination(tracking)
    if destination is None:
        return NullTracker()
    from sweeps.tracking.delivery import JournalTracker

    return JournalTracker(sweep_dir, str(destination), _connector(destination, sweep_dir))


def sync(sweep_dir: Path, tracking: str | None = None, *, patience_s: float = 60.0) -> DeliveryReport:
    """Delivers what a sweep's journal still holds; gives up once nothing has been delivered for `patience_s`.

    None: to the server of its last delivery. A server other than that gets all of the journal. Raises InputError if there
    is no journal, and as make_tracker.
    """
    from sweeps.tracking.delivery import JournalTracker
    from sweeps.tracking.journal import JOURNAL_NAME, last_destination

    destination = parse_destination(tracking or last_destination(sweep_dir))
    if destination is None:
        raise InputError("There is no server to deliver to: --tracking-uri must name one here, but is 'off'.")
    if not (sweep_dir / JOURNAL_NAME).exists():
        raise InputError(f"{sweep_dir} holds no records: {JOURNAL_NAME} is not there. Name the folder of a tracked sweep.")
    tracker = JournalTracker(sweep_dir, str(destination), _connector(destination, sweep_dir))
    tracker.wait(patience_s)
    return tracker.close(timeout_s=0)


@contextmanager
def open_ui(tracking: str | None = None, *, sweep: str | None = None, search: str | None = None) -> Iterator[str]:
    """The address of the page that compares a sweep's trials; a local server is there as long as the context is.

    Without a name: the newest sweep, of `search` if that is given; MLflow's front page if there is none. Raises InputError
    for a sweep that the server does not know, and as make_tracker.
    """
    destination = parse_destination(tracking)
    if destination is None:
        raise InputError("There is no server to look at: --tracking-uri must name one here, but is 'off'.")
    from sweeps.tracking.mlflow_views import find_page

    mlflow = _import_mlflow()
    with _server(destination) as url:
        yield f"{url}/{find_page(mlflow.MlflowClient(url), sweep=sweep, search=search)}"


def parse_destination(tracking: str | None) -> Path | str | None:
    """A folder for a local server, the URL of a running one, or None for "off". Raises InputError for anything else."""
    if tracking is None or tracking == "local":
        home = _REPOSITORY if (_REPOSITORY / "tune_main.py").exists() else Path.cwd()
        return home / "mlflow"
    if tracking == "off":
        return None
    if tracking.startswith(("http://", "https://")):
        return tracking.rstrip("/")
    if "://" in tracking:
        raise InputError(
            f"--tracking-uri must be local, off, a folder or http(s)://..., but is {tracking!r}. Databases are never shared "
            "by file: name a folder, and one local server will own its database, or the URL of a server on that database."
        )
    return Path(tracking).expanduser().resolve()


def _connector(destination: Path | str, sweep_dir: Path) -> "Connect":
    """What the delivery thread calls to reach the server; MLflow itself is imported here, by the caller's thread."""
    mlflow = _import_mlflow()

    @contextmanager
    def connect(memory: dict[str, str]) -> "Iterator[Sink]":
        with _server(destination) as url:
            yield mlflow.MlflowSink(url, memory, sweep_dir)

    return connect


def _server(destination: Path | str) -> AbstractContextManager[str]:
    from sweeps.tracking.server import run_local

    return run_local(destination) if isinstance(destination, Path) else nullcontext(destination)


def _import_mlflow() -> ModuleType:
    """A folder named mlflow passes for an empty package where the library is missing, but has no MlflowClient to import."""
    for name, value in _MLFLOW_SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        from sweeps.tracking import mlflow_sink as tracking_mlflow
    except ImportError as error:
        raise InputError(f"MLflow is not installed ({error}). Install the project again, or use --tracking-uri off.") from error
    return tracking_mlflow
