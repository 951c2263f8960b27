"""Configuration refuses what cannot be, and says the rule and the values."""

import pytest

from birdclef_core.augment_config import AugmentConfig, NoiseGroup
from birdclef_core.config import Recipe, SpectrogramConfig, evolve, flatten
from birdclef_core.errors import InputError
from birdclef_core.identity import canonical
from birdclef_core.recipes import sed_v2s


def test_errors_name_the_rule_and_the_value():
    with pytest.raises(InputError, match="f_min_hz < f_max_hz"):
        SpectrogramConfig(f_min_hz=9000.0, f_max_hz=8000.0)


def test_evolve_reaches_nested_fields_and_leaves_the_original():
    stage = sed_v2s().stages[0]
    changed = evolve(stage, {"mixing.wave_prob": 0.25, "epochs": 3})
    assert (changed.mixing.wave_prob, changed.epochs) == (0.25, 3)
    assert stage.epochs == 70


def test_evolve_takes_an_int_for_a_float_and_nothing_else():
    stage = sed_v2s().stages[0]
    assert evolve(stage, {"clip_s": 5}).clip_s == 5.0
    with pytest.raises(InputError, match="takes a float"):
        evolve(stage, {"clip_s": "long"})
    with pytest.raises(InputError, match="takes a int"):
        evolve(stage, {"epochs": 2.5})


def test_evolve_checks_the_type_of_a_field_that_is_none_by_default():
    stage = sed_v2s().stages[0]
    assert evolve(stage, {"clip_gradient_norm": 1}).clip_gradient_norm == 1.0
    assert evolve(stage, {"clips_per_epoch": None}).clips_per_epoch is None
    with pytest.raises(InputError, match="clip_gradient_norm takes a float or None, but got 'much'"):
        evolve(stage, {"clip_gradient_norm": "much"})
    with pytest.raises(InputError, match="epochs takes a int, but got None"):
        evolve(stage, {"epochs": None})


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"micro_batch_size": 97}, "1 <= micro_batch_size <= batch_size must hold, but got micro_batch_size=97, batch_size=96"),
        ({"clip_gradient_norm": 0.0}, "clip_gradient_norm > 0"),
        ({"secondary_target": 1.8}, "0 <= secondary_target <= 1"),
        ({"ema_decay": 1.0}, "0 <= ema_decay < 1"),
        ({"average_epochs": 71}, "1 <= average_epochs <= epochs"),
        ({"early_stop_epochs": 0}, "early_stop_epochs >= 1"),
        ({"average_epochs": 2, "ema_decay": 0.9}, "or neither ema_decay nor early_stop_epochs"),
        ({"average_epochs": 2, "early_stop_epochs": 3}, "or neither ema_decay nor early_stop_epochs"),
        ({"precision": "half"}, "precision must be one of float32, tf32, bfloat16"),
        (
            {"loss": "soft_auc", "micro_batch_size": 1},
            "micro_batch_size above 1 with loss='soft_auc', which ranks the clips of a micro-batch against each other, must hold, but got "
            "stage='pretrain_ce', micro_batch_size=1, loss='soft_auc'",
        ),
        ({"loss": "hinge"}, "loss must be one of ce, bce, focal, asymmetric, soft_auc"),
        ({"optimizer": "sgd"}, "optimizer must be one of adam, adamw, radam"),
        ({"schedule": "step"}, "schedule must be one of cosine, one_cycle, constant"),
        ({"class_balance": "log"}, "class_balance must be one of inverse, inverse_sqrt, none"),
        ({"focal_gamma": -0.1}, "focal_gamma >= 0"),
        ({"focal_alpha": 1.0}, "0 < focal_alpha < 1"),
        ({"positive_gamma": -1.0}, "positive_gamma >= 0"),
        ({"negative_gamma": -1.0}, "negative_gamma >= 0"),
        ({"negative_margin": 1.0}, "0 <= negative_margin < 1"),
        (
            {"warmup_epochs": 70.0},
            "0 <= warmup_epochs < epochs must hold, but got stage='pretrain_ce', warmup_epochs=70.0, epochs=70",
        ),
        ({"warmup_epochs": 0.5, "schedule": "one_cycle"}, "or a schedule other than 'one_cycle'"),
        ({"layer_decay": 1.1}, "0 < layer_decay <= 1"),
        ({"frozen_blocks": -1}, "frozen_blocks >= 0"),
        ({"thaw_every": -1}, "thaw_every >= 0"),
        ({"frozen_blocks": 1, "freeze_encoder": True}, "freeze_encoder == False, or frozen_blocks == 0 and thaw_every == 0"),
        ({"thaw_every": 1, "freeze_encoder": True}, "freeze_encoder == False, or frozen_blocks == 0 and thaw_every == 0"),
        ({"thaw_every": 70}, "thaw_every < epochs, or no layer of the encoder would ever be trained, must hold"),
        ({"clip_candidates": 0}, "clip_candidates >= 1"),
        ({"label_smoothing": 1.0}, "0 <= label_smoothing < 1"),
        ({"weight_decay": -0.1}, "weight_decay >= 0"),
        ({"evaluation_batch_size": 0}, "evaluation_batch_size >= 1"),
        ({"augment.gain_db": 1e4}, "gain_db <= 200"),
    ],
)
def test_optional_parts_of_a_stage_are_refused_where_they_cannot_be(changes, rule):
    with pytest.raises(InputError, match=rule):
        evolve(sed_v2s().stages[0], changes)


def test_stages_may_come_in_any_order_but_each_once():
    recipe = sed_v2s()
    assert Recipe(name="odd", model=recipe.model, stages=recipe.stages[::-1]).stages[0].name == "finetune"
    with pytest.raises(InputError, match="none twice"):
        Recipe(name="odd", model=recipe.model, stages=recipe.stages[:1] * 2)


def test_evolve_names_the_fields_there_are():
    with pytest.raises(InputError, match=r"no field 'epoch'; it has .*epochs"):
        evolve(sed_v2s().stages[0], {"epoch": 3})


def test_flatten_names_every_field_as_evolve_takes_it():
    stage = sed_v2s().stages[0]
    flat = dict(flatten(stage))
    assert flat["mixing.wave_prob"] == stage.mixing.wave_prob and flat["epochs"] == 70
    assert flat["noise.0.prob"] == stage.noise[0].prob
    assert evolve(stage, {name: value for name, value in flat.items() if not name.startswith("noise.")}) == stage


def test_flatten_is_the_same_for_a_config_and_its_json_form():
    augment = AugmentConfig(gain_db=3.0)
    assert list(flatten(canonical(augment))) == list(flatten(augment))
    assert dict(flatten({"noise": (NoiseGroup(source="rain"),)}, "stage"))["stage.noise.0.source"] == "rain"
    assert list(flatten({"empty": [], "pair": [1, 2]})) == [("empty", []), ("pair", [1, 2])]
