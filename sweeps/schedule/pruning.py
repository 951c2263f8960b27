"""Which stages do not go on, and why: those that failed, and those that asynchronous successive halving stopped.

Halving compares scores at the end and in the middle of stages, and only scores of the same stage (same loss, same label space)
at the same epoch of an equally long schedule. Tune's own ASHA cannot do that: its rungs lie at powers of a factor. Nothing that
is stopped is lost: its checkpoint stays in the store, and it may go on when later scores are worse.

Source: Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from birdclef_core.config import StageConfig
from birdclef_core.errors import InputError
from sweeps.objective import Objective
from sweeps.options import PruningName
from sweeps.search.space import Search

MIN_EPOCHS_FOR_A_MIDDLE = 10
NOTHING = "nothing"
"""`compared_with` of a stage that stops no trial."""


@dataclass(frozen=True)
class Rung:
    """A place where scores are compared: the end of a stage, or an epoch in the middle of a schedule of a given length."""

    stage: str = field(compare=False)
    """Name of the stage; `kind` says which stages are compared."""
    epoch: int = 0
    """The epoch, or 0 for the end of a schedule of any length."""
    epochs: int = 0
    """Length of the schedule in epochs, or 0 for the end of a schedule of any length."""
    kind: str = ""
    """What it is compared with (its name, as a rule), label space and loss: a search may have stages of one name with different ones."""

    @property
    def name(self) -> str:
        return f"epoch {self.epoch} of {self.epochs} of {self.stage}" if self.epoch else f"the end of {self.stage}"

    @property
    def keep(self) -> float:
        """The share of stages that go on: the better half at the end of a stage, all but the worst quarter in the middle."""
        return 0.75 if self.epoch else 0.5


def kind_of(config: StageConfig) -> str:
    """The value of `Rung.kind` for a stage."""
    return f"{config.compared_with or config.name} {config.label_space} {config.loss}"


def rung_at(config: StageConfig, epoch: int, epochs: int) -> Rung | None:
    """The rung at an epoch of a stage, if there is one. `epochs`: length of the schedule, or the last epoch of an early stop.

    Predictions have the score of their teacher, which was compared already, and a stage may be compared with nothing.
    """
    if config.predicts or config.compared_with == NOTHING:
        return None
    if epoch == epochs:
        return Rung(config.name, kind=kind_of(config))
    if epochs >= MIN_EPOCHS_FOR_A_MIDDLE and epoch == epochs // 2:
        return Rung(config.name, epoch, epochs, kind_of(config))
    return None


def middle_epochs(config: StageConfig) -> list[int]:
    """The epochs of a stage, before its end, at which there is a rung."""
    return [epoch for epoch in range(1, config.epochs) if rung_at(config, epoch, config.epochs)]


@dataclass
class _Scores:
    """The scores at one rung, divided into those that go on and the others. Adding one costs the logarithm of their number."""

    known: dict[str, float] = field(default_factory=dict)
    """Scores by stage id: a stage that many trials share counts once."""
    upper: list[tuple[float, str]] = field(default_factory=list)
    """Heap of the scores that go on, the lowest first."""
    lower: list[tuple[float, str]] = field(default_factory=list)
    """Heap of the other scores, negated, the best first."""
    stopped: list[tuple[float, str]] = field(default_factory=list)
    """Heap of what the stopped stages reach, negated, the best first: the score plus its standard error."""

    @property
    def cut(self) -> float:
        """The lowest score that belongs to the upper share."""
        return self.upper[0][0]

    def add(self, stage_id: str, score: float, keep: float) -> list[str]:
        """Add a score and return the stages that now belong to the share `keep`, and did not before."""
        if stage_id in self.known:
            return []
        self.known[stage_id] = score
        if self.upper and score >= self.cut:
            heapq.heappush(self.upper, (score, stage_id))
            risen = {stage_id}
        else:
            heapq.heappush(self.lower, (-score, stage_id))
            risen = set()
        kept = math.ceil(len(self.known) * keep)
        while len(self.upper) > kept:
            score, down = heapq.heappop(self.upper)
            heapq.heappush(self.lower, (-score, down))
            risen.discard(down)
        while len(self.upper) < kept:
            negated, up = heapq.heappop(self.lower)
            heapq.heappush(self.upper, (-negated, up))
            risen.add(up)
        return sorted(risen)


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """A stage that does not go on for now: halving has stopped it, or something else is worth more to one trial's worker."""

    stage_id: str
    rung: Rung
    """Where it was stopped."""
    score: float
    """Its score there."""
    reason: str
    error: float = 0.0
    """Standard error of the score; 0 where it is not known."""
    by: Literal["rank", "worth"] = "rank"
    """`rank`: no trial goes on with the stage until it rises; `worth`: one trial is paused, and any trial may depart from the stage."""


