"""A draw from the search space, and its outcome."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Draw:
    """A point of the search space that is to be tried."""

    ticket: int
    """Number of the draw, by which its outcome is reported once."""
    recipe: str
    params: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a trial as it is reported to the sampler."""

    kind: Literal["score", "pruned", "failed"]
    value: float | None = None
    """The objective, or the last intermediate score of a pruned trial."""
    cost: float | None = None
    """The cost of the model of a finished trial, where the objective has one."""
    step: int = 0
    """How far a pruned trial came, by which Optuna ranks pruned trials before it compares their scores: twice the place of the stage's
    name among the five names, plus 1 in its middle or 2 at its end. So the same step means the same kind of score in every recipe."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """A draw whose outcome has been reported."""

    recipe: str
    params: Mapping[str, Any]
    outcome: Outcome
