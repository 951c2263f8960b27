"""Search files: those that come with the project, files of one's own, settings by hand."""

import pytest

from birdclef_core.errors import InputError
from birdclef_core.recipes import RECIPES, cnn_b0ns, sed_b3ns, sed_v2s, small_budget
from sweeps.search.parameters import Choice, Range
from sweeps.search.search_files import load_search, override
from sweeps.search.space import Search

SPACE = {
    "pretrain_ce.learning_rate": Range(1e-4, 1e-3, log=True),
    "train_ce.learning_rate": Range(1e-4, 1e-3, log=True),
    "train.clip_s": Choice((5.0, 10.0)),
    "train.noise.*.prob": Range(0.0, 1.0),
    "model.drop_path_rate": Range(0.0, 0.3),
}


def make(**changes) -> Search:
    return Search(**{"name": "x", "recipes": (sed_v2s(), cnn_b0ns()), "space": SPACE, **changes})


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
    with pytest.raises(InputError, match=r"no search 'sad'; those that exist: all, cnn, heads, noisy_student, sed"):
        load_search("sad")


def test_a_file_of_ones_own_works_the_same(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        "from birdclef_core.recipes import sed_v2s\nfrom sweeps.search import Range, Search\n"
        "SEARCH = Search(name='own', recipes=(sed_v2s(),), space={'train_ce.learning_rate': Range(1e-4, 1e-3)})\n"
    )
    assert load_search(str(path)).name == "own"


@pytest.mark.parametrize(("text", "message"), [("1/0", "ZeroDivisionError"), ("SEARCH = 3", "SEARCH is int"), ("", "has none")])
def test_a_bad_file_of_ones_own_says_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "own.py"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_search(str(path))


def test_an_error_in_a_file_of_ones_own_names_its_line(tmp_path):
    path = tmp_path / "own.py"
    path.write_text("import math\n\nSEARCH = math.sqrt(-1)\n")
    with pytest.raises(InputError, match=r"own\.py must be importable, but raised ValueError in line 3: "):
        load_search(str(path))


def test_an_error_of_a_parameter_names_its_key(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        "from sweeps.search import Choice, Range\n\nSPACE = {\n    'train.clip_s': Range(1, 2),\n    'train.loss':\n        Choice('bce'),\n}\n"
    )
    with pytest.raises(InputError, match=r"own\.py, line 6, 'train\.loss': A Choice takes its values as a tuple"):
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
    with pytest.raises(InputError, match=r"--set epoch=2: 'every\.epoch' names no field: .*Perhaps 'every\.epochs' is meant"):
        override(make(), {"epoch": 2})
    with pytest.raises(InputError, match="no field 'clip'"):
        override(make(), {"train.clip": 2})


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"spectogram.num_mels": 64}, r"Perhaps 'model\.spectrogram\.num_mels' is meant"),
        ({"wave_prob": 0.5}, r"Perhaps 'every\.mixing\.wave_prob' is meant"),
        ({"trian.clip_s": 5.0}, r"Perhaps 'train\.clip_s' is meant"),
        ({"epochs": "many"}, r"--set epochs='many': recipe 'sed_v2s' cannot have this: .*epochs takes a int, but got 'many'"),
        ({"train_ce.mixing.wave_prob": 2}, r"--set train_ce\.mixing\.wave_prob=2: .*0 <= wave_prob <= 1 must hold"),
        ({"drop_rate": 1}, r"--set drop_rate=1: .*0 <= drop_rate < 1 must hold"),
        ({"mixing": 1}, r"'every\.mixing' must be a single field, but has fields of its own: every\.mixing\.wave_prob"),
        ({"noise": ()}, r"'every\.noise' must be a single field, .*every\.noise\.\*\.prob"),
        ({"noise.birds.prob": 0.5}, r"no recipe of search 'x' has such a setting"),
        ({"noise.7.prob": 0.5}, r"no recipe of search 'x' has such a setting"),
        ({"name": "train_ce"}, "the name of a stage cannot be set"),
        ({"train_ce.clip_s": 5.0}, r"samples 'train\.clip_s', which stands for more settings than these\. Set train\.clip_s"),
        ({"train.noise.0.prob": 0.5}, r"samples 'train\.noise\.\*\.prob', which stands for more"),
    ],
    ids=lambda value: " and ".join(value) if isinstance(value, dict) else "",
)
def test_a_wrong_setting_is_refused_with_its_key_its_value_and_the_rule(settings, rule):
    with pytest.raises(InputError, match=rule) as caught:
        override(make(), settings)
    assert str(caught.value).startswith("--set ")


def test_a_setting_for_a_stage_that_no_recipe_has_is_refused():
    with pytest.raises(InputError, match=r"--set finetune\.epochs=2: no recipe of search 'x' has such a setting"):
        override(make(recipes=(cnn_b0ns(),)), {"finetune.epochs": 2})
    assert override(make(), {"finetune.epochs": 2}).recipe("cnn_b0ns") == cnn_b0ns()


def test_a_setting_is_no_longer_sampled_whatever_its_name():
    assert "model.drop_path_rate" not in override(make(), {"drop_path_rate": 0.1}).space
    assert "model.drop_path_rate" not in override(make(), {"model.drop_path_rate": 0.1}).space
    assert "train.noise.*.prob" not in override(make(), {"noise.*.prob": 0.1}).space
    assert "train.clip_s" not in override(make(), {"every.clip_s": 5.0}).space
    small = override(make(small_space={"train.clip_s": Choice((5.0,))}), {"clip_s": 5.0})
    assert not small.small_space


def test_noise_is_set_by_number_by_source_or_for_all_groups():
    sources = [group.source for group in sed_b3ns().stages[0].noise]
    search = Search(name="x", recipes=(sed_b3ns(),), space={})

    def probs(**settings) -> list[float]:
        stages = override(search, {f"train.noise.{key}.prob": value for key, value in settings.items()}).recipes[0].stages
        return [group.prob for group in stages[2].noise]

    own = probs()
    assert len(own) == 3 and len(set(sources)) == 3
    assert probs(**{"*": 0.9}) == [0.9, 0.9, 0.9]
    assert probs(**{"1": 0.9}) == [own[0], 0.9, own[2]]
    assert probs(**{sources[2]: 0.9}) == [own[0], own[1], 0.9]
    changed = override(search, {"train_ce.noise.0.snr_db_max": 20, "noise.*.snr_db_min": 1}).recipes[0]
    assert [(group.snr_db_min, group.snr_db_max) for group in changed.stages[2].noise] == [(1.0, 20.0), (1.0, 3.0), (1.0, 3.0)]


def test_the_narrower_of_two_settings_counts_in_any_order():
    settings = {"train_ce.epochs": 5, "epochs": 2, "train.epochs": 3}
    for order in (settings, dict(reversed(settings.items()))):
        epochs = [stage.epochs for stage in override(make(), order).recipes[0].stages]
        assert epochs == [2, 2, 5, 3, 2]
