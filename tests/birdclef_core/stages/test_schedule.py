"""Learning rates follow their schedules, layers thaw from the top, seeds depend on every part."""

from dataclasses import replace

import pytest
import torch

from birdclef_core.config import StageConfig
from birdclef_core.stages.schedule import (
    ONE_CYCLE_RISE,
    ONE_CYCLE_START,
    derive_seed,
    initial_seed,
    learning_rate,
    num_frozen_blocks,
    step_seed,
)

STEPS = 5
"""An epoch's."""


def rates_of(config: StageConfig) -> list[list[float]]:
    """The learning rates of all steps, by epoch."""
    return [[learning_rate(config, epoch, step, STEPS) for step in range(STEPS)] for epoch in range(config.epochs)]


@pytest.fixture
def ten_epochs(tiny_recipe):
    return replace(tiny_recipe.stages[0], epochs=10, learning_rate=1e-3, min_learning_rate=1e-6)


def test_the_cosine_starts_at_the_rate_and_nears_its_end(ten_epochs):
    by_epoch = rates_of(ten_epochs)
    assert all(len(set(rates)) == 1 for rates in by_epoch), "it changes after an epoch only"
    rates = [rates[0] for rates in by_epoch] + [learning_rate(ten_epochs, 10, 0, STEPS)]
    assert rates[0] == 1e-3
    assert rates[5] == pytest.approx((1e-3 + 1e-6) / 2)
    assert rates[10] == pytest.approx(1e-6)
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_a_warm_up_rises_with_each_step_and_the_schedule_takes_the_rest(ten_epochs, schedule):
    config = replace(ten_epochs, schedule=schedule, warmup_epochs=1.4)
    rates = [rate for rates in rates_of(config) for rate in rates]
    assert rates[:7] == pytest.approx([1e-6 + (1e-3 - 1e-6) * step / 7 for step in range(1, 8)])
    assert rates[7:10] == pytest.approx([1e-3] * 3), "at its top until the second epoch ends"
    after = [rates[STEPS * epoch] for epoch in range(2, 10)]
    if schedule == "constant":
        assert after == [1e-3] * 8
    else:
        whole = replace(config, warmup_epochs=0.0)
        assert after == sorted(after, reverse=True) and all(rate < 1e-3 for rate in after)
        assert after[-1] > rates_of(whole)[-1][0], "it began later"
        assert learning_rate(config, 10, 0, STEPS) == pytest.approx(1e-6)


def test_a_warm_up_within_a_step_is_none(ten_epochs):
    assert learning_rate(replace(ten_epochs, warmup_epochs=0.1), 0, 0, STEPS) == 1e-3


@pytest.mark.parametrize("epochs", [1, 2, 10])
def test_one_cycle_is_that_of_torch(ten_epochs, epochs):
    config = replace(ten_epochs, schedule="one_cycle", epochs=epochs)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=1e-3,
        total_steps=epochs * STEPS,
        pct_start=ONE_CYCLE_RISE,
        div_factor=1 / ONE_CYCLE_START,
        final_div_factor=1e-3 * ONE_CYCLE_START / 1e-6,
        cycle_momentum=False,
    )
    for rate in (rate for rates in rates_of(config) for rate in rates):
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if reference.last_epoch + 1 < epochs * STEPS:
            reference.step()


@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_one_cycle_of_few_steps_falls_from_the_top(ten_epochs, num_steps):
    config = replace(ten_epochs, schedule="one_cycle", epochs=1)
    rates = [learning_rate(config, 0, step, num_steps) for step in range(num_steps)]
    assert rates[0] == 1e-3 and rates == sorted(rates, reverse=True)
    assert num_steps == 1 or rates[-1] == pytest.approx(1e-6)


def test_layers_thaw_from_the_top_down_to_those_that_stay_frozen(ten_epochs):
    def frozen(**changes) -> list[int]:
        return [num_frozen_blocks(replace(ten_epochs, **changes), epoch, 4) for epoch in range(10)]

    assert frozen() == [0] * 10
    assert frozen(frozen_blocks=2) == [2] * 10
    assert frozen(thaw_every=2) == [4, 4, 3, 3, 2, 2, 1, 1, 0, 0]
    assert frozen(thaw_every=1, frozen_blocks=2) == [4, 3] + [2] * 8


def test_seeds_are_derived_from_every_part_and_may_be_large():
    seeds = {derive_seed(2**40, 1, 0), derive_seed(2**40, 0, 1), derive_seed(2**40 + 1, 1, 0), derive_seed(2**40)}
    assert len(seeds) == 4
    assert derive_seed(7, 1) == derive_seed(7, 1)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_every_step_of_every_epoch_of_every_stage_has_a_seed_of_its_own(tiny_recipe):
    seeds = {step_seed(stage, epoch, step) for stage in tiny_recipe.stages for epoch in range(5) for step in range(7)}
    assert len(seeds) == 3 * 5 * 7
    assert not seeds & {initial_seed(stage) for stage in tiny_recipe.stages}
