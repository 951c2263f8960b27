"""The kinds of parameters of a search: one of a few values, or a number between two bounds."""

import math
import random
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

from birdclef_core.errors import InputError
from sweeps.search.expressions import parse

MAX_STEPS = 10**15
"""Most steps of a range: with more, numbers of floating point cannot tell its values apart."""
STEP_TOLERANCE = 1e-9
"""How far the number of steps of a range may be from a whole number, because 0.1 has no exact binary form."""
MAX_FINITE = 10_000
"""With more values than this, a range with a step is as good as infinite: nobody tries them all."""
STEP_DIGITS = 12
"""Digits to which the values of a range with a step are rounded, so that 0.1 + 2 * 0.1 is 0.3."""


@dataclass(frozen=True)
class Choice:
    """A parameter that takes one of a few values: numbers, text, true, false or None, in a tuple or list.

    `when` is its condition, if it has one: an expression over names of fields, such as "train.mixing.wave_prob > 0". Raises InputError
    for other values, none at all, or one twice.
    """

    values: tuple[Any, ...]
    when: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.values, (tuple, list)) or not self.values:
            raise InputError(
                f"A Choice takes its values as a tuple, such as Choice((5.0, 10.0)), but got Choice({self.values!r})."
            )
        values = tuple(_plain(value) for value in self.values)
        for index, value in enumerate(values):
            if not (value is None or isinstance(value, (str, bool)) or _is_finite(value)):
                raise InputError(
                    f"The values of a Choice must be text, finite numbers, true, false or None, because a sweep is resumed from its "
                    f"record, but one is {value!r}."
                )
            if value in values[:index]:
                raise InputError(f"The values of a Choice must differ, but {value!r} is there twice.")
        object.__setattr__(self, "values", values)
        _check_condition(self.when)

    def draw(self, generator: random.Random) -> Any:
        return generator.choice(self.values)

    def has(self, value: Any) -> bool:
        return value in self.values

    def nearest(self, value: Any) -> Any:
        """Return the value itself if it is one of the choices; else the nearest number, or the first choice."""
        if value in self.values:
            return value
        numbers = [item for item in self.values if _is_number(item)]
        return min(numbers, key=lambda item: abs(item - value)) if numbers and _is_number(value) else self.values[0]

    def finite(self) -> tuple[Any, ...]:
        """Return all values."""
        return self.values


