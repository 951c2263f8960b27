"""A standard error is as large as luck is: how far scores differ between validation sets of other authors."""

import numpy as np
import pytest
from made_up_authors import POPULATIONS, Population

from birdclef_core.evaluation.jackknife import figures_without_groups, interval_95, standard_errors
from birdclef_core.evaluation.metrics import summarise

FAST = (
    "15 authors, 8 species",
    "15 authors with one species each",
    "40 authors, 20 species",
    "12 soundscapes of 4 minutes, 40 species",
)
ALL = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in POPULATIONS]


@pytest.mark.parametrize("name", ALL)
def test_the_mean_error_is_what_other_authors_would_show(name: str) -> None:
    """Within 20 %; the simulation itself is about 4 % uncertain. Recordings drawn one by one gave a third of the truth."""
    rng = np.random.default_rng(1)
    sets = [POPULATIONS[name].draw(rng) for _ in range(400)]
    figures = [summarise(one.truth_RC, one.score_RC) for one in sets]
    errors = [standard_errors(one.truth_RC, one.score_RC, one.group_R) for one in sets[::4]]
    for figure in ("cmap", "cmap_pad5", "cmap_pad3", "auroc", "lrap"):
        true = np.std([item[figure] for item in figures], ddof=1)
        assert 0.8 < np.nanmean([item[figure] for item in errors]) / true < 1.2, figure


def make_case(seed: int = 0, *, everywhere: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recordings of 7 authors with ties, certain scores, a species that one author has alone, and one that is nowhere or everywhere."""
    rng = np.random.default_rng(seed)
    truth = rng.random((40, 6)) < 0.15
    score = np.round(rng.random((40, 6)), 1)
    author = np.array(["ann", "bob", "cy", "dot", "eve", "flo", "gus"])[rng.integers(7, size=40)]
    truth[:, 3], truth[:, 4] = author == "dot", everywhere
    return truth, score, author


@pytest.mark.parametrize("everywhere", [False, True])
def test_each_figure_is_the_metric_of_the_recordings_of_the_others(everywhere: bool) -> None:
    truth, score, author = make_case(everywhere=everywhere)
    assert (truth & (score == 1)).any() and (~truth & (score == 1)).any() and truth.any(axis=1).all() == everywhere
    figures = figures_without_groups(truth, score, author, shrinking={})
    for place, name in enumerate([*np.unique(author), None]):
        others = author != name
        expected = summarise(truth[others], score[others])
        for figure, values in figures.items():
            assert values[place] == pytest.approx(expected[figure], abs=1e-12), (figure, name)


def test_what_changes_the_mean_over_few_authors_is_made_smaller() -> None:
    """Species 0 has two equal authors, so each change is multiplied by (1/2) ** (1/4); species 1 has one, and is left out with him."""
    truth = np.array([[1, 0], [1, 0], [0, 1], [0, 0]])
    score = np.array([[0.9, 0.1], [0.3, 0.2], [0.5, 0.3], [0.1, 0.5]])
    whole = (1 + 2 / 3) / 2
    figures = figures_without_groups(truth, score, np.array([0, 1, 2, 3]))["cmap"]
    assert figures[-1] == pytest.approx((whole + 1 / 2) / 2)
    assert figures[0] == pytest.approx((whole + 0.5**0.25 * (1 / 2 - whole) + 1 / 2) / 2)
    assert figures[2] == pytest.approx(1.0), "without its recording, nothing false ranks before those of species 0"


def test_the_error_of_a_mean_is_that_of_the_textbook() -> None:
    """LRAP is a mean over recordings with labels, so its error is their standard deviation over the root of their number.

    The root of an estimated variance of 6 values is 5% too small on average.
    """
    truth = np.eye(7)[:, :6]  # the last one has no label
    score = np.random.default_rng(0).random(truth.shape)
    ranked = np.array([1 / (1 + np.sum(score[row] > score[row, row])) for row in range(6)])
    error = standard_errors(truth, score, np.arange(7))["lrap"]
    without_last = np.std(np.append((ranked.sum() - ranked) / 5, ranked.mean())) * np.sqrt(6)
    assert error == pytest.approx(without_last * (1 + 1 / 24))
    assert error == pytest.approx(np.std(ranked, ddof=1) / np.sqrt(6), rel=0.1)


def test_one_author_says_nothing_about_others() -> None:
    truth, score, _ = make_case()
    assert all(np.isnan(error) for error in standard_errors(truth, score, np.zeros(40)).values())


def test_errors_are_larger_where_recordings_of_an_author_are_alike() -> None:
    one = Population(num_species=5, num_authors=20, recordings_each=10, variety=1e9).draw(np.random.default_rng(0))
    alike = standard_errors(one.truth_RC, one.score_RC, one.group_R)
    apart = standard_errors(one.truth_RC, one.score_RC, np.arange(len(one.group_R)))
    assert alike["cmap"] > 1.5 * apart["cmap"] and alike["cmap_pad5"] > 1.5 * apart["cmap_pad5"]


def test_perfect_scores_have_no_error() -> None:
    truth, _, author = make_case()
    errors = standard_errors(truth, truth.astype(float), author)
    assert errors == dict.fromkeys(("cmap_pad5", "cmap_pad3", "cmap", "auroc", "lrap"), 0.0)


def test_the_interval_lies_around_the_figure_within_0_and_1() -> None:
    assert interval_95(0.5, 0.1) == pytest.approx((0.304, 0.696))
    assert interval_95(0.99, 0.1) == pytest.approx((0.794, 1.0))
    assert interval_95(0.5, float("nan")) == (0.0, 1.0)
