"""A recipe's space: fields of the model, conditions, constraints, groups of noise, variants, and the stage where each matters."""

import itertools
import pickle
import random
from dataclasses import replace

import pytest
from made_up import make_chain_builder

from birdclef_core.config import evolve
from birdclef_core.errors import InputError
from birdclef_core.json_files import from_json, to_json
from birdclef_core.models.encoders import RANDOM
from birdclef_core.recipes import cnn_b0ns, cnn_v2s, sed_b3ns, sed_v2s
from sweeps.search.parameters import Choice, Range
from sweeps.search.recipe_space import parameters_of
from sweeps.search.space import Search

MIXED = "train.mixing.spectrogram_prob > 0"
CONDITIONAL = {
    "train.mixing.spectrogram_prob": Choice((0.0, 0.5)),
    "train.mixing.spectrogram_beta": Range(1.0, 4.0, when=MIXED),
    "finetune.mixing.spectrogram_beta": Range(1.0, 4.0, when="train.mixing.spectrogram_beta > 2"),
}


def search_of(space, recipes=None, **changes) -> Search:
    return Search(name="x", recipes=recipes or (sed_v2s(),), space=space, **changes)


def draws(search: Search, number: int = 200) -> list[dict]:
    generator = random.Random(0)
    return [search.draw(search.recipes[0], generator) for _ in range(number)]


# Fields of the model.


def test_a_field_of_the_model_is_a_parameter_of_the_first_stage():
    search = search_of({"model.spectrogram.num_mels": Choice((64, 128)), "train_ce.learning_rate": Range(1e-4, 1e-3)})
    recipe = search.recipes[0]
    assert search.first_stage(recipe, "model.spectrogram.num_mels") == 0
    assert search.baseline(recipe)["model.spectrogram.num_mels"] == 128
    assert search.model(recipe, {"model.spectrogram.num_mels": 64}).spectrogram.num_mels == 64
    assert search.stages(recipe, {"model.spectrogram.num_mels": 64}) == recipe.stages
    chains = make_chain_builder(search)
    point = search.baseline(recipe)
    first, second = (chains.chain(recipe.name, {**point, "model.spectrogram.num_mels": mels}) for mels in (64, 128))
    assert [task.model.spectrogram.num_mels for task in first] == [64] * 5
    assert not {task.stage_id for task in first} & {task.stage_id for task in second}
    own = make_chain_builder(search_of({})).chain(recipe.name, {})
    assert [task.stage_id for task in second] == [task.stage_id for task in own]


def test_encoders_are_a_choice_and_each_has_its_own_first_weights():
    encoders = ("resnet18d.ra2_in1k", "resnet34d.ra2_in1k")
    search = search_of({"model.encoder": Choice(encoders)})
    assert search.encoders() == encoders
    assert search_of({}).encoders() == (sed_v2s().model.encoder,)
    assert search_of({"model.encoder": Choice(encoders)}, pools={"model": 2}).encoders() == (*encoders, sed_v2s().model.encoder)
    chains = make_chain_builder(search, pretrained={name: replace(RANDOM, name=name) for name in encoders})
    for encoder in encoders:
        chain = chains.chain("sed_v2s", {"model.encoder": encoder})
        assert (chain[0].model.encoder, chain[0].pretrained.name, chain[0].identity["parent"]) == (encoder, encoder, encoder)


def test_the_model_may_have_a_pool_and_the_pools_of_stages_do_not_hold_it():
    space = {"model.drop_path_rate": Range(0.0, 0.5), "pretrain.clip_s": Choice((5.0, 10.0))}
    search = search_of(space, pools={"model": 3, "every": 2})
    recipe = search.recipes[0]
    assert set(search.sampled_space(recipe)) == {"model.variant", "every.variant"}
    assert len({search.model(recipe, {"model.variant": number}) for number in range(3)}) == 3
    assert search.model(recipe, {"every.variant": 1}) == recipe.model
    assert search.first_stage(recipe, "model.variant") == 0
    assert set(search_of(space, pools={"every": 2}).sampled_space(recipe)) == {"model.drop_path_rate", "every.variant"}


