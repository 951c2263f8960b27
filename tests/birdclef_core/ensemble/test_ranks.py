"""Figures of mixtures are those of the metrics that everything else is scored by."""

import numpy as np
import pytest
from scipy.special import expit

from birdclef_core.ensemble.ranks import RankedLogits
from birdclef_core.ensemble.record import METRICS
from birdclef_core.errors import InputError
from birdclef_core.evaluation.metrics import summarise

WEIGHTS = [(0, 0.5), (2, 0.3), (3, 0.2)]


def made_up(*, steps: int = 0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Truth (R, C) with species that are never and always heard, and logits (K, R, C); with `steps`, many are equal."""
    generator = np.random.default_rng(seed)
    truth_RC = generator.random((60, 9)) < 0.2
    truth_RC[:, 3], truth_RC[:, 5] = False, True
    logits_KRC = (generator.normal(0, 1, (4, 60, 9)) + truth_RC).astype(np.float32)
    return truth_RC, np.round(logits_KRC * steps) / steps if steps else logits_KRC


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("steps", [0, 1])
def test_a_mixture_scores_as_the_metric_does(metric, steps):
    truth_RC, logits_KRC = made_up(steps=steps)
    ranked = RankedLogits(truth_RC, logits_KRC, metric)
    weights = [(0, 1.0), (2, 2.0)] if steps else WEIGHTS
    share = sum(weight for _, weight in weights)
    mean_RC = sum(weight / share * logits_KRC[candidate].astype(np.float64) for candidate, weight in weights)
    assert ranked.mixture(weights) == pytest.approx(summarise(truth_RC, expit(mean_RC))[metric], abs=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_a_candidate_alone_scores_as_the_metric_does(metric):
    truth_RC, logits_KRC = made_up(seed=1)
    ranked = RankedLogits(truth_RC, logits_KRC, metric)
    expected = [summarise(truth_RC, expit(logits_RC.astype(np.float64)))[metric] for logits_RC in logits_KRC]
    assert ranked.singles() == pytest.approx(expected, abs=1e-9)


def test_scoring_does_not_change_the_values():
    truth_RC, logits_KRC = made_up()
    ranked = RankedLogits(truth_RC, logits_KRC, "auroc")
    before = ranked.values_KGN.copy()
    added = ranked.addition(ranked.values_KGN[0], 1)
    assert added == ranked.mixture([(0, 1.0), (1, 1.0)])
    assert np.array_equal(ranked.values_KGN, before)


def test_nothing_to_find_is_refused():
    with pytest.raises(InputError, match="none is"):
        RankedLogits(np.zeros((5, 2)), np.zeros((1, 5, 2), np.float32), "cmap")
