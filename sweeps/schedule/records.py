"""The records of a sweep: one of the sweep itself and one of each trial, so that any driver can go on with it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from birdclef_core.errors import FileContentError, InputError
from birdclef_core.json_files import from_json, to_json
from birdclef_core.store.leakage import Leak
from birdclef_core.store.storage import Storage
from sweeps.objective import CPU_SECONDS, DEVICE_HOURS, Objective, Score, pareto_front
from sweeps.options import SweepOptions
from sweeps.replicates import level_of, levels, mean_score, stage_of
from sweeps.sampling.draws import Outcome
from sweeps.schedule.pruning import Rung, RungScore, Stopped
from sweeps.schedule.trial_log.pieces import LineLog, MissingPiece, read_pieces
from sweeps.search.space import Search

Status = Literal["waiting", "running", "finished", "pruned", "failed", "interrupted"]
State = Literal["running", "interrupted", "finished", "failed"]
SWEEP_FILE = "sweep.json"
TRIALS = "trials"
VERSION: Literal[6] = 6
"""Version of the record of a sweep. One of another version is refused, because what it means could only be guessed."""


def to_line(record: "TrialRecord") -> bytes:
    """Return the line of a trial's record in the log of trials."""
    return f"{to_json(record)}\n".encode()


def trial_name(number: int) -> str:
    """Return the name of a trial. Trials are numbered from 0 in the order in which they began."""
    return f"t{number:04d}"


