"""Users' own search files: what is wrong with one is said before anything runs, with the parameter, the value and the rule."""

import random
from dataclasses import replace

import numpy as np
import pytest

from birdclef_core.errors import InputError
from birdclef_core.models.encoders import RANDOM
from birdclef_core.recipes import RECIPES, sed_v2s, small_budget
from birdclef_core.taxonomy import LabelSpace
from sweeps.options import SweepOptions
from sweeps.run.request import plan_request
from sweeps.search import Choice, Range, Search
from sweeps.search.chains import ChainBuilder
from sweeps.search.checks import check_search, check_small_recipes
from sweeps.search.search_files import load_search, override


def test_every_variant_of_a_pool_is_drawn_before_anything_runs():
    """Hardly any draw is allowed: with 28 variants, some cannot be drawn, though the random point that is tried has another."""
    search = Search(
        name="x",
        recipes=(small_budget(sed_v2s()),),
        space={"pretrain.clip_s": Range(5.0, 10.0)},
        pools={"pretrain": 28},
        constraints=("pretrain.clip_s < 5.007",),
    )
    assert search.draw(search.recipes[0], random.Random(0))
    with pytest.raises(InputError, match=r"None of 1000 random draws for variant 1 of pool 'pretrain'"):
        check_search(search)


@pytest.mark.parametrize("name", ["sed", "cnn", "all"])
@pytest.mark.parametrize("budget", ["small", "full"])
def test_the_searches_that_come_with_the_project_pass(name, budget):
    plan_request(SweepOptions(search=name, budget=budget)).check_search()


def test_a_chain_may_end_in_pretraining_where_trials_are_compared_by_it():
    recipe = small_budget(sed_v2s())
    check_search(Search(name="x", recipes=(replace(recipe, stages=recipe.stages[:2]),), space={}, objective="val_all/cmap"))


def test_a_list_of_recipes_or_values_is_as_good_as_a_tuple():
    search = Search(name="x", recipes=[small_budget(sed_v2s())], space={"train.clip_s": Choice([3.0, 5.0])})
    check_search(search)
    assert search.recipes[0].name == "sed_v2s" and search.space["train.clip_s"].values == (3.0, 5.0)


def test_every_corner_of_a_checked_space_makes_a_chain():
    search = load_search("sed")
    check_search(search)
    chains = ChainBuilder(
        search=search,
        seed=0,
        pretrained={recipe.model.encoder: RANDOM for recipe in search.recipes},
        all_species=LabelSpace.of("all", "ab"),
        target_species=LabelSpace.of("target", "ab"),
        data_fingerprint="data",
        code_version="code",
    )
    for recipe in search.recipes:
        for key, parameter in search.sampled_space(recipe).items():
            ends = parameter.values if isinstance(parameter, Choice) else (parameter.low, parameter.high)
            for value in ends:
                assert chains.chain(recipe.name, {**search.baseline(recipe), key: value})


def own_recipes() -> tuple:
    """Two recipes that differ in a field that the small budget sets."""
    base = sed_v2s()
    coarse = replace(base.model, spectrogram=replace(base.model.spectrogram, num_mels=64))
    return replace(base, name="fine"), replace(base, name="coarse", model=coarse)


def test_recipes_that_the_small_budget_makes_the_same_are_refused():
    full = Search(name="x", recipes=own_recipes(), space={})
    small = replace(full, recipes=tuple(small_budget(recipe) for recipe in full.recipes))
    with pytest.raises(InputError, match=r"'fine' and 'coarse' .* become the same"):
        check_small_recipes(full, small)
    stock = Search(name="all", recipes=tuple(recipe() for recipe in RECIPES.values()), space={})
    check_small_recipes(stock, replace(stock, recipes=tuple(small_budget(recipe) for recipe in stock.recipes)))


@pytest.mark.parametrize(
    ("search", "options", "has_gpus", "budget"),
    [
        ("own.py", {}, False, "full"),
        ("own.py", {"budget": "small"}, True, "small"),
        ("sed", {}, True, "small"),
        ("sed", {"data": "inputs"}, False, "small"),
        ("sed", {"data": "inputs"}, True, "full"),
        ("sed", {"budget": "full"}, False, "full"),
    ],
)
def test_a_search_of_ones_own_is_trained_as_it_is(search, options, has_gpus, budget):
    assert plan_request(SweepOptions(search=search, **options)).budget(has_gpus=has_gpus) == budget


def test_a_range_of_a_pool_is_drawn_within_its_bounds():
    search = Search(
        name="x",
        recipes=(small_budget(sed_v2s()),),
        space={"pretrain_ce.learning_rate": Range(1e-4, 1e-3)},
        pools={"pretrain_ce": 3},
    )
    check_search(search)
    rates = {search.stages(search.recipes[0], {"pretrain_ce.variant": number})[0].learning_rate for number in range(3)}
    assert len(rates) == 3 and all(1e-4 <= rate <= 1e-3 for rate in rates)


@pytest.mark.parametrize(
    "space",
    [
        {"train.batch_size": Choice((32, 64)), "train.clips_per_epoch": Choice((64,))},
        {
            "train.batch_size": Choice((128, 256)),
            "train.micro_batch_size": Choice((None, 128)),
            "train.clips_per_epoch": Choice((512,)),
        },
        {"train.learning_rate": Range(1e-7, 1e-3, log=True), "train.min_learning_rate": Choice((1e-8,))},
        {"train.clip_gradient_norm": Range(0.5, 5.0)},
        {"train.clips_per_epoch": Choice((None, 1024))},
        {"train.weight_decay": Range(0.0, 0.01)},
        {"train.noise.*.prob": Choice((0.0, 0.5))},
        {"train.mixing.wave_prob": Range(np.float64(0.0), np.float32(0.5))},
    ],
    ids=lambda space: " and ".join(space),
)
def test_what_every_draw_can_train_is_not_refused(space):
    """Values that are right together, numbers in place of none, and fields whose present value is a whole number."""
    recipe = small_budget(sed_v2s())
    stages = tuple(replace(stage, weight_decay=0, clips_per_epoch=512) for stage in recipe.stages)
    search = Search(name="x", recipes=(replace(recipe, stages=list(stages)),), space=space)
    check_search(search)
    assert search.stages(search.recipes[0], search.baseline(search.recipes[0]))


def test_settings_count_together_in_any_order():
    search = Search(name="x", recipes=(sed_v2s(),), space={})
    first = override(search, {"clips_per_epoch": 64, "batch_size": 32})
    assert first == override(search, {"batch_size": 32, "clips_per_epoch": 64})
    assert first.recipes[0].stages[0].clips_per_epoch == 64


@pytest.mark.parametrize("settings", [{"learning_rate": 1e-3}, {"pretrain.clip_s": 5.0, "pretrain.learning_rate": 1e-3}])
@pytest.mark.parametrize("name", ["sed", "all"])
def test_a_setting_may_leave_a_pool_without_parameters(name, settings):
    plan_request(SweepOptions(search=name, settings=settings)).check_search()


def test_recipes_that_differ_in_their_name_alone_are_not_blamed_on_the_small_budget():
    full = Search(name="x", recipes=(sed_v2s(), replace(sed_v2s(), name="again")), space={})
    check_small_recipes(full, replace(full, recipes=tuple(small_budget(recipe) for recipe in full.recipes)))
