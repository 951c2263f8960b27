"""A search in a sweep's record is the search itself, runtime fields too, or it is refused."""

import json
from dataclasses import replace

import pytest

from birdclef_core.errors import InputError
from birdclef_core.recipes import cnn_b0ns, small_budget
from sweeps.search.as_json import search_as_json, search_from_json
from sweeps.search.space import Choice, Range, Search, load_search


def kept(search: Search) -> Search:
    return search_from_json(json.loads(json.dumps(search_as_json(search))))


@pytest.mark.parametrize("name", ["sed", "cnn", "all"])
def test_every_search_comes_back_whole(name):
    assert kept(load_search(name)) == load_search(name)


def test_runtime_fields_and_every_kind_of_value_come_back():
    recipe = small_budget(cnn_b0ns())
    recipe = replace(recipe, stages=tuple(replace(stage, micro_batch_size=2, evaluation_batch_size=3) for stage in recipe.stages))
    space = {
        "train_ce.ema_decay": Choice((0.0, 0.9)),
        "train_ce.precision": Choice(("tf32", "float32")),
        "every.clip_s": Range(5, 5),
    }
    search = Search(name="x", recipes=(recipe,), space=space, pools={"train": 2}, sampler="random")
    assert kept(search) == search
    assert kept(search).recipes[0].stages[0].micro_batch_size == 2


@pytest.mark.parametrize("value", [(1, 2), {3}])
def test_values_that_json_has_not_are_refused(value):
    search = Search(name="x", recipes=(cnn_b0ns(),), space={"train_ce.clip_s": Choice((value, 5.0))})
    with pytest.raises(InputError, match="values of every Choice of search 'x' must be text, numbers"):
        search_as_json(search)


def test_a_search_of_another_version_is_refused():
    values = search_as_json(load_search("sed"))
    with pytest.raises(InputError, match="one of this version of the code, but: KeyError"):
        search_from_json({key: value for key, value in values.items() if key != "pools"})
    values["recipes"][0]["stages"][0]["colour"] = "blue"
    with pytest.raises(InputError, match="StageConfig has no field colour"):
        search_from_json(values)
