"""The seven recipes are those of the 2023 solution, and all can be made whole and small."""

from dataclasses import replace

import pytest

from birdclef_core.audio.coloured_noise import COLOURED_NOISE
from birdclef_core.config import STAGE_NAMES
from birdclef_core.errors import InputError
from birdclef_core.recipes import RECIPES, get_recipe, small_budget, with_all_stages

LOUD = {"gain": 0.4, "transition": 0.4, "gain_db": 15}
QUIET = {"gain": 0.2, "transition": 0.0, "gain_db": 12}
SED_COLOURED = [
    ("white", "rms", 0, 0.04, 0.3 / 5 * 1),
    ("white", "peak_snr_db", 5, 20, 0.3 / 5 * 1),
    ("pink", "peak_snr_db", 5, 20, 0.3 / 5 * 1),
    ("white", "rms", 0.0001, 0.03, 0.3 / 5 * 0.5),
    ("white", "rms_snr_db", 5, 15, 0.3 / 5 * 0.5),
]
"""One of five, for .3 of the clips; the last two are then left out half of the time. The last number: share of the clips that get it."""
CNN_COLOURED = [
    ("white", "rms", 0, 0.04, 0.5 / 3),
    ("white", "peak_snr_db", 5, 40, 0.5 / 3),
    ("pink", "peak_snr_db", 5, 20, 0.5 / 3),
]
"""One of three, left out half of the time."""

