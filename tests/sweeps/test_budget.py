"""A sweep ends within what it may spend: device hours, hours and money, whichever is first."""

import math

import pytest

from sweeps.budget import SPARE, Budget, Limits
from sweeps.options import SweepOptions
from sweeps.plan.simulate import SimulatedClock

HOUR_S = 3600.0


def test_the_limits_are_those_of_the_options_and_are_said_as_their_flags():
    options = SweepOptions(search="sed", max_gpu_hours=10, max_hours=2.5, max_cost=30, price_per_hour=1.5)
    assert Limits.of(options) == Limits(gpu_hours=10, hours=2.5, cost=30, price_per_hour=1.5)
    assert str(Limits.of(options)) == "--max-gpu-hours 10 --max-hours 2.5 --max-cost 30"
    assert Limits.of(options).any_set and not Limits(price_per_hour=1.0).any_set, "a price is no limit"


def test_without_limits_everything_may_begin():
    budget = Budget()
    budget.spend(1e9)
    assert budget.remaining_s is None and budget.may_begin(math.inf)


@pytest.mark.parametrize(
    ("limits", "gpus", "seconds"),
    [
        (Limits(gpu_hours=2), 0.0, 2 * HOUR_S),
        (Limits(gpu_hours=2), 1.0, 2 * HOUR_S),
        (Limits(gpu_hours=2), 0.5, 4 * HOUR_S),
        (Limits(cost=6, price_per_hour=2), 2.0, 1.5 * HOUR_S),
        (Limits(hours=3), 4.0, 3 * HOUR_S),
        (Limits(gpu_hours=2, hours=1), 1.0, HOUR_S),
        (Limits(gpu_hours=2, cost=1, price_per_hour=1), 1.0, HOUR_S),
    ],
)
def test_what_remains_is_the_least_that_a_limit_leaves(limits, gpus, seconds):
    """In device seconds: a worker that has half a GPU may run for twice as long."""
    budget = Budget(limits, gpus_per_worker=gpus, clock=SimulatedClock())
    assert budget.remaining_s == seconds
    assert budget.may_begin(seconds / SPARE * 0.999) and not budget.may_begin(seconds / SPARE * 1.001)


def test_what_is_spent_and_what_running_trials_need_does_not_remain():
    budget = Budget(Limits(gpu_hours=1))
    budget.spend(600)
    budget.need("a", 1000)
    assert budget.remaining_s == 2000
    budget.need("a", 400)
    assert budget.remaining_s == 2600
    budget.release("a")
    assert budget.remaining_s == 3000


def test_what_earlier_drivers_spent_is_counted_in_gpu_seconds():
    """Their workers may have had other shares of a GPU."""
    budget = Budget(Limits(gpu_hours=1), gpus_per_worker=0.5)
    budget.spent_gpu_s = 1800
    assert (budget.spent_s, budget.remaining_s) == (3600, 3600)
    assert budget.spend(1000) == 500
    assert (budget.gpu_hours, budget.remaining_s) == (2300 / HOUR_S, 2600)


def test_hours_pass_whatever_is_spent_and_those_of_earlier_drivers_count():
    clock = SimulatedClock(now_s=500.0)
    budget = Budget(Limits(hours=1), ran_s=600, clock=clock)
    budget.need("a", 1000)
    assert budget.remaining_s == 3000, "trials run beside each other"
    clock.now_s = 2500.0
    assert (budget.ran_s, budget.remaining_s) == (2600, 1000)


def test_what_costs_nothing_may_always_begin():
    budget = Budget(Limits(gpu_hours=1))
    budget.spend(2 * HOUR_S)
    assert budget.may_begin(0.0) and not budget.may_begin(1e-6)


def test_where_not_all_running_trials_can_end_those_that_need_least_go_on():
    budget = Budget(Limits(gpu_hours=1))
    budget.need("long", 2500)
    budget.need("short", 1500)
    assert budget.may_go_on("short") and not budget.may_go_on("long")
    budget.release("short")
    assert budget.may_go_on("long")


def test_of_two_that_need_the_same_one_goes_on():
    budget = Budget(Limits(gpu_hours=1))
    for name in ("a", "b"):
        budget.need(name, 2000)
    assert [budget.may_go_on(name) for name in ("a", "b")] == [True, False]


def test_what_has_begun_may_go_on_without_spare_but_not_beyond_the_limit():
    budget = Budget(Limits(gpu_hours=1))
    budget.need("a", HOUR_S)
    assert budget.may_go_on("a") and not Budget(Limits(gpu_hours=1)).may_begin(HOUR_S)
    budget.spend(1)
    assert not budget.may_go_on("a")


def test_hours_end_each_trial_by_itself():
    clock = SimulatedClock()
    budget = Budget(Limits(hours=1), clock=clock)
    for name, seconds in (("a", 2000), ("b", 3000)):
        budget.need(name, seconds)
    clock.now_s = 1000
    assert [budget.may_go_on(name) for name in ("a", "b")] == [True, False]


def test_a_trial_that_has_nothing_left_to_train_goes_on():
    budget = Budget(Limits(gpu_hours=1))
    budget.spend(2 * HOUR_S)
    budget.need("a", 0)
    assert budget.may_go_on("a")


def test_the_nearest_limit_is_named():
    clock = SimulatedClock()
    budget = Budget(Limits(gpu_hours=2, hours=3, cost=100, price_per_hour=1), gpus_per_worker=1.0, clock=clock)
    assert budget.nearest_limit() == "--max-gpu-hours 2"
    clock.now_s = 1.5 * HOUR_S
    assert budget.nearest_limit() == "--max-hours 3"


def test_what_was_spent_is_said_beside_each_limit():
    clock = SimulatedClock()
    budget = Budget(Limits(gpu_hours=10, hours=4, cost=50, price_per_hour=2), gpus_per_worker=0.5, clock=clock)
    budget.spend(9 * HOUR_S)
    clock.now_s = 3 * HOUR_S
    assert budget.describe() == "4.50 of 10 GPU hours, 9.00 of 50 in money, ran for 3 h 00 min of 4 h 00 min"
    assert Budget(clock=clock).describe() == "0 worker hours, ran for 0.0 s"