@dataclass(frozen=True, kw_only=True)
class SweepPart:
    """The start of a sweep, or one of its extensions."""

    started_at: str
    """Time of its start, ISO 8601."""
    first_trial: int
    """Number of its first trial."""
    samples: int | None
    """Number of its trials; None where limits alone end it."""
    options: SweepOptions
    search: Search
    """The search that its trials are drawn from: editing the file that it was read from changes nothing."""
    pretrained: dict[str, str]
    """The first weights by encoder; empty where trials start from a stage."""
    code_version: str
    versions: dict[str, str]
    """Versions of Python and the libraries."""
    git_commit: str
    """The commit of the code, with `+` where files differed from it; empty outside a checkout."""
    leak: Leak | None = None
    """The validation recordings that trained its start stage; None without a start stage, or in a record of an older version."""


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """The record of a sweep, `sweep.json`."""

    version: Literal[6]
    name: str
    search: str
    """Name of the search of its start. It names the experiment in which all trials are found."""
    data_fingerprint: str
    """Fingerprint of the recordings."""
    started_at: str
    """Time of its start, ISO 8601."""
    options: SweepOptions
    """The options that it runs with now, or ran with last."""
    code_version: str
    """Code version of its last part."""
    trials: int
    """Number of trials that it had when this was written; it may have more by now."""
    parts: tuple[SweepPart, ...]
    """Its start, then its extensions. A driver goes on with the last one."""
    state: State
    state_since: str
    """Time since when it is in that state, ISO 8601."""
    ran_s: float
    """Seconds in which its drivers ran."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise InputError("parts must hold at least one part, the start of the sweep.")
        firsts = [part.first_trial for part in self.parts]
        if firsts[0] != 0 or firsts != sorted(firsts):
            raise InputError(f"first_trial of the parts must begin at 0 and never fall, but they are {firsts}.")

    @property
    def objective(self) -> Objective:
        """What all its trials are compared by."""
        return Objective.of(self.parts[-1].search.objective)

    @property
    def stored_before(self) -> set[str]:
        """The ids of the stored stages that its trials start from, or whose predictions they learn from."""
        starts = (part.options.from_stage for part in self.parts)
        teachers = (stage_id for part in self.parts for stage_id in part.search.stored_teachers())
        return {stage_id for stage_id in (*starts, *teachers) if stage_id is not None}


@dataclass(frozen=True, kw_only=True)
class ToldDraw:
    """A draw whose outcome was reported to the sampler."""

    draw: int
    """Number of the draw. A configuration has several if it was drawn again, or went on after it was pruned."""
    recipe: str
    params: dict[str, Any]
    """The parameters of the draw. In an extended sweep they may differ from those of the trial with the same configuration."""
    outcome: Outcome


@dataclass(kw_only=True)
class TrialRecord:
    """The record of a trial: its configuration and its results. The driver changes it while the trial runs."""

    trial: str
    recipe: str
    params: dict[str, Any]
    stage_ids: list[str]
    """Ids of the stages of its chain, first to last."""
    stages: list[str] = field(default_factory=list)
    """Names of these stages, each with that of its replicate where the trial has several (see `sweeps/replicates.py`)."""
    kinds: list[str] = field(default_factory=list)
    """What each of these stages is compared with, its label space and loss, as in `Rung.kind`."""
    config_id: str = ""
    """Hash of the configured model and stages. It tells whether the same parameters mean the same in a changed search."""
    status: Status = "waiting"
    """`waiting`: for a slot, or for a stage that another trial is training."""
    stage: str = ""
    """Name of its present or last stage."""
    epoch: int = 0
    """Present or last epoch of that stage."""
    epochs_done: int = 0
    """Number of epochs of all stages together, those of reused stages included."""
    epochs_trained: int = 0
    """Number of epochs that the trial itself trained."""
    stage_scores: dict[str, float] = field(default_factory=dict)
    """Objective at the end of each stage, for the stage's own label space, by name of the stage."""
    stage_errors: dict[str, float] = field(default_factory=dict)
    """Standard errors of those scores, where they are known."""
    middle_scores: dict[str, tuple[int, int, float]] = field(default_factory=dict)
    """Epoch, epochs of the schedule and score in the middle of each stage that has a rung there, by name of the stage."""
    trained_ids: list[str] = field(default_factory=list)
    """Ids of the stages that the trial itself trained to their end."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The latest metrics; for a finished trial, those of its last stage, or their means over its replicates."""
    replicate_metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    """The metrics at the end of the stages of its present or last level, by name of the stage; empty where it has one replicate."""
    score: float | None = None
    """The objective of a finished trial, for its last stage; the mean over its replicates."""
    spent_s: dict[str, float] = field(default_factory=dict)
    """Device seconds that the trial spent, by name of the stage."""
    devices: dict[str, str] = field(default_factory=dict)
    """The name of the device on which the trial trained the last epoch of each stage, by name of the stage."""
    gpu_s: float = 0.0
    """GPU seconds that these were, by the GPUs that its workers had; device seconds where they had none."""
    reused_s: dict[str, float] = field(default_factory=dict)
    """Device seconds that its reused stages would have cost, by name of the stage."""
    cpu_seconds: float | None = None
    """CPU seconds in which its model hears 10 minutes of sound, on the driver's machine; None where trials are not compared by them."""
    reason: str = ""
    """Why it was pruned, failed or interrupted."""
    ended_at: str = ""
    """Time at which it finished, failed or was pruned, ISO 8601; empty while it is open."""
    stopped: Stopped | None = None
    """For a pruned trial, the stage that was stopped and its score."""
    foretold: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Mean and standard deviation of the objective, as each model of the stage-aware sampler foretold them when the trial was drawn."""
    told: list[ToldDraw] = field(default_factory=list)
    """All draws of this configuration whose outcomes were reported to the sampler; they are reported to a later driver's too."""

    @property
    def cost_s(self) -> float:
        """Device seconds that the trial spent."""
        return sum(self.spent_s.values())

    @property
    def saved_s(self) -> float:
        """Device seconds that its reused stages would have cost."""
        return sum(self.reused_s.values())

    @property
    def costs(self) -> dict[str, float]:
        """What its model costs by the names of costs that an objective may have; infinite where that is not known.

        Of a stage that counts as reused only what its complete training took counts, not what this trial had begun of it.
        """
        trained_s = sum((self.spent_s | self.reused_s).values())
        return {
            CPU_SECONDS: math.inf if self.cpu_seconds is None else self.cpu_seconds,
            DEVICE_HOURS: trained_s / 3600 if self.score is not None else math.inf,
        }

    @property
    def ended(self) -> bool:
        return self.status in ("finished", "pruned", "failed")

    @property
    def paused(self) -> bool:
        """Whether it stopped because another trial was worth more: it may go on at any time."""
        return self.status == "pruned" and self.stopped is not None and self.stopped.by == "worth"

    def open_again(self) -> None:
        """Let a failed trial be tried again by the next driver. The sampler does not hear that it failed."""
        self.status, self.told, self.ended_at = "interrupted", [], ""

    def begin_again(self, stage_ids: list[str]) -> None:
        """Forget the results that updates bring again when it starts from the store once more. What it has cost stays."""
        self.stage_ids, self.stage, self.epoch, self.epochs_done = stage_ids, "", 0, 0
        self.stage_scores, self.stage_errors, self.middle_scores, self.metrics, self.reused_s = {}, {}, {}, {}, {}
        self.replicate_metrics = {}
        self.score, self.reason, self.stopped, self.ended_at = None, "", None, ""

    def reached_ids(self) -> list[str]:
        """Return the ids of the stages whose end is known, also of one that was stopped before this trial ran it."""
        known = len(self.stage_scores)
        if self.stopped is not None and not self.stopped.rung.epoch:
            known = max(known, max(self.level_named(self.stopped.rung.stage)) + 1)
        return self.stage_ids[:known]

    def level_named(self, stage: str) -> list[int]:
        """Return the indexes of the stages of that name, one for each replicate."""
        return [index for index, name in enumerate(self.stages) if stage_of(name) == stage]

    def score_of_level(self, index: int, *, on_soundscapes: bool) -> Score | None:
        """Return the mean score of the replicates at the end of the stage of that index; None while one of them has none.

        `on_soundscapes`: whether scores are on labelled soundscapes too.
        """
        names = [self.stages[other] for other in level_of(self.stages, index)]
        if not all(name in self.stage_scores for name in names):
            return None
        scores = {name: Score(self.stage_scores[name], self.stage_errors.get(name)) for name in names}
        return mean_score(scores, on_soundscapes=on_soundscapes)

    def score_at(self, rung: Rung) -> float | None:
        """Return its score at a rung, or None when it has none: in the middle that of its first replicate, at the end the mean over replicates."""
        level = self.level_named(rung.stage)
        if not level:
            return None
        if rung.epoch:
            middle = self.middle_scores.get(self.stages[level[0]])
            return middle[2] if middle else None
        mean = self.score_of_level(level[0], on_soundscapes=False)
        return None if mean is None else mean.value

    def rung_scores(self, *, on_soundscapes: bool) -> Iterator[RungScore]:
        """Yield the trial's score wherever it was compared with others. `on_soundscapes`: as in `score_of_level`."""
        for stage, (epoch, epochs, score) in self.middle_scores.items():
            yield self.rung_score(self.stages.index(stage), Score(score), epoch=epoch, epochs=epochs)
        for level in levels(self.stages):
            mean = self.score_of_level(level[-1], on_soundscapes=on_soundscapes)
            if mean is not None:
                yield self.rung_score(level[-1], mean)

    def rung_score(self, index: int, score: Score, *, epoch: int = 0, epochs: int = 0) -> RungScore:
        """Return a score of the stage of that index: at an epoch of its schedule, or at its end."""
        return RungScore(
            rung=Rung(stage_of(self.stages[index]), epoch, epochs, self.kinds[index]),
            stage_id=self.stage_ids[index],
            score=score.value,
            error=score.error or 0.0,
            ancestors=self.stage_ids[:index],
        )

    def problem(self) -> str:
        """Return what is wrong with a record whose fields contradict each other; empty when nothing is."""
        if not len(self.stage_ids) == len(self.stages) == len(self.kinds) > 0:
            return "stage_ids, stages and kinds must be of the same stages, one or more"
        if len(set(self.stages)) < len(self.stages):
            return f"each of its stages must have a name of its own, but they are {', '.join(self.stages)}"
        if self.status == "finished" and self.score is None:
            return "a finished trial must have a score"
        if self.status == "pruned" and self.stopped is None:
            return "a pruned trial must say in `stopped` which stage was stopped"
        named = {
            *self.stage_scores,
            *self.stage_errors,
            *self.middle_scores,
            *self.replicate_metrics,
            *([self.stopped.rung.stage] if self.stopped else ()),
        }
        if others := sorted(named - {*self.stages, *map(stage_of, self.stages)}):
            return f"its scores must be of its stages, but {others[0]} is none of them"
        return ""