def test_the_head_decides_which_clips_can_be_drawn():
    """A CNN takes multiples of five seconds: what breaks that only together is never drawn."""
    search = search_of({"model.head": Choice(("sed", "cnn")), "every.clip_s": Choice((5.0, 7.0))})
    points = {(point["model.head"], point["every.clip_s"]) for point in draws(search)}
    assert points == {("sed", 5.0), ("sed", 7.0), ("cnn", 5.0)}
    assert len(list(search.points())) == 3
    assert "stage pretrain_ce: clip_s % 5 == 0 must hold" in search.problem(
        search.recipes[0], {"model.head": "cnn", "every.clip_s": 7.0}
    )


# Conditions.


def test_a_parameter_is_in_a_point_only_where_its_condition_holds():
    search = search_of(CONDITIONAL)
    recipe = search.recipes[0]
    for point in draws(search):
        mixed = point["train.mixing.spectrogram_prob"] > 0
        assert ("train.mixing.spectrogram_beta" in point) == mixed
        assert ("finetune.mixing.spectrogram_beta" in point) == (mixed and point["train.mixing.spectrogram_beta"] > 2)
    assert {len(point) for point in draws(search)} == {1, 2, 3}
    assert search.is_active(recipe, "train.mixing.spectrogram_beta", {"train.mixing.spectrogram_prob": 0.5})
    assert not search.is_active(recipe, "train.mixing.spectrogram_beta", {"train.mixing.spectrogram_prob": 0.0})


def test_an_inactive_parameter_has_the_recipes_own_value_even_if_one_is_given():
    search = search_of(CONDITIONAL)
    recipe = search.recipes[0]
    without = search.stages(recipe, {"train.mixing.spectrogram_prob": 0.0})
    assert search.stages(recipe, {"train.mixing.spectrogram_prob": 0.0, "train.mixing.spectrogram_beta": 3.5}) == without
    assert without[2].mixing.spectrogram_beta == recipe.stages[2].mixing.spectrogram_beta
    active = search.stages(recipe, {"train.mixing.spectrogram_prob": 0.5, "train.mixing.spectrogram_beta": 3.5})
    assert active[2].mixing.spectrogram_beta == 3.5


def test_a_condition_on_what_is_not_sampled_reads_the_recipe():
    space = {
        "train.mixing.wave_prob": Range(0.0, 1.0, when="recipe == 'sed_v2s'"),
        "train.weight_decay": Range(0.0, 0.1, when="train.clip_s >= 15"),
        "finetune.weight_decay": Range(0.0, 0.1, when="pretrain.clip_s > 1"),
    }
    search = search_of(space, recipes=(sed_v2s(), cnn_v2s(), cnn_b0ns()))
    sampled = [set(search.sampled_space(recipe)) for recipe in search.recipes]
    assert sampled == [
        {"train.mixing.wave_prob", "finetune.weight_decay"},
        {"train.weight_decay", "finetune.weight_decay"},
        {"train.weight_decay"},
    ], "cnn_b0ns has neither a pretraining nor a finetune stage"


def test_conditions_work_within_a_pool_and_on_its_variants_and_not_out_of_it():
    space = {
        "pretrain.mixing.wave_prob": Choice((0.0, 0.5)),
        "pretrain.mixing.wave_double_prob": Range(0.0, 0.9, when="pretrain.mixing.wave_prob > 0"),
        "train.mixing.wave_prob": Range(0.0, 1.0, when="pretrain.mixing.wave_prob == 0"),
    }
    search = search_of(space, pools={"pretrain": 12})
    recipe = search.recipes[0]
    own = recipe.stages[0].mixing.wave_double_prob
    seen = set()
    for number in range(12):
        mixing = search.stages(recipe, {"pretrain.variant": number})[0].mixing
        assert (mixing.wave_double_prob == own) == (number == 0 or mixing.wave_prob == 0)
        seen.add(search.is_active(recipe, "train.mixing.wave_prob", {"pretrain.variant": number}))
        assert search.is_active(recipe, "train.mixing.wave_prob", {"pretrain.variant": number}) == (mixing.wave_prob == 0)
    assert seen == {True, False}
    crossing = {**space, "pretrain.clip_s": Choice((5.0, 10.0), when="train.clip_s > 5"), "train.clip_s": Choice((5.0, 10.0))}
    with pytest.raises(InputError, match=r"condition of a parameter of a pool .*'pretrain\.clip_s' depends on 'train\.clip_s'"):
        search_of(crossing, pools={"pretrain": 2}).sampled_space(recipe)


