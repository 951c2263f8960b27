"""Learning rates follow the cosine; seeds depend on every part."""

from dataclasses import replace

import pytest

from birdclef_core.stages.schedule import cosine_learning_rate, derive_seed, initial_seed, step_seed


def test_the_cosine_starts_at_the_rate_and_nears_its_end(tiny_recipe):
    config = replace(tiny_recipe.stages[0], epochs=10, learning_rate=1e-3, min_learning_rate=1e-6)
    rates = [cosine_learning_rate(config, epoch) for epoch in range(11)]
    assert rates[0] == 1e-3
    assert rates[5] == pytest.approx((1e-3 + 1e-6) / 2)
    assert rates[10] == pytest.approx(1e-6)
    assert rates == sorted(rates, reverse=True)


def test_seeds_are_derived_from_every_part_and_may_be_large():
    seeds = {derive_seed(2**40, 1, 0), derive_seed(2**40, 0, 1), derive_seed(2**40 + 1, 1, 0), derive_seed(2**40)}
    assert len(seeds) == 4
    assert derive_seed(7, 1) == derive_seed(7, 1)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_every_step_of_every_epoch_of_every_stage_has_a_seed_of_its_own(tiny_recipe):
    seeds = {step_seed(stage, epoch, step) for stage in tiny_recipe.stages for epoch in range(5) for step in range(7)}
    assert len(seeds) == 3 * 5 * 7
    assert not seeds & {initial_seed(stage) for stage in tiny_recipe.stages}