def best_trials(trials: Sequence[TrialRecord], objective: Objective) -> list[TrialRecord]:
    """Return the finished trials that no other beats, the one with the highest score first: the Pareto front of the objective.

    Where the objective has no cost, this is one trial, the first with the highest score. Empty when none has finished.
    """
    finished = [record for record in trials if record.score is not None]
    if objective.cost is None:
        return [max(finished, key=lambda record: record.score or 0.0)] if finished else []
    values = [(record.score or 0.0, record.costs[objective.cost]) for record in finished]
    return [finished[index] for index in pareto_front(values)]


class Records(Protocol):
    """Where a coordinator keeps its trials."""

    def load_trials(self) -> list[TrialRecord]:
        """Return every trial, in the order in which they began."""

    def save_trials(self, trials: Sequence[TrialRecord]) -> None:
        """Take trials as they are now, and return at once. They are written together, after everything that was taken before."""

    def is_saved(self, trial: str) -> bool:
        """Return whether the trial is written as it was taken last, and everything before it: a kill -9 of this process cannot lose it then."""

    @property
    def is_away(self) -> bool:
        """Whether the storage is away. What is saved waits then."""

    @property
    def all_saved(self) -> bool:
        """Whether everything that was taken is written."""

    def wait(self, limit_s: float | None = None) -> None:
        """Wait until everything is written, or the time has passed. Raises StorageAway when the storage was away for too long."""