@dataclass(frozen=True, kw_only=True)
class RungScore:
    """The score of a stage at a rung."""

    rung: Rung
    stage_id: str
    score: float
    error: float = 0.0
    """Standard error of the score; 0 where it is not known."""
    ancestors: Sequence[str] = ()
    """Ids of the stages before it in its chain."""


class StageHalving:
    """Lets the upper share of the stages at each rung go on.

    A stage stops only if its score is below the lowest of the upper share by more than the standard error of its score. It goes on
    again when later scores at this rung are worse, or when a stage that was trained from it belongs to the upper share of another rung.
    """

    def __init__(self, grace: float = 4) -> None:
        """`grace`: no stage is stopped at a rung that fewer different stages have reached; infinity: none is ever stopped."""
        self._grace = grace
        self._scores: dict[Rung, _Scores] = {}
        self._latest: dict[str, RungScore] = {}
        """The score of each stage at the last rung that it has reached."""
        self._proven: set[str] = set()
        """Stages from which one was trained that belongs to the upper share of its rung."""
        self.stopped: dict[str, Stopped] = {}
        """The stopped stages, by id."""
        self._risen: list[str] = []

    def add(self, item: RungScore) -> None:
        """Add a score at a rung. Stages that were stopped may rise by it."""
        if not math.isfinite(item.score):
            return
        scores = self._scores.setdefault(item.rung, _Scores())
        if item.stage_id not in self._latest or not item.rung.epoch:
            self._latest[item.stage_id] = item
        risen = scores.add(item.stage_id, item.score, item.rung.keep)
        if len(scores.known) >= self._grace:
            for stage_id in risen if len(scores.known) > self._grace else [stage_id for _, stage_id in scores.upper]:
                self._prove(self._latest[stage_id].ancestors)
        while scores.stopped and -scores.stopped[0][0] >= scores.cut:
            _, stage_id = heapq.heappop(scores.stopped)
            if stage_id in self.stopped and self.stopped[stage_id].rung == item.rung:
                self._rise(stage_id)
        if item.stage_id in self.stopped and self.stopped[item.stage_id].rung != self._latest[item.stage_id].rung:
            self._stopped_before_its_end(item.stage_id)

    def judge(self, item: RungScore) -> Stopped | None:
        """Add a score, and return the verdict if the stage stops there."""
        if not math.isfinite(item.score):
            return self._stop(item, f"its score at {item.rung.name} is {item.score}")
        self.add(item)
        return self.verdict(item.stage_id)

    def verdict(self, stage_id: str) -> Stopped | None:
        """Return why a stage does not go on, by the scores that are known now; None when it does, or when it has no score yet."""
        if stage_id in self.stopped or stage_id in self._proven or stage_id not in self._latest:
            return self.stopped.get(stage_id)
        item = self._latest[stage_id]
        scores = self._scores[item.rung]
        score, arrived = scores.known[stage_id], len(scores.known)
        if arrived < self._grace or score + item.error >= scores.cut:
            return None
        below = f"its {score:.3f} was below {scores.cut:.3f}, the best {item.rung.keep:.0%} of {arrived} stages"
        by_more = f", by more than its standard error of {item.error:.3f}" if item.error else ""
        heapq.heappush(scores.stopped, (-(score + item.error), stage_id))
        return self._stop(item, f"at {item.rung.name} {below}{by_more}")

    def recall(self, stopped: Stopped) -> None:
        """Restore an earlier driver's verdict. If the scores known by now say otherwise, the stage rises."""
        if not math.isfinite(stopped.score):
            self.stopped[stopped.stage_id] = stopped
            return
        self.add(RungScore(rung=stopped.rung, stage_id=stopped.stage_id, score=stopped.score, error=stopped.error))
        now = self.verdict(stopped.stage_id)
        if now is None:
            self._risen.append(stopped.stage_id)
        elif now.rung == stopped.rung:
            self.stopped[stopped.stage_id] = stopped

    def take_risen(self) -> list[str]:
        """Return the stages that were stopped and now go on, each once."""
        risen, self._risen = self._risen, []
        return risen

    def _prove(self, ancestors: Sequence[str]) -> None:
        for stage_id in ancestors:
            self._proven.add(stage_id)
            if stage_id in self.stopped:
                self._rise(stage_id)

    def _stopped_before_its_end(self, stage_id: str) -> None:
        """Judge a stage by its end that was stopped in its middle: another sweep has trained it to its end."""
        del self.stopped[stage_id]
        if self.verdict(stage_id) is None:
            self._risen.append(stage_id)

    def _rise(self, stage_id: str) -> None:
        del self.stopped[stage_id]
        self._risen.append(stage_id)

    def _stop(self, item: RungScore, reason: str) -> Stopped:
        stopped = Stopped(stage_id=item.stage_id, rung=item.rung, score=item.score, error=item.error, reason=reason)
        self.stopped[item.stage_id] = stopped
        return stopped


