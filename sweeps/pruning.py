"""Which trials stop early: asynchronous successive halving at the ends of stages, where scores can be compared.

A score is compared only with scores at the end of the same stage: same loss, same label space, whole schedule. (Tune's own
ASHA has its rungs at powers of a factor, which fall in the middle of stages.)
"""

import math
from dataclasses import dataclass, field


@dataclass
class StageHalving:
    """Keeps the upper share of what has reached the end of a stage."""

    keep: float = 0.5
    """Share of the scores at a stage's end with which a trial goes on."""
    grace: int = 4
    """So many different stages of the same name must have ended before a trial is stopped there."""
    _scores: dict[str, dict[str, float]] = field(default_factory=dict)
    """For each stage name, the score of each stage id: a stage that many trials share counts once."""

    def add(self, stage: str, stage_id: str, score: float) -> None:
        """Remembers a score at a stage's end."""
        if math.isfinite(score):
            self._scores.setdefault(stage, {})[stage_id] = score

    def judge(self, stage: str, stage_id: str, score: float) -> str:
        """Why a trial with this score at the stage's end is to stop; empty when it goes on. The score is remembered."""
        if not math.isfinite(score):
            return f"its score at the end of {stage} is {score}"
        self.add(stage, stage_id, score)
        scores = sorted(self._scores[stage].values(), reverse=True)
        cut = scores[math.ceil(len(scores) * self.keep) - 1]
        if len(scores) < self.grace or score >= cut:
            return ""
        return f"at the end of {stage} its {score:.3f} was below {cut:.3f}, the best {self.keep:.0%} of {len(scores)} stages"
