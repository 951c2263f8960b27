"""Kinds of parameters: what they draw, their scale from 0 to 1, steps and whole numbers."""

import random
from collections import Counter

import numpy as np
import pytest

from birdclef_core.errors import InputError
from sweeps.search.parameters import Choice, Range

RANGES = {
    "linear": Range(-2.0, 6.0),
    "logarithmic": Range(1e-4, 1e-1, log=True),
    "whole": Range(3, 9, step=1),
    "whole with a step": Range(2, 10, step=4),
    "whole and logarithmic": Range(1, 100, log=True, step=1),
    "a step": Range(0.0, 1.0, step=0.1),
    "a step from a negative number": Range(-0.3, 0.3, step=0.2),
    "one number": Range(0.5, 0.5),
    "one whole number": Range(5, 5, step=1),
}


@pytest.mark.parametrize("name", RANGES)
def test_what_is_drawn_is_in_the_range_and_comes_back_from_the_unit_scale(name):
    parameter = RANGES[name]
    generator = random.Random(0)
    for value in [parameter.low, parameter.high, *(parameter.draw(generator) for _ in range(300))]:
        assert parameter.has(value)
        assert type(value) is type(parameter.low)
        assert 0 <= parameter.to_unit(value) <= 1
        assert parameter.from_unit(parameter.to_unit(value)) == pytest.approx(value, rel=1e-12)
    assert parameter.has(parameter.from_unit(0.0)) and parameter.has(parameter.from_unit(1.0))


@pytest.mark.parametrize("name", RANGES)
def test_the_unit_scale_rises_with_the_value(name):
    parameter = RANGES[name]
    values = [parameter.from_unit(share / 50) for share in range(51)]
    assert values == sorted(values)
    assert (values[0], values[-1]) == pytest.approx((parameter.low, parameter.high))


@pytest.mark.parametrize("name", [name for name, parameter in RANGES.items() if parameter.finite() and not parameter.log])
def test_every_value_of_a_linear_range_with_a_step_is_as_likely_as_the_others(name):
    parameter, generator, drawn = RANGES[name], random.Random(1), 4000
    counts = Counter(parameter.draw(generator) for _ in range(drawn))
    assert set(counts) == set(parameter.finite())
    share = drawn / len(counts)
    assert all(abs(count - share) < 4 * share**0.5 for count in counts.values())


def test_a_whole_number_on_a_log_scale_is_as_likely_as_its_share_of_the_scale():
    parameter, generator = RANGES["whole and logarithmic"], random.Random(2)
    drawn = [parameter.draw(generator) for _ in range(2000)]
    assert sum(value <= 10 for value in drawn) == pytest.approx(1000 * np.log(10.5 / 0.5) / np.log(100.5 / 0.5) * 2, rel=0.1)


def test_steps_give_the_numbers_that_a_person_would_write():
    assert RANGES["a step"].finite() == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert Range(0.0, 1.0, step=0.1).has(0.3) and not Range(0.0, 1.0, step=0.1).has(0.35)
    assert RANGES["whole with a step"].finite() == (2, 6, 10)
    assert RANGES["linear"].finite() is None
    assert RANGES["one number"].finite() == (0.5,)
    assert Choice([1, 2]).finite() == (1, 2)


def test_a_range_of_very_many_values_is_as_good_as_infinite():
    assert Range(0, 9_999, step=1).finite() == tuple(range(10_000))
    assert Range(0, 10_000, step=1).finite() is None
    seeds = Range(0, 2**63, step=1)
    assert seeds.finite() is None
    assert seeds.has(2**63 - 1) and seeds.nearest(2**63 - 1) == 2**63 - 1 and not seeds.has(2**63 + 1)
    assert seeds.has(seeds.draw(random.Random(0)))


def test_the_nearest_value():
    assert RANGES["whole with a step"].nearest(7.9) == 6 and type(RANGES["whole with a step"].nearest(7.9)) is int
    assert RANGES["linear"].nearest(7.9) == 6.0
    assert RANGES["linear"].nearest(None) == -2.0
    assert Choice((5.0, 10.0, "no")).nearest(8) == 10.0
    assert Choice((5.0, 10.0)).nearest("other") == 5.0
    assert Choice((True, 3)).nearest(True) is True


def test_what_is_no_number_of_a_range():
    assert not Range(0, 1).has(True)
    assert not Range(0.0, 1.0).has("0.5")
    assert not Range(0.0, 1.0).has(float("nan"))
    assert not Range(0.0, 1.0).has(1.1)


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ((2, 9, False, 4), r"whole number of steps .*low=2, high=9, step=4\. The last value below high is 6"),
        ((0.0, 1.0, False, 0.3), r"The last value below high is 0\.9"),
        ((0, 1, False, 0), "step > 0"),
        ((0, 1, False, -1), "step > 0"),
        ((0, 1, False, "1"), "step of a Range must be numbers"),
        ((0, 1, False, True), "step of a Range must be numbers"),
        ((1, 9, True, 2), "no step but 1"),
        ((0.5, 9.5, True, 1), "no step but 1"),
        ((0, 1, False, float("inf")), "must be finite"),
    ],
)
def test_a_step_that_does_not_fit_is_refused(values, rule):
    with pytest.raises(InputError, match=rule):
        Range(*values)


def test_numbers_of_numpy_are_numbers():
    parameter = Range(np.int64(2), np.int64(6), step=np.int64(2))
    assert parameter == Range(2, 6, step=2)
    assert [type(number) for number in (parameter.low, parameter.high, parameter.step)] == [int, int, int]
    assert type(Range(np.float32(2), 3).low) is float


def test_a_range_becomes_one_of_its_fields_kind():
    assert Range(2, 9).of_kind(int) == Range(2, 9, step=1)
    assert [type(value) for value in Range(2.0, 6.0, step=2.0).of_kind(int).finite()] == [int, int, int]
    assert [type(value) for value in Range(2, 6, step=2).of_kind(float).finite()] == [float, float, float]
    assert Range(8, 64, log=True).of_kind(int) == Range(8, 64, log=True, step=1)
    with pytest.raises(InputError, match=r"takes whole numbers, .*low=2\.5"):
        Range(2.5, 9).of_kind(int)
    with pytest.raises(InputError, match="on a log scale has no step"):
        Range(1, 9, log=True, step=1).of_kind(float)
