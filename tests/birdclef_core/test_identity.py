"""A stage's identity holds what changes the result and nothing else."""

import json
from dataclasses import dataclass, replace

import pytest

from birdclef_core.config import ModelConfig, StageConfig, added
from birdclef_core.errors import InputError
from birdclef_core.identity import canonical, fingerprint, restore
from birdclef_core.recipes import RECIPES, small_budget

GOLDEN = {
    "sed_v2s": "c00d964bdc78b92b",
    "sed_b3ns": "0b79ebd3e4d76bb6",
    "sed_seresnext26t": "36bd3510f60dceed",
    "cnn_v2s": "8c8b8f1bb756fd94",
    "cnn_b3ns": "670eaffb778f3349",
    "cnn_resnet34d": "21b25908fb1471d8",
    "cnn_b0ns": "eb54bb8e49a5f2b9",
}


def test_golden_fingerprints_of_the_recipes():
    """A change here means that every stored stage of the recipe is retrained: it must be seen in review."""
    assert {name: fingerprint(canonical(recipe()))[:16] for name, recipe in RECIPES.items()} == GOLDEN


def test_runtime_fields_do_not_count_and_others_do():
    stage = small_budget(RECIPES["sed_v2s"]()).stages[0]
    assert fingerprint(replace(stage, evaluation_batch_size=7)) == fingerprint(stage)
    assert fingerprint(replace(stage, label_smoothing=0.05)) != fingerprint(stage)


def test_a_whole_number_in_a_float_field_is_that_float():
    stage = RECIPES["sed_v2s"]().stages[0]
    assert fingerprint(replace(stage, clip_s=10)) == fingerprint(replace(stage, clip_s=10.0))
    assert fingerprint(replace(stage, clip_gradient_norm=1)) == fingerprint(replace(stage, clip_gradient_norm=1.0))


@dataclass(frozen=True)
class Grown:
    old: int = 1
    new: float = added(0.5)


def test_an_added_field_counts_only_where_it_differs_from_its_default():
    assert canonical(Grown()) == {"old": 1}
    assert canonical(Grown(new=2)) == {"old": 1, "new": 2.0}
    assert restore(Grown, canonical(Grown())) == Grown()
    assert restore(Grown, canonical(Grown(new=0.25))) == Grown(new=0.25)


def test_nan_and_unknown_types_have_no_fingerprint():
    with pytest.raises(ValueError, match="JSON"):
        fingerprint(float("nan"))
    with pytest.raises(TypeError, match="no canonical form"):
        fingerprint({"path": object()})


@pytest.mark.parametrize("name", RECIPES)
def test_a_config_comes_back_from_its_canonical_form(name):
    recipe = RECIPES[name]()
    assert restore(ModelConfig, json.loads(json.dumps(canonical(recipe.model)))) == recipe.model
    for stage in recipe.stages:
        assert restore(StageConfig, json.loads(json.dumps(canonical(stage)))) == stage


def test_a_form_with_a_wrong_value_is_refused_with_its_place():
    stage = canonical(RECIPES["sed_v2s"]().stages[0])
    with pytest.raises(InputError, match=r"mixing\.wave_prob must be a number, but is 'often'"):
        restore(StageConfig, {**stage, "mixing": {**stage["mixing"], "wave_prob": "often"}})
    with pytest.raises(InputError, match="epochs >= 1 must hold"):
        restore(StageConfig, {**stage, "epochs": 0})
    with pytest.raises(InputError, match="learning_rate is missing"):
        restore(StageConfig, {name: value for name, value in stage.items() if name != "learning_rate"})


def test_a_form_of_another_version_is_refused():
    with pytest.raises(InputError, match="recorded ModelConfig cannot be read: warmup is not a field of this version"):
        restore(ModelConfig, {"warmup": 3})
