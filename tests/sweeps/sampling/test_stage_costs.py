"""Costs are asked for by what changes them, and added up for the stages that are left."""

from dataclasses import replace

import numpy as np
import pytest
from made_up_facts import facts_of

from birdclef_core.errors import InputError
from birdclef_core.recipes import cnn_b0ns, sed_v2s
from sweeps.sampling.encoding import Encoding
from sweeps.sampling.stage_costs import ModelCosts, StageCosts, not_measured
from sweeps.search import Choice, Range, Search

SEARCH = Search(
    name="x",
    recipes=(sed_v2s(), cnn_b0ns()),
    space={
        "train_ce.epochs": Range(10, 60, step=10),
        "train_ce.learning_rate": Range(1e-4, 1e-2, log=True),
        "pretrain.clip_s": Choice((5.0, 10.0)),
    },
)
POINT = {"train_ce.epochs": 60, "train_ce.learning_rate": 1e-3, "pretrain.clip_s": 10.0}


class Asked:
    """Costs of a second for each epoch of a clip of 10 s, and which points were asked for."""

    def __init__(self, search: Search) -> None:
        self.search, self.points = search, []

    def __call__(self, recipe, params):
        self.points.append((recipe, dict(params)))
        return [stage.epochs * stage.clip_s / 10 for stage in self.search.stages(self.search.recipe(recipe), params)]


def made(search: Search = SEARCH) -> tuple[StageCosts, Asked]:
    costs, asked = StageCosts(search, Encoding(search)), Asked(search)
    costs.learn(facts_of([], stage_s=asked))
    return costs, asked


def test_the_stages_that_are_left_are_added_up():
    costs, _ = made()
    assert [costs.remaining("sed_v2s", POINT, depth) for depth in range(5)] == [230, 160, 120, 60, 30]
    assert costs.remaining("sed_v2s", {**POINT, "pretrain.clip_s": 5.0, "train_ce.epochs": 20}, 0) == 35 + 20 + 20 + 30 + 30
    assert costs.remaining("cnn_b0ns", {"train_ce.epochs": 50, "train_ce.learning_rate": 1e-3}, 0) == 100


def test_candidates_with_their_own_depths():
    costs, _ = made()
    place_CP = np.array([Encoding(SEARCH).places("sed_v2s", POINT)] * 3)
    all_C, next_C = costs.after("sed_v2s", place_CP, np.array([0, 2, 4]))
    assert all_C.tolist() == [230, 120, 30] and next_C.tolist() == [70, 60, 30]


def test_it_is_asked_once_for_what_costs_the_same_until_more_is_known():
    costs, asked = made()
    place_CP = np.random.default_rng(0).random((300, 3))
    place_CP = Encoding(SEARCH).settled("sed_v2s", place_CP)
    costs.after("sed_v2s", place_CP, np.zeros(300, dtype=int))
    assert len(asked.points) == len({(params["train_ce.epochs"], params["pretrain.clip_s"]) for _, params in asked.points}) == 12
    costs.learn(facts_of([], stage_s=lambda recipe, params: [1.0] * 5))
    assert costs.remaining("sed_v2s", POINT, 0) == 5


def test_a_range_without_steps_is_asked_for_at_a_few_places():
    search = replace(SEARCH, recipes=(sed_v2s(),), space={"train_ce.clip_s": Range(5.0, 13.0)})
    costs, asked = made(search)
    all_C, _ = costs.after("sed_v2s", np.linspace(0, 1, 500)[:, None], np.full(500, 2))
    assert len(asked.points) == 16 and (np.diff(all_C) >= 0).all()
    assert all_C[0] == pytest.approx(60 * 0.525 + 60) and all_C[-1] == pytest.approx(60 * 1.275 + 60)


