"""What trials are compared by: one tracked score or a weighted sum of several, with its standard error, and perhaps a cost of the model
beside it; and the names of tracked scores.

A stage's record has scores in its own label space (`cmap`) and, where the data have labelled soundscapes, on these
(`soundscapes/cmap`). They are tracked as `val/cmap` for the target species, `val_all/cmap` for all species, and
`val_soundscapes/cmap`.
"""

import difflib
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from birdclef_core.errors import InputError
from birdclef_core.taxonomy import SOUNDSCAPES

DEFAULT, DEFAULT_ON_SOUNDSCAPES = "val/cmap", "val_soundscapes/auroc"
"""What trials are compared by where the user does not say: the second where the data have labelled soundscapes.

Unpadded, because the padding hides what models differ in; on soundscapes, because these are what a detector is for."""

METRICS = ("cmap", "cmap_pad5", "cmap_pad3", "lrap", "auroc")
"""Scores of a stage of which more is better."""
STANDARD_ERROR = "_se"
"""Ending of the name of a score's standard error."""

CPU_SECONDS, DEVICE_HOURS = "cost/cpu_seconds_10min", "cost/device_hours"
COSTS = {
    CPU_SECONDS: "CPU seconds in which the model hears 10 minutes of sound",
    DEVICE_HOURS: "device hours of all stages of its chain, reused ones too",
}
"""Costs of a trial's model by which trials may be compared too, and what they are. Less is better."""

_TARGET, _ALL, _ON_SOUNDSCAPES = "val", "val_all", "val_soundscapes"
_KNOWN = tuple(f"{kind}/{metric}" for kind in (_TARGET, _ON_SOUNDSCAPES, _ALL) for metric in METRICS)
_TERM = re.compile(r"(?:(?P<weight>[^*]*)\*)?(?P<name>[^*]*)")
_EXAMPLE = "0.5*val/cmap + 0.5*val_soundscapes/auroc"
_EXAMPLE_WITH_COST = f"val/cmap, {CPU_SECONDS}"
_SIMILARITY = 0.5
"""How similar a known name must be to be suggested for a wrong one, from 0 to 1."""


def tracked_name(label_space: str, name: str) -> str:
    """Return the name under which a score is tracked; scores on soundscapes are `val_soundscapes/...` whatever the label space."""
    if name.startswith(SOUNDSCAPES):
        return f"val_{name}"
    return f"{_space_of(label_space)}/{name}"


def tracked(label_space: str, scores: Mapping[str, float]) -> dict[str, float]:
    """Return the scores of a stage's record under the names by which they are tracked."""
    return {tracked_name(label_space, name): value for name, value in scores.items()}


@dataclass(frozen=True)
class Score:
    """A value of the objective, with its standard error."""

    value: float
    """NaN where it was not scored."""
    error: float | None = None
    """None where it is not known."""

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "-"
        return f"{self.value:.3f}" if self.error is None else f"{self.value:.3f} ± {self.error:.3f}"


@dataclass(frozen=True)
class Term:
    """A score and its weight in the sum."""

    weight: float
    name: str

    def __str__(self) -> str:
        return self.name if self.weight == 1 else f"{self.weight:g}*{self.name}"

    @property
    def kind(self) -> str:
        """What is scored: `val`, `val_all` or `val_soundscapes`."""
        return self.name.partition("/")[0]

    def in_space(self, label_space: str) -> "Term":
        """Return the term as a stage of that label space has it. Stages on all species are not scored on soundscapes."""
        space, (kind, _, metric) = _space_of(label_space), self.name.partition("/")
        kept = kind == space or (kind == _ON_SOUNDSCAPES and space == _TARGET)
        return self if kept else Term(self.weight, f"{space}/{metric}")


