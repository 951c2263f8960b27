"""Which stages stop early: asynchronous successive halving at the ends and in the middle of stages, where scores can be compared.

A score is compared only with scores of the same stage at the same epoch of as long a schedule: same loss, same label space.
(Tune's own ASHA has its rungs at powers of a factor.) Nothing that is stopped is lost: its checkpoint stays in the store, and
when later scores turn out worse it may go on.
"""

import heapq
import math
from dataclasses import dataclass, field

from birdclef_core.config import StageConfig

MIN_EPOCHS_FOR_A_MIDDLE = 10


@dataclass(frozen=True)
class Rung:
    """A place where scores are compared: the end of a stage, or an epoch in the middle of a schedule of given length."""

    stage: str
    epoch: int = 0
    """0: the end, whatever the length of the schedule."""
    epochs: int = 0
    kind: str = ""
    """Label space and loss of the stage. A search of one's own may give stages of one name several."""

    @property
    def name(self) -> str:
        return f"epoch {self.epoch} of {self.epochs} of {self.stage}" if self.epoch else f"the end of {self.stage}"

    @property
    def keep(self) -> float:
        """Share of the scores with which a stage goes on: the better half at an end, all but the worst quarter in a middle."""
        return 0.75 if self.epoch else 0.5


def kind_of(config: StageConfig) -> str:
    """See Rung.kind."""
    return f"{config.label_space} {config.loss}"


def rung_at(config: StageConfig, epoch: int, epochs: int) -> Rung | None:
    """The rung at an epoch of a stage, if there is one. `epochs`: of the schedule, or where it was stopped early."""
    if epoch == epochs:
        return Rung(config.name, kind=kind_of(config))
    if epochs >= MIN_EPOCHS_FOR_A_MIDDLE and epoch == epochs // 2:
        return Rung(config.name, epoch, epochs, kind_of(config))
    return None


@dataclass
class _Scores:
    """Scores at one rung, split at the cut: adding one costs the logarithm of their number."""

    known: dict[str, float] = field(default_factory=dict)
    """By stage id: a stage that many trials share counts once."""
    upper: list[tuple[float, str]] = field(default_factory=list)
    """Heap with the lowest of the kept share on top."""
    lower: list[tuple[float, str]] = field(default_factory=list)
    """Heap with the best of the others on top, negated."""

    def add(self, stage_id: str, score: float, keep: float) -> list[str]:
        """Remembers a score; the stages that have come into the kept share by that."""
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
    """A stage that does not go on for now."""

    stage_id: str
    rung: Rung
    score: float
    reason: str


class StageHalving:
    """Keeps the upper share of what has reached a rung."""

    def __init__(self, grace: float = 4) -> None:
        """`grace`: so many different stages must have come to a rung before one is stopped there; infinity: none ever is."""
        self._grace = grace
        self._scores: dict[Rung, _Scores] = {}
        self.stopped: dict[str, Stopped] = {}
        """By stage id."""
        self._risen: list[str] = []

    def add(self, rung: Rung, stage_id: str, score: float) -> None:
        """Remembers a score at a rung."""
        if math.isfinite(score):
            for risen in self._scores.setdefault(rung, _Scores()).add(stage_id, score, rung.keep):
                if risen in self.stopped and self.stopped[risen].rung == rung:
                    del self.stopped[risen]
                    self._risen.append(risen)

    def judge(self, rung: Rung, stage_id: str, score: float) -> str:
        """Why a stage with this score at the rung is to stop; empty when it goes on. The score is remembered."""
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
        """An earlier driver's verdict. If the scores that are remembered tell otherwise by now, the stage has risen."""
        if math.isfinite(stopped.score) and not self.judge(stopped.rung, stopped.stage_id, stopped.score):
            self._risen.append(stopped.stage_id)
        else:
            self.stopped[stopped.stage_id] = stopped

    def take_risen(self) -> list[str]:
        """Stages that were stopped and are now among those to go on; each once."""
        risen, self._risen = self._risen, []
        return risen

    def _stop(self, rung: Rung, stage_id: str, score: float, reason: str) -> str:
        self.stopped[stage_id] = Stopped(stage_id=stage_id, rung=rung, score=score, reason=reason)
        return reason
