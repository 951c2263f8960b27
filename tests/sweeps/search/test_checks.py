"""Users' own search files: what is wrong with one is said before anything runs, with the parameter, the value and the rule."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from birdclef_core.config import Recipe
from birdclef_core.errors import InputError
from birdclef_core.models.encoders import RANDOM
from birdclef_core.recipes import RECIPES, predictions, sed_v2s, small_budget
from birdclef_core.taxonomy import LabelSpace
from birdclef_core.teacher_config import TeacherConfig
from sweeps.options import SweepOptions
from sweeps.run.request import plan_request
from sweeps.search import Choice, Range, Search
from sweeps.search.chains import ChainBuilder
from sweeps.search.checks import check_file, check_search, check_small_recipes
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


@pytest.mark.parametrize("name", ["sed", "cnn", "all", "heads"])
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


def one_stage(**changes) -> Recipe:
    """A small recipe of one stage."""
    recipe = small_budget(sed_v2s())
    model = replace(recipe.model, encoder="mobilenetv3_small_050")
    return replace(recipe, model=model, stages=(replace(recipe.stages[2], **changes),))


@pytest.mark.parametrize(
    ("changes", "space", "problem"),
    [
        ({"frozen_blocks": 8}, {}, "Recipe 'sed_v2s' of search 'x': frozen_blocks <= 7 must hold for stage train_ce"),
        ({}, {"train.frozen_blocks": Choice((0, 8))}, r"'train\.frozen_blocks' .* the value 8, .* frozen_blocks <= 7 must hold"),
        ({}, {"train.frozen_blocks": Range(0, 8)}, r"'train\.frozen_blocks' .* the value 8, .* frozen_blocks <= 7 must hold"),
        ({}, {"train.thaw_every": Choice((0, 3))}, r"the value 3, .* thaw_every < epochs"),
    ],
)
def test_what_an_encoder_cannot_do_is_refused_when_the_search_is_loaded(changes, space, problem):
    with pytest.raises(InputError, match=problem):
        check_search(Search(name="x", recipes=(one_stage(**changes),), space=space))


def test_what_one_of_several_encoders_cannot_do_is_drawn_again_with_another():
    space = {"train.frozen_blocks": Choice((0, 7)), "model.encoder": Choice(("mobilenetv3_small_050", "resnet18d"))}
    search = Search(name="x", recipes=(one_stage(),), space=space)
    check_search(search)
    drawn = [search.draw(search.recipes[0], random.Random(number)) for number in range(30)]
    assert {point["model.encoder"] for point in drawn if point["train.frozen_blocks"]} == {"mobilenetv3_small_050"}
    assert {point["model.encoder"] for point in drawn} == {*space["model.encoder"].values}


def heads(of: str, window_s: float = 5.0, **changes) -> Recipe:
    recipe = one_stage()
    embed = replace(predictions("embed", of=of, on="recordings", window_s=window_s), **changes)
    return replace(recipe, stages=(embed, replace(recipe.stages[0], name="head", embeddings="embed")))


def encoder_file(folder: Path) -> Path:
    """A network that takes sound of 16,000 samples and makes of it one number."""
    helper, shape = onnx.helper, ["B", 16_000]
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["sound"], ["mean"], axes=[1])],
        "tiny",
        [helper.make_tensor_value_info("sound", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("mean", onnx.TensorProto.FLOAT, ["B", 1])],
    )
    path = folder / "tiny.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.mark.parametrize(
    ("window_s", "changes", "problem"),
    [
        (1.0, {}, r"cannot take sound \(2, 32000\)"),
        (0.5, {"encoder_output": "best"}, r"encoder_output must be an output of .*tiny\.onnx \(mean\), but is 'best'"),
        (0.5, {"encoder_rate_hz": 16_000}, r"cannot take sound \(2, 8000\)"),
    ],
)
def test_an_onnx_encoder_that_cannot_hear_is_refused_when_the_search_is_loaded(tmp_path, window_s, changes, problem):
    of = f"encoder:{encoder_file(tmp_path)}"
    check_search(Search(name="x", recipes=(heads(of, 0.5),), space={}))
    with pytest.raises(InputError, match=problem):
        check_search(Search(name="x", recipes=(heads(of, window_s, **changes),), space={}))
    small = small_budget(heads(of, 0.5))
    assert small.stages[0].clip_s == 0.5, "the encoder takes no other windows"


def test_an_encoder_that_is_no_file_is_refused_when_the_search_is_loaded(tmp_path):
    with pytest.raises(
        InputError, match=r"predicts of stage embed must be encoder:timm or encoder: and a readable \.onnx file, but is 'bird'"
    ):
        check_search(Search(name="x", recipes=(heads("encoder:bird"),), space={}))
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(InputError, match=r"text\.onnx must be a network that ONNX Runtime can run"):
        check_search(Search(name="x", recipes=(heads(f"encoder:{tmp_path / 'text.onnx'}"),), space={}))
    search = Search(
        name="x", recipes=(heads("encoder:timm"),), space={"embed.predicts": Choice(("encoder:timm", "encoder:bird"))}
    )
    with pytest.raises(InputError, match=r"'embed\.predicts' .* the value 'encoder:bird'"):
        check_search(search)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"focal_gamma": 1.0}, r"focal_gamma counts only with loss='focal', but recipe 'sed_v2s' has 1\.0 in stage train_ce\."),
        ({"negative_margin": 0.1}, "negative_margin counts only with loss='asymmetric'"),
        ({"head_hidden": 64}, "head_hidden counts only in a head on embeddings, .* 64 in stage train_ce.* or set the other"),
        ({"teacher": TeacherConfig(share=0.3)}, "teacher.share counts only with teacher.predictions"),
        ({"encoder_rate_hz": 48_000}, r"encoder_rate_hz counts only with predicts='encoder:FILE\.onnx'"),
        ({"predicts_on": "recordings"}, "predicts_on counts only with predicts,"),
    ],
)
def test_a_setting_that_never_counts_is_refused(changes, problem):
    with pytest.raises(InputError, match=problem):
        check_search(Search(name="x", recipes=(one_stage(**changes),), space={}))


def test_a_setting_may_count_for_some_trials_or_in_some_stages_alone():
    loss = {"train.loss": Choice(("ce", "focal"))}
    check_search(Search(name="x", recipes=(one_stage(focal_gamma=1.0),), space=loss))
    stage = one_stage().stages[0]
    two = replace(one_stage(), stages=(replace(stage, name="first", loss="bce"), replace(stage, name="last", loss="focal")))
    check_search(override(Search(name="x", recipes=(two,), space={}), {"focal_gamma": 1.0}))
    check_search(
        Search(name="x", recipes=(heads("encoder:timm", encoder_output=""),), space={"every.head_hidden": Choice((0, 8))})
    )
    with pytest.raises(InputError, match="encoder_output counts only"):
        check_search(Search(name="x", recipes=(heads("encoder:timm", encoder_output="best"),), space={}))


@pytest.mark.parametrize(
    ("key", "parameter", "problem"),
    [
        ("train.focal_gamma", Range(0.0, 4.0), "focal_gamma counts only with loss='focal', which holds for no stage"),
        ("train.label_smoothing", Range(0.0, 0.2), "label_smoothing counts only with loss='ce'"),
        ("train.layer_decay", Range(0.5, 1.0), "layer_decay counts only without freeze_encoder"),
        ("train.mixing.spectrogram_beta", Range(1.0, 4.0), r"counts only with mixing\.spectrogram_prob above 0"),
        ("train.teacher.power", Range(1.0, 2.0), "counts only with teacher.predictions"),
        ("train.sources.birdclef2023", Range(0.1, 0.9), "the same with each of its values.* a single source always has all"),
    ],
)
def test_a_parameter_that_changes_nothing_is_refused(key, parameter, problem):
    changes = {"loss": "bce", "freeze_encoder": True, "mixing": replace(one_stage().stages[0].mixing, spectrogram_prob=0.0)}
    recipe, other = one_stage(**changes), {"train.learning_rate": Range(1e-4, 1e-3)}
    check_search(Search(name="x", recipes=(recipe,), space=other))
    with pytest.raises(InputError, match=f"Parameter '{key}' of search 'x' changes nothing: .*{problem}"):
        check_search(Search(name="x", recipes=(recipe,), space={**other, key: parameter}))


def test_a_parameter_that_counts_in_some_recipe_or_with_some_values_of_others_passes():
    of_bce, of_focal = replace(one_stage(loss="bce"), name="a"), replace(one_stage(loss="focal"), name="b")
    check_search(Search(name="x", recipes=(of_bce, of_focal), space={"train.focal_gamma": Range(0.0, 4.0)}))
    two_sources = {"train.sources.a": Range(0.1, 0.9), "train.sources.b": Range(0.1, 0.9)}
    check_search(Search(name="x", recipes=(of_bce,), space=two_sources))
    conditional = {"train.loss": Choice(("bce", "focal")), "train.focal_gamma": Range(0.0, 4.0, when="train.loss == 'focal'")}
    check_search(Search(name="x", recipes=(of_bce,), space=conditional))
    check_search(Search(name="x", recipes=(of_bce,), space={"train.sources.a": Choice((1.0,))}))


def test_what_a_head_and_its_embeddings_do_not_have_cannot_be_searched():
    recipe = heads("encoder:timm")
    with pytest.raises(InputError, match=r"'head\.mixing\.wave_prob' .* counts only in a stage that hears sound"):
        check_search(Search(name="x", recipes=(recipe,), space={"head.mixing.wave_prob": Range(0.0, 1.0)}))
    with pytest.raises(InputError, match=r"'embed\.label_space' .* the stages are the same with each of its values"):
        check_search(Search(name="x", recipes=(recipe,), space={"embed.label_space": Choice(("all", "target"))}))
    check_search(Search(name="x", recipes=(recipe,), space={"embed.clip_s": Choice((5.0, 10.0))}))


def test_a_field_that_counts_nothing_where_a_stage_predicts_is_said_as_that():
    own = sed_v2s()
    labels, student = predictions("labels", of="train_ce"), replace(own.stages[3], teacher=TeacherConfig(predictions="labels"))
    recipe = replace(own, stages=(*own.stages[:3], labels, student))
    why = r"labels trains nothing, so that of its fields only these count: predicts, predicts_on, .*clip_s"
    with pytest.raises(InputError, match=rf"names 'labels\.epochs', but {why}"):
        check_file(Search(name="x", recipes=(recipe,), space={"labels.epochs": Choice((1, 2))}))
    with pytest.raises(InputError, match=rf"--set labels\.loss='bce': {why}"):
        override(Search(name="x", recipes=(recipe,), space={}), {"labels.loss": "bce"})