def test_conditions_in_a_circle_are_refused():
    space = {
        "train.weight_decay": Range(0.0, 0.1, when="finetune.weight_decay > 0.05"),
        "finetune.weight_decay": Range(0.0, 0.1, when="train.weight_decay > 0.05"),
    }
    with pytest.raises(InputError, match=r"in a circle, but those of 'train\.weight_decay', 'finetune\.weight_decay' do"):
        search_of(space).sampled_space(sed_v2s())
    with pytest.raises(InputError, match="in a circle"):
        search_of({"train.weight_decay": Range(0.0, 0.1, when="train.weight_decay > 0")}).sampled_space(sed_v2s())


def test_an_earlier_trial_is_a_point_if_its_active_parameters_are_there():
    search = search_of(CONDITIONAL, constraints=("train.mixing.spectrogram_beta < 3",))
    mixed = {"train.mixing.spectrogram_prob": 0.5, "train.mixing.spectrogram_beta": 1.5}
    plain = {"train.mixing.spectrogram_prob": 0.0}
    assert search.point_of("sed_v2s", mixed) == mixed
    assert search.point_of("sed_v2s", {**plain, "train.mixing.spectrogram_beta": 9.0}) == plain
    assert search.point_of("sed_v2s", {"train.mixing.spectrogram_prob": 0.5}) is None
    assert search.point_of("sed_v2s", {**mixed, "train.mixing.spectrogram_beta": 9.0}) is None
    assert search.point_of("sed_v2s", {**mixed, "train.mixing.spectrogram_beta": 3.5}) is None, "a constraint"
    assert search.point_of("other", mixed) is None


# Constraints.


def test_no_draw_breaks_a_constraint():
    search = search_of(
        {"train_ce.clip_s": Range(5.0, 15.0), "train_bce.clip_s": Range(5.0, 15.0)},
        constraints=("train_bce.clip_s >= train_ce.clip_s", "train_ce.clip_s + train_bce.clip_s < 20"),
    )
    recipe = search.recipes[0]
    for point in (search.baseline(recipe), *draws(search)):
        assert point["train_ce.clip_s"] <= point["train_bce.clip_s"] < 20 - point["train_ce.clip_s"]
        assert not search.problem(recipe, point)
    assert search.problem(recipe, {"train_ce.clip_s": 9.0, "train_bce.clip_s": 6.0}) == (
        "train_bce.clip_s >= train_ce.clip_s must hold, but got train_bce.clip_s=6.0, train_ce.clip_s=9.0."
    )


def test_a_constraint_reads_the_recipe_where_nothing_is_sampled_and_passes_over_what_it_lacks():
    constraint = ("train.clip_s <= 2 * pretrain.clip_s",)
    search = search_of({"train.clip_s": Choice((10.0, 20.0, 30.0))}, recipes=(sed_v2s(), cnn_b0ns()), constraints=constraint)
    assert {params["train.clip_s"] for name, params in search.points() if name == "sed_v2s"} == {10.0, 20.0}
    assert {params["train.clip_s"] for name, params in search.points() if name == "cnn_b0ns"} == {10.0, 20.0, 30.0}


def test_the_baseline_is_the_nearest_point_that_is_allowed():
    space = {"train_ce.clip_s": Range(5.0, 15.0), "train_ce.learning_rate": Range(1e-4, 1e-3, log=True)}
    search = search_of(space, constraints=("train_ce.clip_s > 12",))
    recipe = search.recipes[0]
    baseline = search.baseline(recipe)
    assert recipe.stages[2].clip_s == 10.0 and 12 < baseline["train_ce.clip_s"] < 13
    assert baseline == search.baseline(recipe)
    assert search_of(space).baseline(recipe) == {"train_ce.clip_s": 10.0, "train_ce.learning_rate": 3e-4}


def test_variants_meet_the_constraints_of_their_pool():
    space = {"pretrain_ce.clip_s": Range(5.0, 15.0), "pretrain_bce.clip_s": Range(5.0, 15.0), "train.clip_s": Range(5.0, 15.0)}
    free, search = (
        search_of(space, pools={"pretrain": 9}, constraints=constraints)
        for constraints in ((), ("pretrain_bce.clip_s > pretrain_ce.clip_s", "train.clip_s > 14"))
    )
    recipe = search.recipes[0]
    clips = [
        [stage.clip_s for stage in item.stages(recipe, {"pretrain.variant": number})[:2]]
        for item in (free, search)
        for number in range(1, 9)
    ]
    before, now = clips[:8], clips[8:]
    assert all(first < second for first, second in now)
    kept = [a for a, b in zip(before, now, strict=True) if a == b]
    assert kept == [clip for clip in before if clip[0] < clip[1]], "variants that meet it stay what they were"
    never = search_of(space, pools={"pretrain": 2}, constraints=("pretrain.clip_s > 20",))
    with pytest.raises(InputError, match=r"draws for variant 1 of pool 'pretrain' .*pretrain\.clip_s > 20 must hold"):
        never.stages(recipe, {"pretrain.variant": 1})


