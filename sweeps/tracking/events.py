"""The events of a sweep or an ensemble, the tracker that they are sent to, and the tracker that ignores them.

Only the driver uses a tracker. Events are written to a journal in the sweep's folder first and delivered from there
(`delivery.py`), so a tracking server that is slow, away or dead never delays a sweep.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from birdclef_core.errors import FileContentError
from birdclef_core.json_files import from_json, from_values, to_json

StageStatus = Literal["finished", "failed", "stopped"]
TrialStatus = Literal["finished", "pruned", "failed", "interrupted"]
Params = Mapping[str, str | int | float | bool]

LEARNS_FROM = "birdclef.learns_from"
"""Tag with the stage of predictions that a stage learns from."""
OBJECTIVE, OBJECTIVE_ERROR = "objective", "objective_se"
"""Names of the metrics under which every sweep's trials have what they are compared by, and its standard error."""
OBJECTIVE_TAG = "birdclef.objective"
"""Name of the tag that says what they are compared by."""
FRONT_TAG = "birdclef.pareto_front"
"""Name of the tag of the trials on the Pareto front: true, or false when later trials of the sweep have beaten one."""


@dataclass(frozen=True, kw_only=True)
class SweepStarted:
    """The first event of a sweep. It is logged again when the sweep is resumed."""

    sweep: str
    search: str
    """Name of the search; the sweep's experiment is `birdclef/<search>`."""
    tags: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    """What the sweep is, in Markdown, for the experiment's description."""


@dataclass(frozen=True, kw_only=True)
class TrialStarted:
    """A trial starts, or goes on after a resume. The same trial is the same run."""

    trial: str
    params: Params = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StageStarted:
    """An execution of a stage starts, in the trial that trains it."""

    trial: str
    execution: str
    """Name of the execution, unique in the sweep. One that goes on from an epoch checkpoint keeps its name."""
    stage: str
    params: Params = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    starts_from: str | None = None
    """Stage id of the parent checkpoint, linked as the execution's input; None without a parent."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The stages that it is made from: the parent, and the predictions that it learns from."""
        return tuple(stage_id for stage_id in (self.starts_from, self.tags.get(LEARNS_FROM)) if stage_id)


@dataclass(frozen=True, kw_only=True)
class EpochFinished:
    """Metrics of one epoch, shown on the stage's run by `epoch` and on the trial's run by `trial_epoch`."""

    trial: str
    execution: str
    epoch: int
    """Epoch of the stage, from 1. An epoch that was delivered before is not delivered again."""
    trial_epoch: int
    """Number of epochs over all stages of the trial up to this one."""
    metrics: Mapping[str, float]
    time_s: float
    """Unix time at which the epoch ended."""


@dataclass(frozen=True, kw_only=True)
class StageFinished:
    """An execution ended. A finished one has published its checkpoint, linked as its output."""

    trial: str
    execution: str
    stage_id: str
    status: StageStatus
    checkpoint_uri: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    artifacts: str | None = None
    """A local folder whose files are uploaded to the stage's run; a relative path starts at the sweep's folder."""


@dataclass(frozen=True, kw_only=True)
class CheckpointUsed:
    """A trial uses a stage of the store instead of training it.

    `stage` and `checkpoint_uri` describe the stage to a server that has not seen it, because another sweep trained it.
    """

    trial: str
    stage_id: str
    stage: str = ""
    checkpoint_uri: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The stage's last scores, shown on the trial's run as if it had trained the stage."""


@dataclass(frozen=True, kw_only=True)
class TrialFinished:
    """A trial ended, or was interrupted and will go on when the sweep is resumed."""

    trial: str
    status: TrialStatus
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The last metrics. `OBJECTIVE`, if among them, is also shown with every checkpoint of the trial's chain."""
    tags: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    """Why it was pruned, failed or interrupted, for the run's description."""
    artifacts: str | None = None
    """As in StageFinished, with the lineage of its last stage."""


@dataclass(frozen=True, kw_only=True)
class FrontFound:
    """The Pareto front of a sweep whose trials are compared by a cost too. It is logged when the sweep ends or is stopped."""

    trials: tuple[str, ...]
    """The trials of the front. Others were never on it, or have been beaten since."""


