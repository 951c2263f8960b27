"""What a sweep remembers: its own description and one small file a trial, so that any driver can take it up again."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Protocol

from birdclef_core.errors import InputError
from birdclef_core.store.storage import Storage
from sweeps.schedule.pruning import Rung, Stopped

Status = Literal["waiting", "running", "finished", "pruned", "failed", "interrupted"]
SWEEP_FILE = "sweep.json"
VERSION = 2
"""Of the files below. A sweep whose records are of another version is not taken up: what they mean would be guessed."""


def trial_name(number: int) -> str:
    """Trials are numbered from 0 in the order in which they were drawn."""
    return f"t{number:04d}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a trial ended, as the sampler is told."""

    kind: Literal["score", "pruned", "failed"]
    value: float | None = None
    """The objective, or the last intermediate score of a pruned trial."""
    step: int = 0
    """For a pruned trial, how far it came."""


@dataclass(frozen=True, kw_only=True)
class ToldDraw:
    """One thing that the sampler was told of a configuration."""

    draw: int
    """Number of the sampler's draw. A configuration has several when it was drawn again, or went on after it was pruned."""
    recipe: str
    params: dict[str, Any]
    """As they were drawn: where an extended sweep draws what an older trial was, they may be others than the trial's."""
    outcome: Outcome


@dataclass(kw_only=True)
class TrialRecord:
    """One trial: what was asked for and what became of it."""

    trial: str
    recipe: str
    params: dict[str, Any]
    stage_ids: list[str]
    stages: list[str] = field(default_factory=list)
    """Names of the stages of its chain."""
    kinds: list[str] = field(default_factory=list)
    """Label space and loss of each, as in Rung.kind."""
    config_id: str = ""
    """Hash of model and stages as they were configured: whether parameters still mean the same in a changed search."""
    status: Status = "waiting"
    """`waiting`: for a slot, or for a prefix that another trial is training."""
    stage: str = ""
    epoch: int = 0
    epochs_done: int = 0
    """Of all stages together, reused ones included."""
    epochs_trained: int = 0
    """Without those of reused stages."""
    stage_scores: dict[str, float] = field(default_factory=dict)
    """Score at the end of each stage, in the stage's own label space."""
    middle_scores: dict[str, list[float]] = field(default_factory=dict)
    """By stage, where it was looked at halfway: epoch, epochs, score."""
    trained_ids: list[str] = field(default_factory=list)
    """Stages that this trial itself has trained to their end."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The latest; of a finished trial those of its last stage."""
    score: float | None = None
    """The objective: `val/cmap_pad5` of the last stage of a finished trial."""
    spent_s: dict[str, float] = field(default_factory=dict)
    """Device seconds spent by this trial, by stage."""
    reused_s: dict[str, float] = field(default_factory=dict)
    """Device seconds that reused stages would have cost, by stage."""
    reason: str = ""
    stopped: Stopped | None = None
    """Of a pruned trial: the stage at which it was, and the score."""
    told: list[ToldDraw] = field(default_factory=list)
    """All that the sampler was told of this configuration, so that a later driver's sampler knows the same."""

    @property
    def cost_s(self) -> float:
        """Device seconds spent by this trial."""
        return sum(self.spent_s.values())

    @property
    def saved_s(self) -> float:
        """Device seconds that reused stages would have cost."""
        return sum(self.reused_s.values())

    @property
    def ended(self) -> bool:
        return self.status in ("finished", "pruned", "failed")

    def begin_again(self, stage_ids: list[str]) -> None:
        """Forgets what it will be told anew when it goes on from the store; what it has cost stays."""
        self.stage_ids, self.stage, self.epoch, self.epochs_done = stage_ids, "", 0, 0
        self.stage_scores, self.middle_scores, self.metrics, self.reused_s = {}, {}, {}, {}
        self.score, self.reason, self.stopped = None, "", None

    def reached_ids(self) -> list[str]:
        """Ids of the stages whose ends are known, also of one that was stopped before this trial ran it."""
        known = len(self.stage_scores)
        if self.stopped is not None and not self.stopped.rung.epoch:
            known = max(known, self.stages.index(self.stopped.rung.stage) + 1)
        return self.stage_ids[:known]

    def rung_scores(self) -> Iterator[tuple[Rung, str, float]]:
        """Rung, stage id and score wherever it was compared with others."""
        ids = dict(zip(self.stages, self.stage_ids, strict=True))
        kinds = dict(zip(self.stages, self.kinds, strict=True))
        for stage, (epoch, epochs, score) in self.middle_scores.items():
            yield Rung(stage, int(epoch), int(epochs), kinds[stage]), ids[stage], score
        for stage, score in self.stage_scores.items():
            yield Rung(stage, kind=kinds[stage]), ids[stage], score

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "TrialRecord":
        """Raises ValueError, saying what is wrong, for anything but the whole record of a trial."""
        values = json.loads(text)
        names = {item.name for item in fields(cls)}
        if not isinstance(values, dict) or values.keys() != names:
            odd = sorted(names ^ values.keys()) if isinstance(values, dict) else ["everything"]
            raise ValueError(f"its fields are not those of a trial in this version of the code ({', '.join(odd)})")
        try:
            if stopped := values["stopped"]:
                values["stopped"] = Stopped(**{**stopped, "rung": Rung(**stopped["rung"])})
            values["told"] = [ToldDraw(**{**item, "outcome": Outcome(**item["outcome"])}) for item in values["told"]]
        except (TypeError, KeyError) as error:
            raise ValueError(f"its fields are not those of a trial in this version of the code ({error})") from None
        return cls(**values)


