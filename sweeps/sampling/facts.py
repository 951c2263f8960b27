"""What a sampler that knows stages is told of the trials of a sweep."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Foretold = Mapping[str, tuple[float, float]]
"""Mean and standard deviation of the objective, by the model that foretold them."""
TrialState = Literal["open", "paused", "ended", "failed"]
Point = tuple[str, Mapping[str, Any]]
"""A recipe, and the parameters of a point of its space."""
StageSeconds = Callable[[str, Mapping[str, Any]], Sequence[float]]
"""Device seconds of each stage of a chain, by the recipe and the parameters of a point. Raises InputError for a point that cannot be trained."""


@dataclass(frozen=True, kw_only=True)
class TrialFacts:
    """What is known of one trial."""

    trial: str
    """Name of the trial."""
    recipe: str
    params: Mapping[str, Any]
    stage_ids: Sequence[str]
    """Ids of the stages of its chain."""
    scores: Sequence[float]
    """Scores at the ends of its first stages, as far as it came. NaN and infinite ones do not occur."""
    final: float | None
    """The score of a finished trial, by which trials are compared."""
    state: TrialState
    """`open`: waits or runs; `paused`: stopped, and may go on from the store; `failed`: at the stage after its scores; `ended`: in any other
    way."""
    spent_s: Sequence[float]
    """Device seconds that it spent on each stage of its chain."""
    foretold: Foretold
    """What the models foretold when the trial was drawn."""
    cost: float | None = None
    """What the model of a finished trial costs, where the objective has a cost; else None."""


@dataclass(frozen=True, kw_only=True)
class SweepFacts:
    """What is known of a sweep when a trial is to be drawn or judged."""

    trials: Sequence[TrialFacts]
    """In the order in which they were drawn."""
    is_published: Callable[[str], bool]
    """Whether a stage is in the store, by its id."""
    is_closed: Callable[[str], bool]
    """Whether no trial may be drawn that needs a stage, because it failed or was stopped, by its id."""
    stage_s: StageSeconds
    """What stages cost."""
    left_s: Mapping[str, float]
    """Device seconds after which a stage that a trial is training now will be published, by its id."""
    refused: Iterable[Point] = ()
    """What was drawn and became no trial of its own."""
    remaining_s: float | None = None
    """Device seconds that are left and that no open trial will need; None without a limit."""

    def departs(self, trial: TrialFacts, depth: int) -> bool:
        """Return whether new trials may depart from a trial's stage number `depth`, which has a score at its end."""
        return self.is_published(trial.stage_ids[depth - 1]) and not any(map(self.is_closed, trial.stage_ids[:depth]))


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A point that is worth trying."""

    recipe: str
    params: Mapping[str, Any]
    foretold: Foretold
