"""A draw's figure is the metric of the recordings in it; intervals are as wide as luck is."""

import numpy as np
import pytest

from birdclef_core.evaluation.bootstrap import cmap_errors, draw_weights, interval_95, weighted_cmaps
from birdclef_core.evaluation.metrics import cmap, padded_cmap


def make_case(num_recordings: int, num_species: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth_RC = np.zeros((num_recordings, num_species), np.uint8)
    truth_RC[np.arange(num_recordings), rng.integers(num_species, size=num_recordings)] = 1
    return truth_RC, 1 / (1 + np.exp(-(rng.normal(-2, 1.5, truth_RC.shape) + 2 * truth_RC)))


@pytest.mark.parametrize("chunk", [10**6, 7], ids=["at once", "in parts"])
def test_each_draw_is_the_metric_of_its_recordings(monkeypatch, chunk):
    monkeypatch.setattr("birdclef_core.evaluation.bootstrap._CHUNK", chunk)
    truth, score = make_case(40, 6)
    score = np.round(score, 1)  # ties
    score[3, 2] = score[4, 2] = 1.0  # as certain as the rows that the padding appends
    truth[4, 2] = 1
    weight = draw_weights(40, 25, seed=1)
    figures = weighted_cmaps(truth, score, weight)
    for draw in range(25):
        rows = np.repeat(np.arange(40), weight[:, draw].astype(int))
        assert len(rows) == 40
        assert figures["cmap"][draw] == pytest.approx(cmap(truth[rows], score[rows]), rel=1e-5)
        assert figures["cmap_pad5"][draw] == pytest.approx(padded_cmap(truth[rows], score[rows], 5), rel=1e-5)


def test_the_error_shrinks_with_the_root_of_the_recordings():
    few, many = make_case(100, 5), make_case(1600, 5)
    assert 2 < cmap_errors(*few, seed=0)["cmap"] / cmap_errors(*many, seed=0)["cmap"] < 8


def test_the_error_is_what_other_validation_sets_would_show():
    figures = [cmap(*make_case(400, 5, seed)) for seed in range(150)]
    errors = [cmap_errors(*make_case(400, 5, seed), seed=seed)["cmap"] for seed in range(10)]
    assert np.mean(errors) == pytest.approx(np.std(figures), rel=0.25)


def test_the_same_seed_gives_the_same_error():
    case = make_case(60, 4)
    assert cmap_errors(*case, seed=3) == cmap_errors(*case, seed=3)
    assert cmap_errors(*case, seed=3) != cmap_errors(*case, seed=4)


def test_species_without_recordings_and_perfect_scores():
    truth, _ = make_case(30, 4)
    truth[:, 2] = 0
    assert cmap_errors(truth, truth.astype(float), seed=0)["cmap_pad5"] == 0


def test_the_interval_lies_around_the_figure_within_0_and_1():
    assert interval_95(0.5, 0.1) == pytest.approx((0.304, 0.696))
    assert interval_95(0.99, 0.1) == pytest.approx((0.794, 1.0))