class Records(Protocol):
    """Where a coordinator keeps its trials."""

    def load_trials(self) -> list[TrialRecord]:
        """Every trial, in the order in which they were drawn."""

    def save_trial(self, record: TrialRecord) -> None:
        """Keeps the trial as it is now; it is safe from a kill -9 of this process afterwards."""


@dataclass(frozen=True)
class SweepRecords:
    """The files of one sweep: `sweep.json` and `trials/<trial>.json`. Only the driver writes them."""

    storage: Storage

    def exists(self) -> bool:
        return self.storage.exists(SWEEP_FILE)

    def save_sweep(self, description: dict[str, Any]) -> None:
        self.storage.write_text(SWEEP_FILE, json.dumps({"version": VERSION, **description}, indent=1))

    def load_sweep(self) -> dict[str, Any]:
        """Raises InputError when there is no such sweep, naming those beside it, or when its record cannot be read."""
        text = self.storage.read_text(SWEEP_FILE)
        if text is None:
            parent, _, name = self.storage.root.rpartition("/")
            beside = Storage(self.storage.filesystem, parent)
            known = [other for other in beside.names() if beside.exists(f"{other}/{SWEEP_FILE}")]
            raise InputError(f"There is no sweep {name!r} in {parent}; those that exist: {', '.join(known) or 'none'}.")
        try:
            description = json.loads(text)
            version = description.get("version", 1)
        except (ValueError, AttributeError) as error:
            raise self._refusal(SWEEP_FILE, f"cannot be read: {error}") from None
        if version != VERSION:
            raise self._refusal(
                SWEEP_FILE, f"was written by another version of the code ({version}, and this one reads {VERSION})"
            )
        return description

    def save_trial(self, record: TrialRecord) -> None:
        self.storage.write_text(f"trials/{record.trial}.json", record.to_json())

    def load_trials(self) -> list[TrialRecord]:
        """Every trial, in the order in which they were drawn. Raises InputError when one is missing or cannot be read."""
        trials = self.storage.at("trials")
        names = {name.removesuffix(".json") for name in trials.names() if name.endswith(".json")}
        expected = [trial_name(number) for number in range(len(names))]
        if missing := sorted(set(expected) - names):
            raise self._refusal(f"trials/{missing[0]}.json", f"is missing, though there are {len(names)} trials")
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(self._load_trial, expected))

    def _load_trial(self, name: str) -> TrialRecord:
        text = self.storage.read_text(f"trials/{name}.json")
        try:
            record = TrialRecord.from_json(text or "")
        except ValueError as error:
            raise self._refusal(f"trials/{name}.json", f"cannot be read: {error}") from None
        if record.trial != name:
            raise self._refusal(f"trials/{name}.json", f"is the record of {record.trial}")
        return record

    def _refusal(self, file: str, problem: str) -> InputError:
        return InputError(
            f"A sweep's records must be whole to go on with it, but {self.storage.path(file)} {problem}. Nothing was changed. Put the "
            "file back from a copy, or start a new sweep on this storage: what is trained is reused."
        )