@dataclass(frozen=True)
class SweepRecords:
    """The records of one sweep: `sweep.json`, and in `trials/` those of the trials, as a log. Only the driver writes them.

    A line of the log is the record of a trial, and the last one counts (`trial_log/pieces.py`).
    """

    storage: Storage

    def exists(self) -> bool:
        return self.storage.exists(SWEEP_FILE)

    def save_sweep(self, record: SweepRecord) -> None:
        self.storage.write_json(SWEEP_FILE, record, indent=1)

    def load_sweep(self) -> SweepRecord:
        """Return the sweep's record. Raises InputError when there is no such sweep, naming those beside it, or it cannot be read.

        Options and settings of the search that it lacks have their defaults: it may be older than they are.
        """
        try:
            record = self.storage.read_json(SweepRecord, SWEEP_FILE, defaults=True)
        except FileContentError as error:
            raise self._refusal(SWEEP_FILE, self._other_version() or f"cannot be read: {error.problem}") from None
        if record is None:
            parent, _, name = self.storage.root.rpartition("/")
            beside = Storage(self.storage.filesystem, parent)
            known = [other for other in beside.names() if beside.exists(f"{other}/{SWEEP_FILE}")]
            raise InputError(f"There is no sweep {name!r} in {parent}; those that exist: {', '.join(known) or 'none'}.")
        return record

    def _other_version(self) -> str:
        """Return what to say of a sweep's record of another version; empty for any other."""
        try:
            values = self.storage.read_json(dict[str, Any], SWEEP_FILE) or {}
        except FileContentError:
            return ""
        version = values.get("version", 1)
        return "" if version == VERSION else f"is of version {version!r}, and this version of the code reads version {VERSION}"

    @property
    def trials_storage(self) -> Storage:
        """Where the log of trials is."""
        return self.storage.at(TRIALS)

    def save_trials(self, trials: Sequence[TrialRecord]) -> None:
        """Write trials as they are now. While a sweep runs, `RecordWriter` alone writes them."""
        self.open_log()[1].append({trial.trial: to_line(trial) for trial in trials})

    def load_trials(self) -> list[TrialRecord]:
        """Return every trial, in the order in which they began. Raises InputError when one is missing or cannot be read."""
        return self.open_log()[0]

    def open_log(self) -> tuple[list[TrialRecord], LineLog]:
        """Return every trial as `load_trials` does, and the log, which goes on after them."""
        try:
            found = read_pieces(self.trials_storage)
        except MissingPiece as missing:
            raise self._refusal(f"{TRIALS}/{missing}", "is missing, though there are later ones") from None
        trials: dict[str, TrialRecord] = {}
        lines: dict[str, bytes] = {}
        for piece, content in found:
            for number, line in enumerate(content.splitlines(keepends=True) or [b""], start=1):
                record = self._read_trial(line, f"{TRIALS}/{piece.name}", number)
                trials[record.trial], lines[record.trial] = record, line
        expected = [trial_name(number) for number in range(len(trials))]
        if gaps := sorted(set(expected) - trials.keys()):
            raise self._refusal(TRIALS, f"has no record of {gaps[0]}, though there are {len(trials)} trials")
        log = LineLog(self.trials_storage, [(piece, len(content)) for piece, content in found], lines)
        return [trials[name] for name in expected], log

    def _read_trial(self, line: bytes, file: str, number: int) -> TrialRecord:
        try:
            record = from_json(TrialRecord, line, file=file)
        except FileContentError as error:
            raise self._refusal(file, f"cannot be read: in line {number}, {error.problem}") from None
        if problem := record.problem():
            raise self._refusal(file, f"cannot be read: in line {number}, of {record.trial}, {problem}")
        return record

    def check_points(self, sweep: SweepRecord, trials: Sequence[TrialRecord]) -> None:
        """Raise InputError for an open trial that is no point of the search that it was drawn from: its record was changed."""
        for number, record in enumerate(trials):
            part = [part for part in sweep.parts if part.first_trial <= number][-1]
            if not record.ended and part.search.point_of(record.recipe, record.params) is None:
                raise self._refusal(
                    TRIALS,
                    f"says that {record.trial} has recipe {record.recipe!r} with params {record.params}, which the sweep's search cannot have drawn",
                )

    def _refusal(self, file: str, problem: str) -> InputError:
        return InputError(
            f"A sweep can go on only if all its records can be read, but {self.storage.path(file)} {problem}. Nothing was changed. "
            "Put the file back from a copy, or start a new sweep on this storage: it reuses every stage that is trained."
        )