@dataclass(frozen=True)
class Range:
    """A parameter that takes a number between two bounds (inclusive), on a linear or a logarithmic scale.

    With a step it takes low, low + step, ... up to high. For a field of whole numbers a search sets the step to 1 where none is
    given. Raises InputError unless the bounds are finite numbers with low <= high, low > 0 on a logarithmic scale, and high is a
    whole number of steps above low. On a logarithmic scale the only step is 1, between whole bounds. `when` is a condition, as of
    a Choice.
    """

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None
    when: str | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high", "step"):
            number = _plain(getattr(self, name))
            if not _is_number(number) and not (number is None and name == "step"):
                raise InputError(f"The bounds and the step of a Range must be numbers, but got {self._shown()}.")
            object.__setattr__(self, name, number)
        if not isinstance(self.log, bool):
            raise InputError(f"log of a Range must be True or False, but got {self.log!r}.")
        _check_condition(self.when)
        if not all(_is_finite(number) for number in (self.low, self.high, self.step or 0)):
            raise InputError(f"The bounds of a Range must be finite, but got {self._shown()}.")
        if not self.low <= self.high or (self.log and self.low <= 0):
            raise InputError(f"low <= high (and low > 0 on a log scale) must hold, but got {self._shown()}.")
        if self.step is not None:
            self._check_step(self.step)

    def _check_step(self, step: float) -> None:
        if step <= 0:
            raise InputError(f"step > 0 must hold, but got {self._shown()}.")
        if self.log and not (step == 1 and float(self.low).is_integer() and float(self.high).is_integer()):
            raise InputError(
                f"A Range on a log scale takes no step but 1, between whole numbers, but got {self._shown()}. Give the values as a Choice."
            )
        steps = (self.high - self.low) / step
        if not isinstance(step, int) and steps > MAX_STEPS:
            raise InputError(f"A Range has at most {MAX_STEPS:,} steps, but got {self._shown()}.")
        if abs(steps - round(steps)) > STEP_TOLERANCE * max(1.0, steps):
            last = self._at(math.floor(steps))
            raise InputError(
                f"high must be a whole number of steps above low, but got {self._shown()}. The last value below high is {last}."
            )

    def draw(self, generator: random.Random) -> int | float:
        return self.from_unit(generator.random())

    def has(self, value: Any) -> bool:
        """Whether a value is a number of the range. On a range with a step, it must be the number to the last bit."""
        if not _is_number(value) or not self.low <= value <= self.high:
            return False
        return self.step is None or self.nearest(value) == value

    def nearest(self, value: Any) -> int | float:
        """Return the nearest number of the range; its low end for what is no number."""
        if not _is_number(value) or math.isnan(value):
            return self.low
        inside = min(max(value, self.low), self.high)
        if self.step is None:
            return inside
        distance = inside - self.low
        if isinstance(distance, int) and isinstance(self.step, int):  # exact, for seeds of any size
            return self._at((2 * distance + self.step) // (2 * self.step))
        return self._at(round(distance / self.step))

    def finite(self) -> tuple[int | float, ...] | None:
        """Return all values; None when there are infinitely many, or more than MAX_FINITE."""
        if self.step is None:
            return (self.low,) if self.low == self.high else None
        steps = (self.high - self.low) / self.step
        return tuple(self._at(index) for index in range(round(steps) + 1)) if steps < MAX_FINITE else None

    def to_unit(self, value: float) -> float:
        """Return the place of a value on the range's scale, from 0 to 1. With a step, each value has an equal share on the linear
        scale and is at the middle of its share."""
        low, high = self._edges()
        if low == high:
            return 0.5
        share = (math.log(value) - math.log(low)) / (math.log(high) - math.log(low)) if self.log else (value - low) / (high - low)
        return min(max(share, 0.0), 1.0)

    def from_unit(self, share: float) -> int | float:
        """Return the value at a place from 0 to 1 on the range's scale: the inverse of `to_unit`, rounded to a step."""
        low, high = self._edges()
        value = float(low * (high / low) ** share) if self.log else low + (high - low) * share
        return self.nearest(value)

    def of_kind(self, kind: type[int] | type[float]) -> "Range":
        """Return the range for a field of whole numbers (`int`), or of any numbers (`float`).

        Whole numbers have the step 1 unless they have another. Raises InputError for bounds or a step that are not whole then.
        """
        step = 1 if kind is int and self.step is None else self.step
        numbers = (self.low, self.high, *(() if step is None else (step,)))
        if kind is int and not all(float(number).is_integer() for number in numbers):
            raise InputError(
                f"takes whole numbers, so the bounds and the step of its Range must be whole, but got {self._shown()}."
            )
        if kind is float and self.log and step is not None:
            raise InputError(
                f"takes any numbers, so its Range on a log scale has no step, but got {self._shown()}. Give the values as a Choice."
            )
        return replace(self, low=kind(self.low), high=kind(self.high), step=None if step is None else kind(step))

    def _edges(self) -> tuple[float, float]:
        """The ends of the scale: half a step outside the bounds, so that both ends are drawn as often as other values."""
        half = 0 if self.step is None else self.step / 2
        return self.low - half, self.high + half

    def _at(self, index: int) -> int | float:
        value = self.low + index * (self.step or 0)
        return value if isinstance(value, int) else float(f"{value:.{STEP_DIGITS}g}")

    def _shown(self) -> str:
        step = "" if self.step is None else f", step={self.step!r}"
        return f"low={self.low!r}, high={self.high!r}{step}"


Parameter = Choice | Range


def _plain(value: Any) -> Any:
    """A number of numpy as a number of Python; anything else as it is."""
    if isinstance(value, (bool, int, float)) or not isinstance(value, Real):
        return float(value) if isinstance(value, float) else value
    return int(value) if isinstance(value, Integral) else float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    try:
        return _is_number(value) and math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


def _check_condition(when: str | None) -> None:
    if when is not None:
        parse(when)