def chosen_pruning(name: PruningName | None, search: Search) -> PruningName:
    """Return the value of `--pruning`: by default `worth` with the sampler that can tell it, else `halving`, or `off` where the objective
    has a cost.

    Raises InputError for `worth` with another sampler, and for `halving` with a cost: it compares scores alone.
    """
    objective = Objective.of(search.objective)
    if name == "worth" and search.sampler != "stage":
        raise InputError(
            f"--pruning worth needs the sampler 'stage', but the search has {search.sampler!r}. Give halving or off."
        )
    if name == "halving" and objective.cost is not None:
        raise InputError(
            f"--pruning halving compares scores alone, so it would stop the cheap models that {objective} asks for. Give off, or worth "
            "with the sampler 'stage'."
        )
    if search.sampler == "stage":
        return name or "worth"
    return name or ("halving" if objective.cost is None else "off")


def make_pruning(name: PruningName) -> StageHalving:
    """Return what stops stages by rank under the option `--pruning`."""
    return StageHalving() if name == "halving" else StageHalving(grace=math.inf)


class StageVerdicts:
    """Everything known about stages that do not go on: the one place where it is decided who stops."""

    def __init__(self, pruning: StageHalving | None = None) -> None:
        self.pruning = pruning or StageHalving()
        self._failures: dict[str, str] = {}
        """Why a stage cannot be trained, by its id."""

    def add_failure(self, stage_id: str, reason: str) -> None:
        """Every trial that needs this stage fails from now on."""
        self._failures[stage_id] = reason

    def failure(self, stage_ids: Sequence[str]) -> str:
        """Why a stage of a chain cannot be trained; an empty text when none is known to fail."""
        return next((self._failures[stage_id] for stage_id in stage_ids if stage_id in self._failures), "")

    def stopped(self, stage_ids: Sequence[str]) -> Stopped | None:
        """The first stage of a chain that does not go on, by the scores that are known now; None when there is none."""
        return next((stopped for stage_id in stage_ids if (stopped := self.pruning.verdict(stage_id))), None)
