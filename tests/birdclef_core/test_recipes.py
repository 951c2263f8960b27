"""The seven recipes are what the source says, and all can be made whole and small."""

from dataclasses import replace

import pytest

from birdclef_core.config import STAGE_NAMES
from birdclef_core.errors import InputError
from birdclef_core.recipes import RECIPES, get_recipe, small_budget, with_all_stages


def test_epochs_and_skipped_stages():
    epochs = {name: {stage.name: stage.epochs for stage in recipe().stages} for name, recipe in RECIPES.items()}
    assert epochs["sed_v2s"] == dict(zip(STAGE_NAMES, (70, 40, 60, 30, 10), strict=True))
    assert epochs["sed_seresnext26t"] == {"pretrain_ce": 80, "pretrain_bce": 40, "train_ce": 60}
    assert epochs["cnn_b3ns"] == {"pretrain_ce": 50, "pretrain_bce": 52, "train_ce": 60, "train_bce": 30}
    assert epochs["cnn_b0ns"] == {"train_ce": 50}


def test_losses_learning_rates_label_spaces_and_freezing():
    stages = get_recipe("cnn_v2s").stages
    assert [stage.loss for stage in stages] == ["ce", "bce", "ce", "bce", "bce"]
    assert [stage.learning_rate for stage in stages] == [3e-4, 1e-3, 3e-4, 1e-3, 6e-4]
    assert [stage.label_space for stage in stages] == ["all", "all", "target", "target", "target"]
    assert [stage.freeze_encoder for stage in stages] == [False] * 4 + [True]
    assert [stage.clip_s for stage in stages] == [15, 15, 15, 15, 30]


def test_a_seed_over_two_to_the_32_is_kept():
    assert get_recipe("cnn_b0ns").stages[0].seed == 202111210524 > 2**32


def test_channels_follow_the_deltas():
    channels = {name: recipe().model.spectrogram.num_channels for name, recipe in RECIPES.items()}
    assert {name for name, count in channels.items() if count == 1} == {"sed_seresnext26t", "cnn_b0ns"}


def test_encoders_see_the_axes_that_they_see_in_the_2023_solution():
    axes = {name: (recipe().model.head, small_budget(recipe()).model.encoder_axes) for name, recipe in RECIPES.items()}
    assert set(axes.values()) == {("sed", "frequency_time"), ("cnn", "time_frequency")}


def test_the_ensemble_weights_add_up_to_one():
    assert sum(recipe().ensemble_weight for recipe in RECIPES.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_run_all_stages_and_be_made_small(name):
    whole = with_all_stages(get_recipe(name))
    assert tuple(stage.name for stage in whole.stages) == STAGE_NAMES
    own = {stage.name: stage for stage in get_recipe(name).stages}
    assert all(stage == own[stage.name] for stage in whole.stages if stage.name in own)
    small = small_budget(whole)
    assert sum(stage.epochs for stage in small.stages) < 15
    assert small.model.encoder == whole.model.encoder


def test_an_unknown_recipe_names_those_that_exist():
    with pytest.raises(InputError, match=r"no recipe 'sed_v3'; those that exist: sed_v2s"):
        get_recipe("sed_v3")


def test_inserted_stages_do_not_get_the_long_clips_of_finetuning():
    recipe = get_recipe("cnn_v2s")
    gapped = replace(recipe, stages=tuple(stage for stage in recipe.stages if stage.name != "train_bce"))
    clips = {stage.name: stage.clip_s for stage in with_all_stages(gapped).stages}
    assert clips["train_bce"] == clips["train_ce"] == 15.0 and clips["finetune"] == 30.0
