"""Metrics equal scikit-learn's, whatever the ties and however empty the truth, and the reference numbers.

Shapes: R recordings, C species.
"""

import itertools
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score, roc_auc_score

from birdclef_core.errors import InputError
from birdclef_core.evaluation.metrics import auroc, chance_cmap, cmap, lrap, padded_cmap, per_class_ap, summarise

GOLDEN = np.load(Path(__file__).parents[2] / "data" / "golden" / "metrics.npz")


def random_case(seed: int, recordings: int, species: int, density: float, levels: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Truth and scores; `levels` rounds the scores to so many values, 0 and 1 among them, which makes ties."""
    generator = np.random.default_rng(seed)
    truth = generator.random((recordings, species)) < density
    scores = generator.random((recordings, species))
    return truth, scores if levels is None else np.round(scores * (levels - 1)) / max(levels - 1, 1)


def nothing_true() -> tuple[np.ndarray, np.ndarray]:
    truth, scores = random_case(1, 20, 4, 0.5, None)
    return np.zeros_like(truth), scores


CASES = {
    "random": random_case(0, 200, 30, 0.1, None),
    "tied": random_case(1, 200, 30, 0.1, 5),
    "two values": random_case(2, 100, 20, 0.3, 2),
    "constant": random_case(3, 50, 10, 0.3, 1),
    "sparse, with empty species and recordings": random_case(4, 60, 40, 0.01, 20),
    "dense": random_case(5, 40, 10, 0.95, 10),
    "all true": random_case(6, 10, 3, 1.1, None),
    "nothing true": nothing_true(),
    "one recording": random_case(7, 1, 8, 0.4, None),
    "one species": random_case(8, 60, 1, 0.2, 6),
}


def sklearn_ap(truth: np.ndarray, scores: np.ndarray) -> list[float]:
    return [
        float(average_precision_score(truth[:, c], scores[:, c])) if truth[:, c].any() else math.nan
        for c in range(truth.shape[1])
    ]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_equals_scikit_learn(case: str, dtype: type) -> None:
    truth, scores = CASES[case][0], CASES[case][1].astype(dtype)
    summary = summarise(truth, scores)
    expected = sklearn_ap(truth, scores)
    per_class, support = per_class_ap(truth, scores)
    np.testing.assert_allclose(per_class, expected, atol=1e-12)
    np.testing.assert_array_equal(support, truth.sum(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert summary["cmap"] == pytest.approx(np.nanmean(expected), abs=1e-12, nan_ok=True)
    for k in (5, 3, 1):
        ones = np.ones((k, truth.shape[1]))
        padded = average_precision_score(np.vstack((truth, ones)), np.vstack((scores, ones)), average="macro")
        assert padded_cmap(truth, scores, k) == pytest.approx(padded, abs=1e-12)
        assert k == 1 or summary[f"cmap_pad{k}"] == pytest.approx(padded, abs=1e-12)
    both = truth.any(0) & ~truth.all(0)
    areas = [roc_auc_score(truth[:, c], scores[:, c]) for c in np.flatnonzero(both)]
    assert auroc(truth, scores) == summary["auroc"] or not areas
    assert summary["auroc"] == pytest.approx(np.mean(areas) if areas else math.nan, abs=1e-12, nan_ok=True)
    with_labels = truth[truth.any(1)], scores[truth.any(1)]  # scikit-learn counts recordings without labels as 1
    if truth.shape[1] > 1 and truth.any():  # and takes one column for a plain classification
        assert summary["lrap"] == pytest.approx(label_ranking_average_precision_score(*with_labels), abs=1e-12)
    assert summary["num_recordings"] == len(truth)
    assert summary["num_scored_species"] == truth.any(0).sum()


def test_agrees_with_golden() -> None:
    truth, scores = GOLDEN["y_true"], GOLDEN["y_score"]
    assert padded_cmap(truth, scores, 5) == pytest.approx(float(GOLDEN["cmap_pad5"]), abs=1e-6)
    assert padded_cmap(truth, scores, 3) == pytest.approx(float(GOLDEN["cmap_pad3"]), abs=1e-6)
    labelled = truth.any(axis=1).mean()
    assert labelled < 1
    assert lrap(truth, scores) * labelled + (1 - labelled) == pytest.approx(float(GOLDEN["lrap"]), abs=1e-6), "1 without labels"


def test_recordings_without_labels_do_not_lift_a_random_ranking() -> None:
    truth, scores = random_case(8, 4000, 20, 0.1, None)
    with_birds = truth.any(axis=1)
    few = truth & (np.arange(4000) % 10 == 0)[:, None]
    assert lrap(few, scores) == pytest.approx(lrap(truth[with_birds], scores[with_birds]), abs=0.05)
    assert math.isnan(lrap(np.zeros_like(truth), scores))


def test_logits_rank_as_probabilities_do_but_are_refused_where_ones_are_appended() -> None:
    truth, scores = CASES["random"]
    logits = np.log(scores / (1 - scores))
    assert cmap(truth, logits) == pytest.approx(cmap(truth, scores))
    assert auroc(truth, logits) == pytest.approx(auroc(truth, scores))
    with pytest.raises(InputError, match="sigmoid"):
        summarise(truth, logits)


def test_chance_is_the_mean_over_all_rankings() -> None:
    """Every order of five recordings, with one to five true ones."""
    truth = np.tril(np.ones((5, 5), bool))
    rankings = [np.array(order) for order in itertools.permutations(range(5))]
    mean = np.mean([cmap(truth, np.repeat(order[:, None], 5, axis=1)) for order in rankings])
    assert chance_cmap(truth) == pytest.approx(mean)
    assert chance_cmap(np.array([[1, 0]])) == 1.0
    assert math.isnan(chance_cmap(np.zeros((4, 2))))


@pytest.mark.parametrize(
    ("truth", "scores", "message"),
    [
        (np.array([[0.9, 1.0]]), np.ones((1, 2)), r"0 or 1, but has \[0\.9\]"),
        (np.zeros((0, 3)), np.zeros((0, 3)), r"shape is \(0, 3\)"),
        (np.ones((2, 3)), np.ones((3, 2)), r"shape of the truth, \(2, 3\), but have \(3, 2\)"),
        (np.ones((2, 1)), np.array([[np.nan], [1.0]]), "1 of 2 rows have NaN"),
    ],
)
def test_wrong_input_is_named(truth: np.ndarray, scores: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        summarise(truth, scores)
