"""Names of fields: every one leads to its settings in a recipe, and a wrong one to the right name."""

from dataclasses import replace

import pytest

from birdclef_core.config import StageConfig, flatten
from birdclef_core.errors import InputError
from birdclef_core.recipes import cnn_b0ns, sed_b3ns, sed_v2s
from sweeps.search.names import (
    GROUPS,
    MODEL,
    all_names,
    changed,
    find_field,
    find_field_of,
    groups_of,
    is_in_group,
    stage_order,
    value_at,
)


@pytest.mark.parametrize("group", GROUPS)
def test_every_name_is_found_and_leads_to_its_setting(group):
    recipe = sed_b3ns()
    for name in all_names(group):
        places = find_field(name).places(recipe)
        expected = 1 if group == MODEL else sum(is_in_group(stage.name, group) for stage in recipe.stages)
        assert len(places) == expected * (3 if ".noise." in name else 1), name
        for place in places:
            value_at(recipe, place)


def test_the_names_are_those_of_all_fields():
    recipe = replace(sed_v2s(), stages=(replace(sed_v2s().stages[0], sources=(("NAME", 1.0),)),))
    values = {name: value for name, value in flatten(recipe.stages[0]) if not name.startswith("noise.")}
    named = {name.removeprefix("every.") for name in all_names("every")}
    assert {name for name in named if not name.startswith("noise.")} == set(values)
    assert {name for name in named if name.startswith("noise.")} == {
        f"noise.*.{part}" for part in ("source", "prob", "snr_db_min", "snr_db_max")
    }
    assert {name.removeprefix("model.") for name in all_names(MODEL)} == {name for name, _ in flatten(recipe.model)}
    for name, value in values.items():
        assert value_at(recipe, (0, name)) == value


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("trian.clip_s", "train.clip_s"),
        ("train_c.epochs", "train_ce.epochs"),
        ("clip_s", "every.clip_s"),
        ("drop_path_rate", "model.drop_path_rate"),
        ("train.clip_sec", "train.clip_s"),
        ("train.lerning_rate", "train.learning_rate"),
        ("train.wave_prob", "train.mixing.wave_prob"),
        ("train.mixing.wave_probs", "train.mixing.wave_prob"),
        ("train.augment.time_mask", "train.augment.time_masks"),
        ("finetune.augmentation.tilt_depth", "finetune.augment.tilt_depth"),
        ("train.num_mels", "model.spectrogram.num_mels"),
        ("model.num_mel", "model.spectrogram.num_mels"),
        ("model.spectrogram.n_ftt", "model.spectrogram.n_fft"),
        ("model.clip_s", "every.clip_s"),
        ("modle.encoder", "model.encoder"),
        ("train.noise.prob", "train.noise.*.prob"),
        ("train.noise.0.probability", "train.noise.*.prob"),
        ("model.noise.0.prob", "every.noise.*.prob"),
    ],
)
def test_a_wrong_name_is_answered_by_the_nearest_right_one(wrong, right):
    with pytest.raises(InputError, match=f"names no field: .*Perhaps '{right.replace('*', chr(92) + '*')}' is meant"):
        find_field_of(wrong, [sed_b3ns()])


def own(*names: str):
    first = sed_b3ns().stages[0]
    return replace(sed_b3ns(), stages=tuple(replace(first, name=name) for name in names))


def test_stages_of_ones_own_have_names_and_groups():
    recipe = own("warm", "student", "student_two")
    assert groups_of([recipe]) == ("warm", "student", "student_two", "every", "model")
    assert find_field("student.clip_s").places(recipe) == ((1, "clip_s"), (2, "clip_s"))
    assert find_field("student_two.clip_s").places(recipe) == ((2, "clip_s"),)
    narrow, middle, wide = (find_field(f"{group}.clip_s").breadth for group in ("student_two", "student", "every"))
    assert narrow < middle < wide
    with pytest.raises(InputError, match=r"groups warm, student.*Perhaps 'student\.clip_s' is meant"):
        find_field_of("studnet.clip_s", [recipe])