def test_constraints_that_leave_nothing_are_refused():
    search = search_of({"train.clip_s": Range(5.0, 15.0)}, constraints=("train.clip_s > 20",))
    with pytest.raises(InputError, match=r"None of 1000 random draws for recipe 'sed_v2s' .*train\.clip_s > 20 must hold"):
        search.draw(search.recipes[0], random.Random(0))


# Names that meet, and noise.


def test_of_two_names_of_a_setting_the_narrower_one_counts():
    wide, narrow = {"every.weight_decay": Range(0.0, 0.1)}, {"train_ce.weight_decay": Range(0.2, 0.3)}
    params = {"every.weight_decay": 0.05, "train_ce.weight_decay": 0.25}
    for space in (wide | narrow, narrow | wide):
        stages = search_of(space).stages(sed_v2s(), dict(sorted(params.items(), reverse=space == wide | narrow)))
        assert [stage.weight_decay for stage in stages] == [0.05, 0.05, 0.25, 0.05, 0.05]


def test_noise_is_searched_by_number_by_source_and_for_all_groups():
    recipe = sed_b3ns()
    source = recipe.stages[0].noise[2].source
    space = {
        "train.noise.*.snr_db_min": Range(0.0, 2.0),
        "train.noise.0.prob": Range(0.0, 1.0),
        f"train.noise.{source}.prob": Range(0.0, 1.0),
    }
    search = search_of(space, recipes=(recipe, sed_v2s(), cnn_b0ns()))
    stage = search.stages(recipe, dict(zip(space, (1.5, 0.125, 0.875), strict=True)))[2]
    own = recipe.stages[2].noise
    assert [group.prob for group in stage.noise] == [0.125, own[1].prob, 0.875]
    assert [group.snr_db_min for group in stage.noise] == [1.5, 1.5, 1.5]
    assert search.first_stage(recipe, "train.noise.0.prob") == 2
    assert len(search.sampled_space(sed_v2s())) == 3
    assert len(search.sampled_space(cnn_b0ns())) == 2, "its only group has another source"
    assert search.baseline(recipe)["train.noise.0.prob"] == own[0].prob


# Where a parameter matters.


def test_a_parameter_on_which_others_depend_matters_as_early_as_they_do():
    space = {
        "finetune.learning_rate": Range(1e-4, 1e-3),
        "train_ce.weight_decay": Range(0.0, 0.1, when="finetune.learning_rate > 5e-4"),
        "train_bce.weight_decay": Range(0.0, 0.1, when="train_ce.weight_decay > 0.05"),
    }
    search = search_of(space)
    recipe = search.recipes[0]
    assert [search.first_stage(recipe, key) for key in space] == [2, 2, 3]
    changes = [{"finetune.learning_rate": 4e-4}, {"finetune.learning_rate": 6e-4, "train_ce.weight_decay": 0.01}]
    differing = [a == b for a, b in zip(*(search.stages(recipe, params) for params in changes), strict=True)]
    assert differing == [True, True, False, True, False]


def test_a_wide_name_matters_where_no_narrower_one_stands_for_the_setting():
    space = {
        "every.weight_decay": Range(0.0, 0.1),
        "pretrain.weight_decay": Range(0.0, 0.1),
        "train_ce.weight_decay": Range(0.0, 0.1),
    }
    search = search_of(space)
    assert [search.first_stage(sed_v2s(), key) for key in space] == [3, 0, 2]
    shadowed = search_of(
        {"train.weight_decay": Range(0.0, 0.1), **{f"{name}.weight_decay": Range(0.0, 0.1) for name in ("train_ce", "train_bce")}}
    )
    with pytest.raises(InputError, match=r"'train\.weight_decay' never counts for recipe 'sed_v2s'"):
        shadowed.first_stage(sed_v2s(), "train.weight_decay")