@dataclass(frozen=True, kw_only=True)
class SweepFinished:
    """The last event of a sweep."""

    status: str
    table_markdown: str
    """The ranking of all trials."""
    artifacts: str | None = None
    """As in StageFinished, with plan, result and pictures of the sweep."""


@dataclass(frozen=True, kw_only=True)
class EnsembleChosen:
    """An ensemble was chosen. It is the only event of its journal."""

    ensemble: str
    """Its id, unique among ensembles."""
    name: str
    """What to call its run."""
    sweep: str
    """The sweep that it was chosen from, the first one if there were several; empty where no sweep is known."""
    search: str
    """Name of the search of that sweep."""
    stages: Mapping[str, str]
    """The name of each stage whose weights it has, by stage id; each checkpoint is linked as the run's input."""
    checkpoint_uris: Mapping[str, str]
    """Where these are, by stage id."""
    params: Params = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    """What it is worth, in Markdown, for the run's description."""
    artifacts: str | None = None
    """As in StageFinished, with its record and its page."""


Event = (
    SweepStarted
    | TrialStarted
    | StageStarted
    | EpochFinished
    | StageFinished
    | CheckpointUsed
    | TrialFinished
    | FrontFound
    | SweepFinished
    | EnsembleChosen
)


def part_of(folder: Path) -> Path:
    """Return the folder in which files lie while they are copied. It gets the name `folder` when all are there."""
    return folder.with_name(f"{folder.name}.part")


_KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}


def to_line(event: Event, time_ms: int) -> str:
    """Return an event as one line of the journal: its fields, its name and the Unix time in ms at which it was logged."""
    return to_json({"event": type(event).__name__, "time_ms": time_ms, **vars(event)})


def from_line(line: bytes, *, file: str) -> tuple[Event, int]:
    """Return the event of a line and the Unix time in ms at which it was logged.

    Raises FileContentError, which names the journal `file`, for any other line.
    """
    fields = from_json(dict[str, Any], line, file=file)
    kind, time_ms = fields.pop("event", None), fields.pop("time_ms", None)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise FileContentError(file, f"event must be one of {', '.join(_KINDS)}, but is {kind!r}")
    if type(time_ms) is not int:
        raise FileContentError(file, f"time_ms must be a whole number, but is {time_ms!r}")
    return from_values(_KINDS[kind], fields, file=file), time_ms


@dataclass(frozen=True, kw_only=True)
class DeliveryStatus:
    """How many events of a journal have reached the server, over all runs of the sweep."""

    delivered: int
    """Number of events that the server has."""
    kept: int
    """Number of events that wait in the journal; `birdclef track sync` delivers them."""
    rejected: int
    """Number of events that the server refused; they are kept beside the journal with its reasons."""
    problem: str = ""
    """Why events are waiting: the error of the last attempt. Empty when none is waiting."""
    denied: bool = False
    """Whether they wait because the server refuses the user, and not because it is away."""


class Tracker(Protocol):
    """Where the driver sends its events.

    Only the process that runs the sweep uses a tracker, from any of its threads. A tracker never changes an event that it is given,
    and the caller does not change it afterwards either. A server that is slow or away raises nothing.
    """

    def log(self, event: Event) -> None:
        """Take an event and return without waiting for a server. Events of one thread keep their order.

        A tracker that keeps events has made this one safe from a kill -9 of the process on return.
        """

    def keep(self) -> None:
        """Return when the events up to now are safe from the loss of this machine too, where another one may go on. Raises OSError.

        Called before the records that follow from these events are written: what they say of a trial's end is then in the journal as well.
        """

    def close(self, timeout_s: float = 60.0) -> DeliveryStatus:
        """Wait up to `timeout_s` seconds for the delivery of all events, end it and return how far it came.

        Called once, as the last call: no event may be logged afterwards.
        """


class NullTracker:
    """A tracker that takes every event and keeps none: `--tracking-uri off`."""

    def log(self, event: Event) -> None:
        pass

    def keep(self) -> None:
        pass

    def close(self, timeout_s: float = 60.0) -> DeliveryStatus:
        return DeliveryStatus(delivered=0, kept=0, rejected=0)
