"""Searches: the parameters of a recipe, variants of a pool, and what comes back from a record."""

from dataclasses import replace

import pytest

from birdclef_core.errors import InputError
from birdclef_core.json_files import from_json, to_json
from birdclef_core.recipes import cnn_b0ns, sed_v2s
from sweeps.search.parameters import Choice, Range
from sweeps.search.space import Search

SPACE = {
    "pretrain.clip_s": Choice((5.0, 10.0)),
    "pretrain_ce.learning_rate": Range(1e-4, 1e-3, log=True),
    "train_ce.learning_rate": Range(1e-4, 1e-3, log=True),
    "train.mixing.wave_prob": Range(0.0, 1.0),
}


def make(pools=None, recipes=None) -> Search:
    return Search(name="x", recipes=recipes or (sed_v2s(), cnn_b0ns()), space=SPACE, pools=pools or {})


def test_a_recipe_samples_only_what_its_stages_use():
    assert set(make().sampled_space(cnn_b0ns())) == {"train_ce.learning_rate", "train.mixing.wave_prob"}
    assert set(make().sampled_space(sed_v2s())) == set(SPACE)


def test_the_baseline_is_the_recipe_itself():
    search = make({"pretrain": 3})
    recipe = search.recipe("sed_v2s")
    baseline = search.baseline(recipe)
    assert baseline == {"pretrain.variant": 0, "train_ce.learning_rate": 3e-4, "train.mixing.wave_prob": 0.7}
    assert search.stages(recipe, baseline) == recipe.stages


def test_a_pool_has_so_many_variants_and_no_more():
    search = make({"pretrain": 3})
    recipe = search.recipe("sed_v2s")
    prefixes = {search.stages(recipe, {"pretrain.variant": number})[:2] for number in range(3)}
    assert len(prefixes) == 3


def test_what_a_variant_is_follows_from_the_pools_space_alone():
    recipe = sed_v2s()

    def prefix(**changes):
        return replace(make({"pretrain": 3}), **changes).stages(recipe, {"pretrain.variant": 1})[:2]

    assert prefix() == prefix(name="other", pools={"pretrain": 9}, space={**SPACE, "train_ce.learning_rate": Choice((1e-3,))})
    assert prefix() != prefix(space={**SPACE, "pretrain_ce.learning_rate": Range(1e-4, 2e-3, log=True)})


def test_a_grid_has_every_point_of_a_finite_space_and_no_other_space_has_one():
    recipe = cnn_b0ns()
    search = Search(
        name="x",
        recipes=(recipe,),
        space={
            "pretrain.clip_s": Choice((5.0, 10.0)),
            "train_ce.learning_rate": Choice((1e-3, 2e-3)),
            "train.clip_s": Range(5.0, 5.0),
        },
    )
    assert list(search.of_recipe(recipe).grid()) == [
        {"train_ce.learning_rate": rate, "train.clip_s": 5.0} for rate in (1e-3, 2e-3)
    ]
    assert make().of_recipe(recipe).grid() is None


def test_whole_fields_have_whole_ranges_and_other_fields_have_floats():
    space = {"train_ce.epochs": Range(2, 4), "train.micro_batch_size": Range(8, 32, step=8), "train.clip_s": Range(5, 15, step=5)}
    search = Search(name="x", recipes=(sed_v2s(),), space=space)
    assert [type(search.space[key].low) for key in space] == [int, int, float]
    assert len(list(search.of_recipe(search.recipes[0]).grid())) == 3 * 4 * 3
    assert from_json(Search, to_json(search), file="search") == search
    with pytest.raises(InputError, match=r"'train_ce\.epochs' of search 'x' takes whole numbers, .*high=4\.5"):
        replace(search, space={"train_ce.epochs": Range(2, 4.5)})


def test_the_first_stage_in_which_a_parameter_matters():
    search = make({"pretrain": 3})
    sed, short = search.recipes
    assert {key: search.first_stage(sed, key) for key in search.sampled_space(sed)} == {
        "pretrain.variant": 0,
        "train_ce.learning_rate": 2,
        "train.mixing.wave_prob": 2,
    }
    assert search.first_stage(short, "train_ce.learning_rate") == 0
    late = replace(search, space={"pretrain_bce.clip_s": Choice((5.0, 10.0)), "every.weight_decay": Range(0.0, 0.1)})
    assert late.first_stage(sed, "pretrain.variant") == 1
    assert late.first_stage(sed, "every.weight_decay") == 0


def test_variants_are_what_they_were_before_ranges_had_steps():
    search, recipe = make({"pretrain": 3}), sed_v2s()
    first, second = search.stages(recipe, {"pretrain.variant": 2})[:2]
    assert (first.clip_s, first.learning_rate, second.clip_s) == (5.0, 0.0005663431004358685, 5.0)


def test_a_sampler_that_is_no_text_is_refused():
    with pytest.raises(InputError, match="sampler of search 'x' must be a text, such as 'stage', but is 3"):
        replace(make(), sampler=3)


def test_parameters_reach_their_stages_only():
    stages = {stage.name: stage for stage in make().stages(sed_v2s(), {"train.mixing.wave_prob": 0.123})}
    assert stages["train_bce"].mixing.wave_prob == 0.123
    assert stages["finetune"].mixing.wave_prob == 0.7