@pytest.mark.parametrize("pools", [{}, {"pretrain": 3}, {"pretrain_ce": 2, "model": 2}])
def test_stages_before_the_first_in_which_a_parameter_matters_are_the_same_for_all_its_values(pools):
    space = {
        "model.drop_rate": Range(0.1, 0.5),
        "pretrain_bce.clip_s": Choice((5.0, 10.0)),
        "pretrain_ce.epochs": Range(2, 9),
        "pretrain.mixing.wave_prob": Range(0.0, 1.0),
        "train.clip_s": Choice((5.0, 10.0)),
        "train.noise.*.prob": Range(0.0, 1.0, when="train.clip_s > 5"),
        "finetune.learning_rate": Range(1e-4, 1e-3),
        "every.weight_decay": Range(0.0, 0.1),
    }
    search = search_of(space, recipes=(sed_v2s(), cnn_b0ns()), pools=pools)
    chains = make_chain_builder(search)
    generator = random.Random(1)
    for recipe in search.recipes:
        names = [stage.name for stage in recipe.stages]
        for key, parameter in search.sampled_space(recipe).items():
            first, changed = search.first_stage(recipe, key), set()
            for _ in range(40):
                point = search.draw(recipe, generator)
                values = parameter.finite() or (parameter.low, parameter.high)
                for a, b in itertools.pairwise({**point, key: value} for value in values[:4]):
                    pair = [
                        chains.chain(recipe.name, search.point_of(recipe.name, {**point, **item}) or point) for item in (a, b)
                    ]
                    ids = [(x.stage_id, y.stage_id) for x, y in zip(*pair, strict=True)]
                    changed |= {index for index, (x, y) in enumerate(ids) if x != y}
            assert not changed or min(changed) == first, (key, names)


# What goes with a search.


def test_a_search_comes_back_from_a_record_and_from_a_worker_with_all_its_kinds():
    space = {
        **CONDITIONAL,
        "model.encoder": Choice(("a", "b")),
        "train_ce.epochs": Range(2, 10, step=2),
        "train.noise.*.prob": Range(0.0, 1.0, step=0.1),
    }
    search = search_of(space, constraints=("train_ce.epochs > 2",))
    search.sampled_space(search.recipes[0])
    assert from_json(Search, to_json(search), file="search") == search
    again = pickle.loads(pickle.dumps(search))
    assert again == search and again.baseline(again.recipes[0]) == search.baseline(search.recipes[0])


def test_what_a_trial_is_shown_with_are_its_active_parameters_and_those_of_its_variants():
    space = {
        **CONDITIONAL,
        "pretrain.clip_s": Choice((5.0, 10.0)),
        "model.drop_rate": Range(0.1, 0.5),
        "train.micro_batch_size": Choice((None, 8)),
    }
    search = search_of(space, pools={"pretrain": 4})
    recipe = search.recipes[0]
    params = {"pretrain.variant": 1, "train.mixing.spectrogram_prob": 0.0, "model.drop_rate": 0.3, "train.micro_batch_size": None}
    trained = replace(recipe, model=search.model(recipe, params), stages=search.stages(recipe, params))
    shown = parameters_of(trained, search.space)
    clip_s = search.stages(recipe, params)[0].clip_s
    assert shown == {"train.mixing.spectrogram_prob": 0.0, "pretrain.clip_s": clip_s, "model.drop_rate": 0.3}
    mixed = replace(
        trained,
        stages=tuple(evolve(stage, {"mixing.spectrogram_prob": 0.5, "mixing.spectrogram_beta": 1.5}) for stage in trained.stages),
    )
    assert parameters_of(mixed, search.space)["train.mixing.spectrogram_beta"] == 1.5
    assert "finetune.mixing.spectrogram_beta" not in parameters_of(mixed, search.space)


def test_every_point_of_a_finite_space_is_there_once():
    space = {
        "train_ce.epochs": Range(2, 6, step=2),
        "train.mixing.spectrogram_prob": Choice((0.0, 0.5)),
        "train.mixing.spectrogram_beta": Range(1.0, 2.0, step=0.5, when=MIXED),
        "pretrain.clip_s": Choice((5.0, 10.0)),
    }
    search = search_of(space, pools={"pretrain": 2}, constraints=("train_ce.epochs < 6 or train.mixing.spectrogram_prob > 0",))
    points = [params for _, params in search.points()]
    # Two variants, and 3 numbers of epochs times 3 betas with mixing and 2 numbers of epochs without.
    assert len(points) == len({str(point) for point in points}) == 2 * (3 * 3 + 2)
    assert search_of({**space, "train.clip_s": Range(5.0, 6.0)}).points() is None