THE_2023_SOLUTION = {
    "sed_v2s": {
        "stages": {
            "pretrain_ce": (70, 20231121),
            "pretrain_bce": (40, 20230503),
            "train_ce": (60, 20231019),
            "train_bce": (30, 20231911),
            "finetune": (10, 20230523),
        },
        "model": ("sed", "tf_efficientnetv2_s.in21k"),
        "mel": {"mels": 128, "fft": 2048, "hop": 5 * 32000 // 383, "hz": (0, 16000), "normal": 80, "channels": 3},
        "clip_s": 10,
        "batch": 96,
        "mixing": (0.7, 0.5, 0.15, 2),
        "noise": [(0, 3, 0.6), (0, 3, 0.3), (0, 3, 0.4)],
        "level": LOUD,
        "coloured": SED_COLOURED,
    },
    "sed_b3ns": {
        "stages": {
            "pretrain_ce": (75, 20201121),
            "pretrain_bce": (45, 20200503),
            "train_ce": (60, 20201019),
            "train_bce": (30, 2020101911),
            "finetune": (10, 2020101921),
        },
        "model": ("sed", "tf_efficientnet_b3.ns_jft_in1k"),
        "mel": {"mels": 128, "fft": 1024, "hop": 5 * 32000 // 299, "hz": (50, 14000), "normal": 255, "channels": 3},
        "clip_s": 10,
        "batch": 96,
        "mixing": (0.6, 0.5, 0.3, 2),
        "noise": [(0, 3, 0.5), (0, 3, 0.25), (0, 3, 0.35)],
        "level": LOUD,
        "coloured": SED_COLOURED,
    },
    "sed_seresnext26t": {
        "stages": {"pretrain_ce": (80, 19940215), "pretrain_bce": (40, 19000215), "train_ce": (60, 19951019)},
        "model": ("sed", "seresnext26t_32x4d.bt_in1k"),
        "mel": {"mels": 128, "fft": 2048, "hop": 5 * 32000 // 255, "hz": (0, 16000), "normal": 255, "channels": 1},
        "clip_s": 10,
        "batch": 128,
        "mixing": (0, None, 0.7, 2),
        "noise": [(3, 30, 0.5)],
        "level": QUIET,
        "coloured": SED_COLOURED,
    },
    "cnn_v2s": {
        "stages": {
            "pretrain_ce": (56, 20191121),
            "pretrain_bce": (54, 20190503),
            "train_ce": (60, 20191019),
            "train_bce": (30, 2019101911),
            "finetune": (10, 2019101921),
        },
        "model": ("cnn", "tf_efficientnetv2_s.in21k"),
        "mel": {"mels": 64, "fft": 1024, "hop": 320, "hz": (50, 14000), "normal": 80, "channels": 3},
        "clip_s": 15,
        "batch": 96,
        "mixing": (0.6, 0.95, 1, 1),
        "noise": [(3, 30, 0.5)],
        "level": QUIET,
        "coloured": CNN_COLOURED,
    },
    "cnn_b3ns": {
        "stages": {
            "pretrain_ce": (50, 20171121),
            "pretrain_bce": (52, 20170503),
            "train_ce": (60, 20171019),
            "train_bce": (30, 2017101911),
        },
        "model": ("cnn", "tf_efficientnet_b3.ns_jft_in1k"),
        "mel": {"mels": 128, "fft": 1024, "hop": 5 * 32000 // 299, "hz": (50, 14000), "normal": 80, "channels": 3},
        "clip_s": 15,
        "batch": 96,
        "mixing": (0.7, 0.9, 0.5, 1),
        "noise": [(3, 30, 0.6)],
        "level": QUIET | {"gain": 0.4},
        "coloured": CNN_COLOURED,
    },
    "cnn_resnet34d": {
        "stages": {
            "pretrain_ce": (60, 19941121),
            "pretrain_bce": (50, 19940503),
            "train_ce": (60, 1994081011),
            "train_bce": (30, 19940810),
        },
        "model": ("cnn", "resnet34d.ra2_in1k"),
        "mel": {"mels": 128, "fft": 2048, "hop": 5 * 32000 // 255, "hz": (0, 16000), "normal": 255, "channels": 3},
        "clip_s": 15,
        "batch": 128,
        "mixing": (0.7, 1, 1, 1),
        "noise": [(3, 30, 0.5)],
        "level": QUIET,
        "coloured": CNN_COLOURED,
    },
    "cnn_b0ns": {
        "stages": {"train_ce": (50, 202111210524)},
        "model": ("cnn", "tf_efficientnet_b0.ns_jft_in1k"),
        "mel": {"mels": 128, "fft": 2048, "hop": 5 * 32000 // 255, "hz": (0, 16000), "normal": 255, "channels": 1},
        "clip_s": 20,
        "batch": 156,
        "mixing": (0, None, 1, 1),
        "noise": [(3, 30, 0.5)],
        "level": QUIET,
        "coloured": CNN_COLOURED,
    },
}
"""What its configs say (commit be0b1a4), by recipe. stages: epochs and seed; mixing: probabilities for waves (none where it is switched
off), for two clips and not three, and for spectrograms, and the beta of these; noise: lowest and highest SNR and probability."""

FOR_ALL = {
    "time_shift_prob": 0.4,
    "pitch_shift_prob": 0.4,
    "pitch_shift_semitones": 4,
    "time_masks": 1,
    "time_mask_frames": 60,
    "frequency_masks": 1,
    "frequency_mask_prob": 0.5,
    "frequency_mask_bins": 24,
    "mask_fill": "zero",
    "tilt_prob": 0.5,
    "tilt_depth": 0.5,
    "gain_transition_s_min": 0.2,
    "gain_transition_s_max": 6,
}
"""What the 2023 solution has in the code of its model, and in the defaults of its libraries, for every recipe."""


def test_the_recipes_are_those_of_the_2023_solution():
    assert RECIPES.keys() == THE_2023_SOLUTION.keys()


@pytest.mark.parametrize("name", THE_2023_SOLUTION)
def test_stages_and_models_are_those_of_the_2023_solution(name):
    recipe, expected = get_recipe(name), THE_2023_SOLUTION[name]
    mel = recipe.model.spectrogram
    assert (recipe.model.head, recipe.model.encoder) == expected["model"]
    assert expected["mel"] == {
        "mels": mel.num_mels,
        "fft": mel.n_fft,
        "hop": mel.hop_length,
        "hz": (mel.f_min_hz, mel.f_max_hz),
        "normal": {"unit": 80, "over_255": 255}[mel.db_scale],
        "channels": mel.num_channels,
    }
    assert (recipe.model.drop_rate, recipe.model.drop_path_rate, recipe.model.head_dropout) == (0.5, 0.2, 0.5)
    assert {stage.name: (stage.epochs, stage.seed) for stage in recipe.stages} == expected["stages"]
    assert {stage.clip_s for stage in recipe.stages if stage.name != "finetune"} == {expected["clip_s"]}
    assert {stage.clip_s for stage in recipe.stages if stage.name == "finetune"} <= {30}
    assert {stage.batch_size for stage in recipe.stages} == {expected["batch"]}
    assert {(stage.secondary_target, stage.label_smoothing, stage.weight_decay) for stage in recipe.stages} == {(0.9, 0.1, 1e-3)}


@pytest.mark.parametrize("name", THE_2023_SOLUTION)
def test_augmentation_is_that_of_the_2023_solution(name):
    expected = THE_2023_SOLUTION[name]
    for stage in get_recipe(name).stages:
        mixing, augment = stage.mixing, stage.augment
        double = mixing.wave_double_prob if mixing.wave_prob else None
        assert (mixing.wave_prob, double, mixing.spectrogram_prob, mixing.spectrogram_beta) == expected["mixing"]
        assert [(group.snr_db_min, group.snr_db_max, group.prob) for group in stage.noise] == expected["noise"]
        level = {"gain": augment.gain_prob, "transition": augment.gain_transition_prob, "gain_db": augment.gain_db}
        assert level == expected["level"]
        kinds = COLOURED_NOISE[augment.coloured_noise]
        shares = [augment.coloured_noise_prob * kind.weight / sum(kind.weight for kind in kinds) for kind in kinds]
        assert [(kind.colour, kind.measure, kind.low, kind.high) for kind in kinds] == [kind[:4] for kind in expected["coloured"]]
        assert shares == pytest.approx([kind[4] for kind in expected["coloured"]])
        assert {field: getattr(augment, field) for field in FOR_ALL} == FOR_ALL


def test_loud_noise_has_the_three_groups_of_the_2023_solution():
    groups = {name: [group.source for group in get_recipe(name).stages[0].noise] for name in RECIPES}
    assert groups.pop("sed_v2s") == groups.pop("sed_b3ns") == ["nocall", "field", "ambient"]
    assert {tuple(sources) for sources in groups.values()} == {("*",)}


def test_losses_learning_rates_label_spaces_and_freezing():
    stages = get_recipe("cnn_v2s").stages
    assert [stage.loss for stage in stages] == ["ce", "bce", "ce", "bce", "bce"]
    assert [stage.learning_rate for stage in stages] == [3e-4, 1e-3, 3e-4, 1e-3, 6e-4]
    assert [stage.label_space for stage in stages] == ["all", "all", "target", "target", "target"]
    assert [stage.freeze_encoder for stage in stages] == [False] * 4 + [True]
    assert [stage.clip_s for stage in stages] == [15, 15, 15, 15, 30]


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
