"""Points become vectors in which near points are alike, and a parameter that a point does not have says nothing."""

import random
from dataclasses import replace

import numpy as np
import pytest

from birdclef_core.recipes import cnn_b0ns, sed_v2s
from sweeps.sampling.encoding import Encoding
from sweeps.search import Choice, Range, Search

SEARCH = Search(
    name="x",
    recipes=(sed_v2s(), cnn_b0ns()),
    space={
        "pretrain_ce.learning_rate": Range(1e-4, 1e-2, log=True),
        "pretrain_bce.clip_s": Choice((5.0, 20.0, 10.0)),
        "train_ce.head_transfer": Choice(("by_species", "drop")),
        "train_ce.epochs": Range(10, 40, step=10),
        "train_ce.mixing.spectrogram_prob": Choice((0.0, 0.5)),
        "train_ce.mixing.spectrogram_beta": Range(1.0, 5.0, when="train_ce.mixing.spectrogram_prob > 0"),
    },
)
ALONE = replace(SEARCH, recipes=(sed_v2s(),))


def vector(search: Search, recipe: str, **params) -> list[float]:
    encoding = Encoding(search)
    given = {key.replace("__", "."): value for key, value in params.items()}
    return encoding.vectors(recipe, encoding.places(recipe, given)[None])[0].tolist()


def test_a_number_is_its_place_a_choice_of_numbers_their_order_and_any_other_choice_has_columns():
    found = vector(
        ALONE,
        "sed_v2s",
        pretrain_ce__learning_rate=1e-3,
        pretrain_bce__clip_s=20.0,
        train_ce__head_transfer="drop",
        train_ce__epochs=10,
        train_ce__mixing__spectrogram_prob=0.5,
        train_ce__mixing__spectrogram_beta=2.0,
    )
    assert found == pytest.approx([0.5, 1.0, 0.0, 0.6, 0.125, 1.0, 0.25])


def test_recipes_have_columns_of_their_own_and_what_a_recipe_lacks_lies_in_the_middle():
    encoding = Encoding(SEARCH)
    assert encoding.groups_D == [0, 0, 1, 2, 3, 3, 4, 5, 6] and encoding.num_groups == 7
    found = vector(
        SEARCH, "cnn_b0ns", train_ce__head_transfer="drop", train_ce__epochs=40, train_ce__mixing__spectrogram_prob=0.0
    )
    assert found == pytest.approx([0.0, 0.6, 0.5, 0.5, 0.0, 0.6, 0.875, 0.0, 0.5])
    assert Encoding(ALONE).groups_D == [0, 1, 2, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("choice", "columns"),
    [(Choice((3, 1, 2)), 1), (Choice((0.1, 1)), 1), (Choice((None, 0.5)), 2), (Choice((True, False)), 2), (Choice((7,)), 1)],
    ids=lambda value: str(getattr(value, "values", value)),
)
def test_only_numbers_have_an_order(choice, columns):
    key = "train_ce.freeze_encoder" if True in choice.values[:1] else "train_ce.clips_per_epoch"
    assert len(Encoding(replace(ALONE, space={key: choice})).groups_D) == columns


def test_variants_of_a_pool_have_no_order():
    pooled = replace(ALONE, pools={"pretrain": 3})
    assert Encoding(pooled).groups_D[:4] == [0, 0, 0, 1]
    assert vector(pooled, "sed_v2s", pretrain__variant=1)[:3] == [0.0, 0.6, 0.0]


def test_a_search_without_parameters_has_only_its_recipes():
    none = replace(SEARCH, space={})
    assert vector(none, "cnn_b0ns") == [0.0, 0.6]
    assert vector(replace(none, recipes=(sed_v2s(),)), "sed_v2s") == []


def test_parameters_that_matter_later_are_left_out_of_a_stages_vector():
    encoding = Encoding(SEARCH)
    x_CD = np.arange(9.0)[None]
    assert encoding.until("sed_v2s", 0, x_CD).tolist() == [[0, 1, 2, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]]
    assert encoding.until("sed_v2s", 1, x_CD).tolist() == [[0, 1, 2, 3, 0.5, 0.5, 0.5, 0.5, 0.5]]
    assert encoding.until("sed_v2s", 2, x_CD).tolist() == x_CD.tolist()
    assert encoding.until("cnn_b0ns", 0, x_CD).tolist() == [[0, 1, 0.5, 0.5, 4, 5, 6, 7, 8]], "its first stage is train_ce"


def test_a_parameter_that_matters_earlier_has_a_longer_lag():
    encoding = Encoding(SEARCH)
    assert encoding.lags({"sed_v2s": 3}) == [0, 3, 2, 1, 1, 1, 1]
    assert encoding.lags({"sed_v2s": 2, "cnn_b0ns": 0}) == [0, 2, 1, 0, 0, 0, 0]
    assert encoding.lags({"sed_v2s": 0}) == [0] * 7, "later ones do not count"


def test_values_and_places_are_each_others_inverse_and_nothing_lies_outside():
    encoding, generator = Encoding(ALONE), random.Random(0)
    for _ in range(50):
        point = ALONE.draw(ALONE.recipes[0], generator)
        places = dict(zip(encoding.spaces["sed_v2s"], encoding.places("sed_v2s", point), strict=True))
        assert all(0 <= place <= 1 for place in places.values())
        again = {key: encoding.value("sed_v2s", key, places[key]) for key in point}
        assert again == {
            key: pytest.approx(value, rel=1e-12) if isinstance(value, float) else value for key, value in point.items()
        }
    for key in encoding.spaces["sed_v2s"]:
        assert ALONE.space[key].has(encoding.value("sed_v2s", key, 0.0)) and ALONE.space[key].has(
            encoding.value("sed_v2s", key, 1.0)
        )


def test_a_candidate_has_the_vector_of_the_trial_that_it_would_become():
    """A place within the share of a step, to the bit: by their vectors one knows whether both have the same stages."""
    encoding, generator = Encoding(ALONE), np.random.default_rng(0)
    settled_CP = encoding.settled("sed_v2s", generator.random((40, 6)))
    keys = list(encoding.spaces["sed_v2s"])
    for place_P in settled_CP:
        params = {key: encoding.value("sed_v2s", key, place) for key, place in zip(keys, place_P, strict=True)}
        again_P = encoding.places("sed_v2s", params)
        np.testing.assert_allclose(
            encoding.vectors("sed_v2s", again_P[None]), encoding.vectors("sed_v2s", place_P[None]), rtol=1e-12
        )
        assert again_P[3] == place_P[3] in (0.125, 0.375, 0.625, 0.875)
    fixed = Encoding(replace(ALONE, space={"train_ce.learning_rate": Range(1e-3, 1e-3)}))
    assert (
        fixed.settled("sed_v2s", np.array([[0.9]])).tolist()
        == [[0.5]]
        == [fixed.places("sed_v2s", {"train_ce.learning_rate": 1e-3}).tolist()]
    )