@pytest.mark.parametrize(
    ("key", "parameter", "counts"),
    [
        ("train_ce.batch_size", Choice((16, 32)), True),
        ("train_ce.precision", Choice(("fp32", "bf16")), True),
        ("finetune.freeze_encoder", Choice((True, False)), True),
        ("train.frozen_blocks", Choice((0, 2)), True),
        ("train.thaw_every", Choice((0, 2)), True),
        ("train.optimizer", Choice(("adam", "adamw")), False),
        ("model.encoder", Choice(("resnet18d.ra2_in1k", "resnet34d.ra2_in1k")), True),
        ("model.spectrogram.num_mels", Choice((64, 128)), True),
        ("model.spectrogram.f_min_hz", Range(0.0, 100.0), False),
        ("model.drop_path_rate", Choice((0.1, 0.2)), False),
        ("train.mixing.wave_prob", Range(0.0, 1.0), False),
    ],
)
def test_which_parameters_change_what_a_stage_costs(key, parameter, counts):
    costs, _ = made(replace(SEARCH, recipes=(sed_v2s(),), space={key: parameter}))
    assert costs.keys == {"sed_v2s": [key] if counts else []}


def test_variants_and_inactive_parameters_count_by_what_they_make():
    search = replace(
        SEARCH,
        recipes=(sed_v2s(),),
        space={"pretrain_ce.epochs": Choice((35, 70)), "train_ce.epochs": Range(10, 60, step=10, when="train_ce.clip_s > 99")},
        pools={"pretrain": 4},
    )
    costs, _ = made(search)
    for variant in range(4):
        epochs = search.stages(search.recipes[0], {"pretrain.variant": variant})[0].epochs
        assert costs.remaining("sed_v2s", {"pretrain.variant": variant}, 0) == epochs + 40 + 60 + 30 + 30


def test_values_that_break_a_rule_together_end_nothing():
    """Candidates are rated before it is asked whether they are allowed."""
    space = {
        "train_ce.epochs": Choice((20, 60)),
        "model.spectrogram.f_min_hz": Choice((0.0, 9000.0)),
        "model.spectrogram.f_max_hz": Choice((8000.0, 16000.0)),
    }
    search = replace(SEARCH, recipes=(sed_v2s(),), space=space)
    params = {"train_ce.epochs": 20, "model.spectrogram.f_min_hz": 9000.0, "model.spectrogram.f_max_hz": 8000.0}
    costs, asked = made(search)
    with pytest.raises(InputError):
        asked("sed_v2s", params)
    assert costs.remaining("sed_v2s", params, 0) == 230


def test_models_are_measured_once_for_each_encoder_and_others_follow_from_the_size_of_the_spectrogram():
    asked = []

    def cpu_seconds(model) -> float:
        asked.append(model)
        return 10.0 if model.encoder == "resnet18d.ra2_in1k" else 40.0

    space = {
        "model.encoder": Choice((sed_v2s().model.encoder, "resnet18d.ra2_in1k")),
        "model.spectrogram.num_mels": Range(64, 256),
        "model.drop_path_rate": Range(0.0, 0.5),
    }
    search = Search(name="x", recipes=(sed_v2s(),), space=space)
    encoding = Encoding(search)
    costs = ModelCosts(search, encoding, cpu_seconds)
    assert costs.keys == {"sed_v2s": ["model.encoder", "model.spectrogram.num_mels"]}

    def of(encoder: str, num_mels: int) -> float:
        point = {"model.encoder": encoder, "model.spectrogram.num_mels": num_mels}
        return costs.of("sed_v2s", encoding.places("sed_v2s", point)[None])[0]

    own = sed_v2s().model.spectrogram.num_mels
    assert of("resnet18d.ra2_in1k", 2 * own) == pytest.approx(20.0, rel=0.05)
    assert of("resnet18d.ra2_in1k", own // 2) == pytest.approx(5.0, rel=0.1)
    assert of(sed_v2s().model.encoder, own) == pytest.approx(40.0, rel=0.05)
    costs.of("sed_v2s", np.random.default_rng(0).random((200, 3)))
    measured = {(model.encoder, model.spectrogram) for model in asked}
    assert measured == {(encoder, sed_v2s().model.spectrogram) for encoder in space["model.encoder"].values}


def test_cpu_seconds_that_nobody_gives_are_no_number():
    encoding = Encoding(SEARCH)
    costs = ModelCosts(SEARCH, encoding, not_measured)
    with pytest.raises(ValueError, match="cpu_seconds must be given"):
        costs.of("sed_v2s", encoding.places("sed_v2s", POINT)[None])
