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

from birdclef_core.config import StageConfig

MIN_EPOCHS_FOR_A_MIDDLE = 10


@dataclass(frozen=True)
class Rung:
    """A place where scores are compared: the end of a stage, or an epoch in the middle of a schedule of a given length."""

    stage: str
    """Name of the stage."""
    epoch: int = 0
    """The epoch, or 0 for the end of a schedule of any length."""
    epochs: int = 0
    """Length of the schedule in epochs, or 0 for the end of a schedule of any length."""
    kind: str = ""
    """Label space and loss of the stage: a user's search may have stages of the same name with different ones."""

    @property
    def name(self) -> str:
        return f"epoch {self.epoch} of {self.epochs} of {self.stage}" if self.epoch else f"the end of {self.stage}"

    @property
    def keep(self) -> float:
        """The share of stages that go on: the better half at the end of a stage, all but the worst quarter in the middle."""
        return 0.75 if self.epoch else 0.5


def kind_of(config: StageConfig) -> str:
    """The value of `Rung.kind` for a stage."""
    return f"{config.label_space} {config.loss}"


def rung_at(config: StageConfig, epoch: int, epochs: int) -> Rung | None:
    """The rung at an epoch of a stage, if there is one. `epochs`: length of the schedule, or the last epoch of an early stop."""
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

    def add(self, stage_id: str, score: float, keep: float) -> list[str]:
        """Add a score and return the stages that now belong to the share `keep`, and did not before."""
        if stage_id in self.known:
            return []
        self.known[stage_id] = score
        if self.upper and score >= self.upper[0][0]:
            heapq.heappush(self.upper, (score, stage_id))
        else:
            heapq.heappush(self.lower, (-score, stage_id))
        kept = math.ceil(len(self.known) * keep)
        while len(self.upper) > kept:
            score, down = heapq.heappop(self.upper)
            heapq.heappush(self.lower, (-score, down))
        risen = []
        while len(self.upper) < kept:
            negated, up = heapq.heappop(self.lower)
            heapq.heappush(self.upper, (-negated, up))
            risen.append(up)
        return risen


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """A stage that pruning has stopped. It may go on later."""

    stage_id: str
    rung: Rung
    """Where it was stopped."""
    score: float
    """Its score there."""
    reason: str


class StageHalving:
    """Lets the upper share of the stages at each rung go on."""

    def __init__(self, grace: float = 4) -> None:
        """`grace`: no stage is stopped at a rung that fewer different stages have reached; infinity: none is ever stopped."""
        self._grace = grace
        self._scores: dict[Rung, _Scores] = {}
        self.stopped: dict[str, Stopped] = {}
        """The stopped stages, by id."""
        self._risen: list[str] = []

    def add(self, rung: Rung, stage_id: str, score: float) -> None:
        """Add a score at a rung. A stage that was stopped at this rung, and at no other, may rise by it."""
        if math.isfinite(score):
            for risen in self._scores.setdefault(rung, _Scores()).add(stage_id, score, rung.keep):
                if risen in self.stopped and self.stopped[risen].rung == rung:
                    del self.stopped[risen]
                    self._risen.append(risen)

    def judge(self, rung: Rung, stage_id: str, score: float) -> str:
        """Add a score and return why the stage stops there; an empty text when it goes on."""
        if not math.isfinite(score):
            return self._stop(rung, stage_id, score, f"its score at {rung.name} is {score}")
        self.add(rung, stage_id, score)
        scores = self._scores[rung]
        score, cut, arrived = scores.known[stage_id], scores.upper[0][0], len(scores.known)
        if arrived < self._grace or score >= cut:
            return ""
        below = f"its {score:.3f} was below {cut:.3f}, the best {rung.keep:.0%} of {arrived} stages"
        return self._stop(rung, stage_id, score, f"at {rung.name} {below}")

    def recall(self, stopped: Stopped) -> None:
        """Restore an earlier driver's verdict. If the scores known by now say otherwise, the stage rises."""
        if math.isfinite(stopped.score) and not self.judge(stopped.rung, stopped.stage_id, stopped.score):
            self._risen.append(stopped.stage_id)
        else:
            self.stopped[stopped.stage_id] = stopped

    def take_risen(self) -> list[str]:
        """Return the stages that were stopped and now go on, each once."""
        risen, self._risen = self._risen, []
        return risen

    def _stop(self, rung: Rung, stage_id: str, score: float, reason: str) -> str:
        self.stopped[stage_id] = Stopped(stage_id=stage_id, rung=rung, score=score, reason=reason)
        return reason


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
        """The first stage of a chain that pruning has stopped; None when there is none."""
        return next((self.pruning.stopped[stage_id] for stage_id in stage_ids if stage_id in self.pruning.stopped), None)

    def judge(self, rung: Rung, stage_id: str, score: float) -> Stopped | None:
        """Add a score at a rung; the verdict if the stage stops there."""
        return self.pruning.stopped[stage_id] if self.pruning.judge(rung, stage_id, score) else None
