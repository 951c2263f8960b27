"""Users' own search files: what is wrong with one is said before anything runs, with the parameter, the value and the rule."""

from dataclasses import replace

import numpy as np
import pytest

from birdclef_core.errors import InputError
from birdclef_core.models.encoders import RANDOM
from birdclef_core.recipes import RECIPES, sed_v2s, small_budget
from birdclef_core.taxonomy import LabelSpace
from sweeps.cli.tune import tune_main
from sweeps.options import SweepOptions
from sweeps.run.request import plan_request
from sweeps.search import Choice, Range, Search
from sweeps.search.chains import ChainBuilder
from sweeps.search.checks import check_search, check_small_recipes
from sweeps.search.space import load_search, override

HEAD = """
from dataclasses import replace

from birdclef_core.recipes import RECIPES, sed_v2s, small_budget
from sweeps.search import Choice, Range, Search

R = small_budget(sed_v2s())
C = small_budget(RECIPES["cnn_v2s"]())
"""

MALFORMED = {
    "no recipes": ("Search(name='x', recipes=(), space={})", "at least one recipe"),
    "one recipe that is no tuple": ("Search(name='x', recipes=R, space={})", r"must be a tuple .* but is Recipe"),
    "a function that was not called": ("Search(name='x', recipes=(sed_v2s,), space={})", r"call it, sed_v2s\(\)"),
    "the name of a recipe": ("Search(name='x', recipes=('sed_v2s',), space={})", r"must be a Recipe, but one is 'sed_v2s'"),
    "a recipe twice": ("Search(name='x', recipes=(R, R), space={})", r"different names, but sed_v2s is there more than once"),
    "a space that is no dict": ("Search(name='x', recipes=(R,), space=[1])", r"space of search 'x' must be a dict"),
    "a plain list": ("Search(name='x', recipes=(R,), space={'train_ce.clip_s': [3.0, 4.0]})", r"must be a Choice or a Range"),
    "a plain value": ("Search(name='x', recipes=(R,), space={'train_ce.clip_s': 3.0})", r"train_ce\.clip_s.*must be a Choice"),
    "a choice of nothing": ("Search(name='x', recipes=(R,), space={'train_ce.clip_s': Choice(())})", r"got Choice\(\(\)\)"),
    "a choice of a string": ("Search(name='x', recipes=(R,), space={'train_ce.loss': Choice('bce')})", r"got Choice\('bce'\)"),
    "a choice of one value": ("Search(name='x', recipes=(R,), space={'train_ce.clip_s': Choice(3.0)})", r"got Choice\(3\.0\)"),
    "an infinite range": ("Search(name='x', recipes=(R,), space={'train.clip_s': Range(1, float('inf'))})", "must be finite"),
    "a range from NaN": ("Search(name='x', recipes=(R,), space={'train.clip_s': Range(float('nan'), 1)})", "must be finite"),
    "a range of text": ("Search(name='x', recipes=(R,), space={'train.clip_s': Range('1', '2')})", r"must be numbers, .*low='1'"),
    "a range backwards": ("Search(name='x', recipes=(R,), space={'train.clip_s': Range(2, 1)})", "low <= high"),
    "a logarithm of zero": ("Search(name='x', recipes=(R,), space={'train.learning_rate': Range(0, 1, log=True)})", "low > 0"),
    "an unknown group": ("Search(name='x', recipes=(R,), space={'trian.clip_s': Range(3, 4)})", r"'trian\.clip_s'.*groups: "),
    "no group": ("Search(name='x', recipes=(R,), space={'clip_s': Range(3, 4)})", r"must be named <group>\.<field>"),
    "a key that is no text": ("Search(name='x', recipes=(R,), space={3: Range(3, 4)})", r"Parameter 3 .* must be named"),
    "a pool of 2.5": (
        "Search(name='x', recipes=(R,), space={}, pools={'pretrain_ce': 2.5})",
        r"whole number .*'pretrain_ce': 2\.5",
    ),
    "a pool of none": ("Search(name='x', recipes=(R,), space={}, pools={'pretrain': 0})", "at least 1"),
    "a pool of true": ("Search(name='x', recipes=(R,), space={}, pools={'pretrain': True})", "whole number"),
    "an unknown pool": ("Search(name='x', recipes=(R,), space={}, pools={'early': 2})", "'early': 2"),
    "a pool without parameters": ("Search(name='x', recipes=(R,), space={}, pools={'pretrain': 2})", "must have parameters"),
    "an unknown sampler": ("Search(name='x', recipes=(R,), space={}, sampler='grid')", "sampler must be one of"),
    "an unknown field": (
        "Search(name='x', recipes=(R,), space={'train.clip_seconds': Range(3, 4)})",
        r"Perhaps 'clip_s' is meant",
    ),
    "an unknown nested field": (
        "Search(name='x', recipes=(R,), space={'train_ce.mixing.wav': Range(.1, .2)})",
        r"mixing has no field 'wav'\. Perhaps 'wave_prob' is meant",
    ),
    "a field of another place": (
        "Search(name='x', recipes=(R,), space={'train.wave_prob': Range(0, 1)})",
        r"'mixing\.wave_prob' is meant",
    ),
    "fields inside a number": (
        "Search(name='x', recipes=(R,), space={'train.clip_s.x': Range(0, 1)})",
        "clip_s has no field 'x'",
    ),
    "a group of fields": ("Search(name='x', recipes=(R,), space={'train.mixing': Choice((1,))})", "has fields of its own"),
    "a field of noise": ("Search(name='x', recipes=(R,), space={'train.noise.prob': Range(0, 1)})", "noise has no field 'prob'"),
    "a choice of the wrong type": (
        "Search(name='x', recipes=(R,), space={'train_ce.epochs': Choice(('one',))})",
        r"epochs takes a int.*'one'",
    ),
    "a range between numbers that are not whole": (
        "Search(name='x', recipes=(R,), space={'train_ce.epochs': Range(1.5, 3)})",
        r"'train_ce\.epochs' of search 'x' takes whole numbers, .*low=1\.5",
    ),
    "a probability above one": (
        "Search(name='x', recipes=(R,), space={'train_bce.mixing.wave_prob': Range(0.0, 1.3)})",
        r"wave_prob.* can take the value 1\.3, which recipe 'sed_v2s' cannot: 0 <= wave_prob <= 1",
    ),
    "a negative learning rate": ("Search(name='x', recipes=(R,), space={'train.learning_rate': Range(-1.0, 1.0)})", r"-1\.0"),
    "a clip of no length": ("Search(name='x', recipes=(R,), space={'train.clip_s': Choice((5.0, 0.0))})", r"value 0\.0"),
    "the name of a stage": (
        "Search(name='x', recipes=(R,), space={'train_ce.name': Choice(('train_ce', 'train_bce'))})",
        "must be a setting",
    ),
    "another label space at the end": (
        "Search(name='x', recipes=(R,), space={'finetune.label_space': Choice(('all', 'target'))})",
        r"must be 'target' in the last stage, .* but can be 'all'",
    ),
    "a recipe with clips that its model cannot take": (
        "Search(name='x', recipes=(replace(C, stages=tuple(replace(s, clip_s=7.0) for s in C.stages)),), space={})",
        r"Stage pretrain_ce of recipe 'cnn_v2s'.*7",
    ),
    "an unknown loss": ("Search(name='x', recipes=(R,), space={'train.loss': Choice(('bce', 'focal'))})", "focal"),
    "a chain that ends in pretraining": (
        "Search(name='x', recipes=(replace(R, stages=R.stages[:2]),), space={})",
        r"ends with pretrain_bce, whose label_space is 'all'",
    ),
    "no search": ("3", "must define SEARCH"),
    "a missing name": ("Search(recipes=(R,), space={})", "TypeError"),
    "an error": ("1 / 0", "ZeroDivisionError"),
    "an exit": ("exit(7)", "SystemExit"),
    "an unknown import": ("__import__('no_such_module')", "ModuleNotFoundError"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_search_file_is_refused_with_its_rule(case, tmp_path, monkeypatch, capsys):
    """On the command line: exit code 2 and one message, and nothing is written."""
    text, rule = MALFORMED[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(f"{HEAD}\nSEARCH = {text}\n")
    with pytest.raises(InputError, match=rule):
        plan_request(SweepOptions(search="own.py")).check_search()
    assert tune_main(["--search", "own.py", "--plan"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and "Traceback" not in error
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["own.py"]


def test_a_syntax_error_names_the_file(tmp_path):
    (tmp_path / "own.py").write_text("SEARCH = (")
    with pytest.raises(InputError, match=r"own\.py must be importable, but raised SyntaxError"):
        load_search(str(tmp_path / "own.py"))


@pytest.mark.parametrize("name", ["sed", "cnn", "all"])
@pytest.mark.parametrize("budget", ["small", "full"])
def test_the_searches_that_come_with_the_project_pass(name, budget):
    plan_request(SweepOptions(search=name, budget=budget)).check_search()


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
        {"train.noise": Choice(([],))},
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