@pytest.mark.parametrize("name", ["every", "model", "Train", "a-b", "a__b", "_a", "", "1a", "x" * 41, "first_weights"])
def test_a_stage_cannot_have_every_name(name):
    with pytest.raises(InputError, match="name of a stage must be"):
        own(name)


def test_stages_of_chains_come_in_one_order():
    assert stage_order([("a", "c"), ("a", "b", "c"), ("d",)]) == ["a", "b", "c", "d"]
    assert sorted(stage_order([("a", "b"), ("b", "a")])) == ["a", "b"]


@pytest.mark.parametrize(
    "wrong",
    ["", ".", "train", "train.", "train.xyzzy", "model", "model.", "train.clip_s.x", "train.noise.0", "train.noise.", "x.y.z"],
)
def test_what_is_like_no_name_is_refused_too(wrong):
    with pytest.raises(InputError, match="names no field"):
        find_field(wrong)


@pytest.mark.parametrize("group", ["train.mixing", "train.augment", "train.noise", "model.spectrogram"])
def test_a_name_of_several_fields_is_answered_by_all_of_them(group):
    with pytest.raises(InputError, match=rf"must be a single field, but has fields of its own: {group}\."):
        find_field(group)


def test_groups_of_noise_have_a_number_a_source_or_all():
    recipe = sed_b3ns()
    sources = [group.source for group in recipe.stages[0].noise]
    assert find_field("train_ce.noise.*.prob").places(recipe) == ((2, "noise.0.prob"), (2, "noise.1.prob"), (2, "noise.2.prob"))
    assert find_field("train_ce.noise.1.prob").places(recipe) == ((2, "noise.1.prob"),)
    assert find_field(f"train_ce.noise.{sources[1]}.prob").places(recipe) == ((2, "noise.1.prob"),)
    assert find_field("train_ce.noise.3.prob").places(recipe) == ()
    assert find_field("train_ce.noise.other.prob").places(recipe) == ()


def test_changes_reach_their_settings_and_no_others():
    recipe = cnn_b0ns()
    model, (stage,) = changed(recipe, {(-1, "spectrogram.num_mels"): 64, (0, "noise.0.prob"): 0.25, (0, "mixing.wave_prob"): 0.5})
    assert model == replace(recipe.model, spectrogram=replace(recipe.model.spectrogram, num_mels=64))
    own: StageConfig = recipe.stages[0]
    assert stage == replace(own, noise=(replace(own.noise[0], prob=0.25),), mixing=replace(own.mixing, wave_prob=0.5))
    assert changed(recipe, {}) == (recipe.model, recipe.stages)
    with pytest.raises(InputError, match="0 <= prob <= 1"):
        changed(recipe, {(0, "noise.0.prob"): 2.0})


def test_the_share_of_a_source_has_its_name_whatever_it_is():
    recipe = replace(sed_v2s(), stages=tuple(replace(stage, sources=(("x.2023", 0.5),)) for stage in sed_v2s().stages[:2]))
    field = find_field("pretrain.sources.a b/c-d")
    (first, _), other = field.places(recipe), find_field("pretrain_bce.sources.x.2023").places(recipe)[0]
    assert field.kinds == (float,) and value_at(recipe, first) == 0 and value_at(recipe, other) == 0.5
    _, stages = changed(recipe, {first: 0.25, other: 0.0, (1, "sources.y"): 1})
    assert [stage.sources for stage in stages] == [(("a b/c-d", 0.25), ("x.2023", 0.5)), (("y", 1.0),)]
    with pytest.raises(InputError, match=r"must be a single field, but has fields of its own: train\.sources\.NAME"):
        find_field("train.sources")
    with pytest.raises(InputError, match=r"Perhaps 'train\.sources\.xeno_canto' is meant"):
        find_field("train.source.xeno_canto")
