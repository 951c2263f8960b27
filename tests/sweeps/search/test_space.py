"""Searches: the space of a recipe, pools of variants, settings by hand, files of one's own."""

from dataclasses import replace

import pytest

from birdclef_core.errors import InputError
from birdclef_core.json_files import from_json, to_json
from birdclef_core.recipes import RECIPES, cnn_b0ns, sed_v2s, small_budget
from sweeps.search.parameters import Choice, Range
from sweeps.search.space import Search, load_search, override

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
    assert list(search.grid(recipe)) == [{"train_ce.learning_rate": rate, "train.clip_s": 5.0} for rate in (1e-3, 2e-3)]
    assert make().grid(recipe) is None


def test_whole_fields_have_whole_ranges_and_other_fields_have_floats():
    space = {"train_ce.epochs": Range(2, 4), "train.micro_batch_size": Range(8, 32, step=8), "train.clip_s": Range(5, 15, step=5)}
    search = Search(name="x", recipes=(sed_v2s(),), space=space)
    assert [type(search.space[key].low) for key in space] == [int, int, float]
    assert len(list(search.grid(search.recipes[0]))) == 3 * 4 * 3
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


def test_an_unknown_sampler_is_refused():
    with pytest.raises(InputError, match="tpe, random, but got 'grid'"):
        replace(make(), sampler="grid")


def test_parameters_reach_their_stages_only():
    stages = {stage.name: stage for stage in make().stages(sed_v2s(), {"train.mixing.wave_prob": 0.123})}
    assert stages["train_bce"].mixing.wave_prob == 0.123
    assert stages["finetune"].mixing.wave_prob == 0.7


@pytest.mark.parametrize("name", ["sed", "cnn", "all"])
@pytest.mark.parametrize("small", [False, True])
def test_every_search_that_comes_with_the_project_is_whole(name, small):
    search = load_search(name)
    if small:
        search = Search(
            name=name,
            recipes=tuple(small_budget(recipe) for recipe in search.recipes),
            space=search.with_small_space().space,
            pools=search.pools,
        )
    for recipe in search.recipes:
        assert search.stages(recipe, search.baseline(recipe))
    assert {recipe.name for recipe in search.recipes} <= set(RECIPES)


def test_the_sed_search_runs_all_five_stages_of_three_backbones():
    assert [len(recipe.stages) for recipe in load_search("sed").recipes] == [5, 5, 5]


def test_an_unknown_search_names_those_that_exist():
    with pytest.raises(InputError, match=r"no search 'sad'; those that exist: all, cnn, sed"):
        load_search("sad")


def test_a_file_of_ones_own_works_the_same(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        "from birdclef_core.recipes import sed_v2s\nfrom sweeps.search.space import Range, Search\n"
        "SEARCH = Search(name='own', recipes=(sed_v2s(),), space={'train_ce.learning_rate': Range(1e-4, 1e-3)})\n"
    )
    assert load_search(str(path)).name == "own"


@pytest.mark.parametrize(("text", "message"), [("1/0", "ZeroDivisionError"), ("SEARCH = 3", "SEARCH is int"), ("", "NoneType")])
def test_a_bad_file_of_ones_own_says_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "own.py"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_search(str(path))


def test_settings_by_hand_reach_model_stages_and_groups_and_are_no_longer_sampled():
    search = override(make(), {"spectrogram.num_mels": 64, "train_ce.learning_rate": 5e-4, "epochs": 2})
    recipe = search.recipe("sed_v2s")
    assert recipe.model.spectrogram.num_mels == 64
    assert {stage.epochs for stage in recipe.stages} == {2}
    assert recipe.stages[2].learning_rate == 5e-4
    assert "train_ce.learning_rate" not in search.space
    assert "pretrain_ce.learning_rate" in search.space
    assert "pretrain_ce.learning_rate" not in override(make(), {"learning_rate": 1e-3}).space


def test_a_setting_that_fits_nothing_is_refused():
    with pytest.raises(InputError, match="no such field"):
        override(make(), {"epoch": 2})
    with pytest.raises(InputError, match="no field 'clip'"):
        override(make(), {"train.clip": 2})