@dataclass(frozen=True)
class Objective:
    """What trials are compared by: a score, of which more is better, and perhaps a cost, of which less is better.

    With a cost there is a Pareto front: the trials that no other trial beats in both.
    """

    terms: tuple[Term, ...]
    cost: str | None = None
    """Name of the cost; None where trials are compared by the score alone."""

    @classmethod
    def of(cls, text: str | None) -> "Objective":
        """Read an objective such as `val/cmap`, `0.5*val/cmap + 0.5*val_soundscapes/auroc` or `val/cmap, cost/device_hours`; None stands
        for `DEFAULT`.

        Raises InputError, with the nearest right name, for a score that is not tracked, a weight that is no number above 0, a score
        that is named twice, scores of target species together with scores of all species, which no single stage has, and anything
        but one cost after the score.
        """
        text = DEFAULT if text is None else text
        if not isinstance(text, str):
            raise InputError(f"An objective must be text, such as {_EXAMPLE!r}, but got {text!r}.")
        score, *others = (part.strip() for part in text.split(","))
        cost = _cost(score, others, text)
        terms = tuple(_term(part.strip(), text) for part in score.split("+"))
        names = [term.name for term in terms]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"An objective must name each score once, but {text!r} has {', '.join(repeated)} more than once.")
        kinds = {term.kind for term in terms}
        if _ALL in kinds and len(kinds) > 1:
            raise InputError(
                f"An objective must be of scores that one stage has, but {text!r} has scores of all species (val_all/...) and of the "
                "target species (val/... and val_soundscapes/...)."
            )
        return cls(terms, cost)

    def __str__(self) -> str:
        return self.score_name if self.cost is None else f"{self.score_name}, {self.cost}"

    @property
    def score_name(self) -> str:
        """The score as text, without the cost."""
        return " + ".join(str(term) for term in self.terms)

    @property
    def of_score(self) -> "Objective":
        """The objective without its cost."""
        return replace(self, cost=None)

    def named_in(self, label_space: str) -> str:
        """Return what a stage of that label space is compared by, as text."""
        return " + ".join(str(term.in_space(label_space)) for term in self.terms)

    def of_record(self, scores: Mapping[str, float], label_space: str) -> Score:
        """Return its value for a stage of that label space, from the scores in the stage's record."""
        return self.score(tracked(label_space, scores), label_space)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its scores."""
        return tuple(term.name for term in self.terms)

    @property
    def label_space(self) -> str:
        """Label space of the stages that have its scores: `all` or `target`."""
        return "all" if self.terms[0].kind == _ALL else "target"

    @property
    def on_soundscapes(self) -> bool:
        """Whether it has a score on labelled soundscapes."""
        return any(term.kind == _ON_SOUNDSCAPES for term in self.terms)

    def score(self, metrics: Mapping[str, float], label_space: str | None = None) -> Score:
        """Return its value for a stage that has the tracked `metrics`; NaN where one of its scores is missing.

        `label_space` is the stage's; None: the objective's. A stage of another label space is compared by the same metrics in its own.
        The standard error of a sum takes the errors of scores on the same recordings as fully dependent, which is the worst case, and
        those of recordings and soundscapes as independent. It is None where one of the scores has none.
        """
        terms = [term.in_space(label_space or self.label_space) for term in self.terms]
        value = sum(term.weight * metrics.get(term.name, math.nan) for term in terms)
        by_kind: defaultdict[str, float] = defaultdict(float)
        for term in terms:
            by_kind[term.kind] += term.weight * metrics.get(f"{term.name}{STANDARD_ERROR}", math.nan)
        error = math.hypot(*by_kind.values())
        return Score(value, None if math.isnan(error) else error)


def pareto_front(values: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indexes of the pairs (score, cost) that no other pair beats, from the highest score to the lowest cost.

    A pair beats another if it is no worse in both and better in one. So equal pairs do not beat each other.
    """
    front: list[int] = []
    for index in sorted(range(len(values)), key=lambda index: (-values[index][0], values[index][1])):
        if not front or values[index][1] < values[front[-1]][1] or values[index] == values[front[-1]]:
            front.append(index)
    return front


def _space_of(label_space: str) -> str:
    return _TARGET if label_space == "target" else f"val_{label_space}"


def _cost(score: str, others: Sequence[str], text: str) -> str | None:
    """The cost beside the score; None where there is none. Raises InputError for anything else after the score."""
    if not others and score not in COSTS:
        return None
    parts = (score, *others)
    what: str | None = None
    if repeated := sorted({part for part in parts if parts.count(part) > 1}):
        what = f"{text!r} has {', '.join(repeated)} more than once"
    elif len(parts) > 2:
        what = f"{text!r} has {len(parts)} parts"
    elif not others:
        what = f"{text!r} is a cost alone: the model that costs least need not tell any species"
    elif score in COSTS:
        what = f"{text!r} begins with a cost"
    elif others[0] not in COSTS:
        near = difflib.get_close_matches(others[0], COSTS, n=1, cutoff=_SIMILARITY)
        what = f"{others[0]!r} in {text!r} is no cost.{f' Perhaps {near[0]!r} is meant' if near else ' Weigh scores in one sum'}"
    if what is None:
        return others[0]
    known = ", ".join(f"{name} ({meaning})" for name, meaning in COSTS.items())
    raise InputError(
        f"An objective must be a score, or a score and then one cost, such as {_EXAMPLE_WITH_COST!r}, but {what}. Costs: {known}."
    )


def _term(part: str, text: str) -> Term:
    found = _TERM.fullmatch(part)
    name, weight = (found["name"].strip(), found["weight"]) if found else (part, None)
    if name in COSTS:
        raise InputError(
            f"A cost cannot be weighed in a sum, but {text!r} has {name}. It is an objective of its own: {_EXAMPLE_WITH_COST!r}."
        )
    if name not in _KNOWN:
        near = difflib.get_close_matches(name, _KNOWN, n=1, cutoff=_SIMILARITY)
        meant = f" Perhaps {near[0]!r} is meant." if near else ""
        raise InputError(
            f"An objective must be a tracked score or a weighted sum of several, such as {_EXAMPLE!r}, but {name!r} in {text!r} is not "
            f"tracked.{meant} Scores: {', '.join(_KNOWN)}."
        )
    return Term(1.0 if weight is None else _weight(weight, text), name)


def _weight(weight: str, text: str) -> float:
    try:
        value = float(weight)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InputError(f"A weight of an objective must be a number above 0, but {text!r} has {weight.strip()!r}.")
    return value
