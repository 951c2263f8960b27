"""What a sweep reports and to whom: its events, the tracker that takes them, and the one that takes none.

Only the driver speaks to a tracker. Events are written to a journal in the sweep's folder first and delivered from there
(`tracking_journal.py`), so a tracking server that is slow, away or dead never holds a sweep back.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    pass

StageStatus = Literal["finished", "failed", "stopped"]
TrialStatus = Literal["finished", "pruned", "failed", "interrupted"]

# MLflow reads these when it is imported or called; what the user has set stands.


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
class DeliveryStatus:
    """How much of a journal has reached its server, over all runs of the sweep."""

    delivered: int
    kept: int
    """Records that wait in the journal; `birdclef track sync` delivers them."""
    rejected: int
    """Records that the server refused, kept beside the journal with its reasons."""
    problem: str = ""
    """Why records are kept, in the last attempt's words."""


class Tracker(Protocol):
    """Where the driver sends its events.

    Only the process that runs the sweep uses a tracker, from any of its threads. A tracker never changes an event that it is given,
    and the caller does not change it afterwards either. A server that is slow or away raises nothing.
    """

    def record(self, event: Event) -> None:
        """Take an event and return without waiting for a server. Events of one thread keep their order.

        A tracker that keeps events has made this one safe from a kill -9 of the process on return.
        """

    def close(self, timeout_s: float = 60.0) -> DeliveryStatus:
        """Wait up to `timeout_s` seconds for the delivery of all events, end it and return how far it came.

        Called once, as the last call: no event may be recorded afterwards.
        """


class NullTracker:
    """A tracker that takes every event and keeps none: `--tracking-uri off`."""

    def record(self, event: Event) -> None:
        pass

    def close(self, timeout_s: float = 60.0) -> DeliveryStatus:
        return DeliveryStatus(delivered=0, kept=0, rejected=0)
