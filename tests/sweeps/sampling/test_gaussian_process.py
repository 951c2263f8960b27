"""The process against the formulas that define it: its posterior, the fit of its numbers, and what it says of a chain of scores."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.stats import multivariate_normal, norm

from sweeps.sampling import gaussian_process
from sweeps.sampling.gaussian_process import GaussianProcess, Terms

GROUPS = [0, 1, 2, 2]
LENGTHS = [0.7, 1.0, 0.9]


def data(num: int = 14, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parameters, scores, and scores of the stage before, on which they depend linearly."""
    generator = np.random.default_rng(seed)
    x_ND = generator.random((num, len(GROUPS)))
    previous_N = 0.4 + 0.1 * generator.standard_normal(num)
    score_N = 0.5 + 0.1 * np.sin(4 * x_ND[:, 0]) + 0.6 * (previous_N - 0.4) + 0.005 * generator.standard_normal(num)
    return x_ND, score_N, previous_N


def kernel(process: GaussianProcess, first_ND: np.ndarray, before_N: np.ndarray, second_MD: np.ndarray, before_M: np.ndarray):
    """The kernel as the module's text has it, one pair of points at a time."""
    length_D = process.length_G[GROUPS]
    table = np.empty((len(first_ND), len(second_MD)))
    for row, (x_D, before) in enumerate(zip(first_ND, before_N, strict=True)):
        for column, (y_D, other) in enumerate(zip(second_MD, before_M, strict=True)):
            distance = np.sqrt(5 * np.sum(((x_D - y_D) / length_D) ** 2))
            matern = (1 + distance + distance**2 / 3) * np.exp(-distance)
            table[row, column] = process._signal2 * matern + process._slope2 * before * other
    return table


def posterior(process: GaussianProcess, score_N, x_ND, before_N, x_CD, before_C, pending=0) -> tuple[np.ndarray, np.ndarray]:
    """Standardised mean and variance by the textbook's formula. The scores of the last `pending` points are not known."""
    own = kernel(process, x_ND, before_N, x_ND, before_N) + (process.noise2 + 1e-6) * np.eye(len(x_ND))
    cross = kernel(process, x_ND, before_N, x_CD, before_C)
    variance_C = np.diag(kernel(process, x_CD, before_C, x_CD, before_C) - cross.T @ np.linalg.solve(own, cross))
    seen = len(x_ND) - pending
    z_N = (score_N - process.centre) / process.scale
    return cross[:seen].T @ np.linalg.solve(own[:seen, :seen], z_N), variance_C


@pytest.mark.parametrize("chained", [True, False], ids=["after a stage", "first stage"])
def test_mean_and_variance_are_those_of_the_textbook(chained):
    x_ND, score_N, previous_N = data()
    x_CD, previous_C, _ = data(9, seed=1)
    process = GaussianProcess(x_ND, score_N, previous_N if chained else None, GROUPS, LENGTHS)
    before_N = process.standardise(previous_N) if chained else np.zeros(len(x_ND))
    before_C = process.standardise(previous_C) if chained else np.zeros(len(x_CD))
    mean_C, variance_C = posterior(process, score_N, x_ND, before_N, x_CD, before_C)
    terms = process.terms(x_CD)
    np.testing.assert_allclose(terms.mean_C + terms.slope * before_C, mean_C, atol=1e-8)
    square_C = terms.variance_C + 2 * terms.mixed_C * before_C + terms.square * before_C**2
    np.testing.assert_allclose(square_C, variance_C, atol=1e-8)
    if chained:
        assert terms.slope * process.scale / process._previous_scale == pytest.approx(0.6, abs=0.2), (
            "it finds how they hang together"
        )


def test_what_is_awaited_leaves_means_as_they_are_and_narrows_variances():
    x_ND, score_N, previous_N = data()
    x_PD, _, previous_P = data(3, seed=2)
    x_CD, _, previous_C = data(9, seed=1)
    process = GaussianProcess(x_ND, score_N, previous_N, GROUPS, LENGTHS)
    before = process.terms(x_CD)
    narrowed = process.awaiting(x_PD, previous_P)
    after, at_pending = narrowed.terms(x_CD), narrowed.terms(x_PD)
    np.testing.assert_array_equal(after.mean_C, before.mean_C)
    assert after.slope == before.slope and after.square <= before.square
    assert (after.variance_C <= before.variance_C + 1e-12).all() and (after.variance_C < 0.99 * before.variance_C).any()
    assert (at_pending.variance_C < 0.5 * process.terms(x_PD).variance_C).all()
    z_C = process.standardise(previous_C)
    every = [np.concatenate(pair) for pair in ((x_ND, x_PD), (process.standardise(previous_N), process.standardise(previous_P)))]
    mean_C, variance_C = posterior(process, score_N, *every, x_CD, z_C, pending=len(x_PD))
    np.testing.assert_allclose(after.mean_C + after.slope * z_C, mean_C, atol=1e-8)
    np.testing.assert_allclose(after.variance_C + 2 * after.mixed_C * z_C + after.square * z_C**2, variance_C, atol=1e-8)
    np.testing.assert_array_equal(process.terms(x_CD).variance_C, before.variance_C, "the process itself has not changed")


def test_a_chained_score_has_the_mean_and_variance_of_a_simulation():
    terms = Terms(np.array([0.3, -1.0]), 0.8, np.array([0.4, 0.1]), np.array([0.05, -0.1]), 0.3)
    mean_C, variance_C = np.array([0.5, -1.5]), np.array([0.7, 0.02])
    generator = np.random.default_rng(0)
    z_CS = mean_C[:, None] + np.sqrt(variance_C)[:, None] * generator.standard_normal((2, 400_000))
    spread_CS = terms.variance_C[:, None] + 2 * terms.mixed_C[:, None] * z_CS + terms.square * z_CS**2
    final_CS = terms.mean_C[:, None] + terms.slope * z_CS + np.sqrt(spread_CS) * generator.standard_normal(z_CS.shape)
    chained = terms.chained(mean_C, variance_C)
    np.testing.assert_allclose(chained[0], final_CS.mean(axis=1), atol=0.01)
    np.testing.assert_allclose(chained[1], final_CS.var(axis=1), rtol=0.01)


def captured_loss(monkeypatch, *arguments) -> tuple:
    """The function that the fit minimises, and where it begins."""
    found = []

    class Nothing:
        def __init__(self, x) -> None:
            self.x = x

    def minimize(loss, start, **_):
        found.append((loss, start))
        return Nothing(start)

    monkeypatch.setattr(gaussian_process, "minimize", minimize)
    GaussianProcess(*arguments)
    return found[0]


@pytest.mark.parametrize("chained", [True, False], ids=["after a stage", "first stage"])
def test_the_fit_minimises_the_density_under_the_priors_and_knows_its_slope(monkeypatch, chained):
    x_ND, score_N, previous_N = data()
    loss, start = captured_loss(monkeypatch, x_ND, score_N, previous_N if chained else None, GROUPS, LENGTHS)
    z_N = (score_N - score_N.mean()) / score_N.std()
    before_N = (previous_N - previous_N.mean()) / previous_N.std() if chained else np.zeros(len(z_N))
    prior_mean = np.array([*np.log(LENGTHS), 0, np.log(0.3), np.log(0.7)])
    prior_sd = np.array([0.6, 0.6, 0.6, 0.5, 0.9, 0.7])
    np.testing.assert_allclose(start, prior_mean)
    generator = np.random.default_rng(3)

    def density(theta: np.ndarray) -> float:
        process = GaussianProcess.__new__(GaussianProcess)
        process.length_G, process._signal2, process._slope2 = np.exp(theta[:3]), np.exp(2 * theta[3]), np.exp(2 * theta[5])
        covariance = kernel(process, x_ND, before_N, x_ND, before_N)
        covariance += (np.exp(2 * theta[4]) + 0.02**2 + 1e-6) * np.eye(len(z_N))
        return multivariate_normal.logpdf(z_N, cov=covariance) + norm.logpdf(theta, prior_mean, prior_sd).sum()

    constant = loss(start)[0] + density(start)
    for _ in range(4):
        theta = prior_mean + prior_sd * generator.standard_normal(6)
        value, slope = loss(theta)
        assert value == pytest.approx(constant - density(theta), abs=1e-8)
        np.testing.assert_allclose(slope, approx_fprime(theta, lambda point: loss(point)[0], 1e-6), rtol=1e-3, atol=1e-4)


def test_the_fit_finds_which_parameter_matters_and_is_the_same_for_the_same_data():
    x_ND, score_N, _ = data(60)
    score_N = np.sin(6 * x_ND[:, 0])
    one, other = (GaussianProcess(x_ND, score_N, None, GROUPS, LENGTHS) for _ in range(2))
    assert one.length_G[0] < 0.5 * min(one.length_G[1:])
    np.testing.assert_array_equal(one.length_G, other.length_G)
    np.testing.assert_array_equal(one.smoothed_N, other.smoothed_N)


def test_smoothed_scores_are_the_means_where_it_has_observed():
    x_ND, score_N, previous_N = data()
    process = GaussianProcess(x_ND, score_N, previous_N, GROUPS, LENGTHS)
    terms = process.terms(x_ND)
    mean_N = process.centre + process.scale * (terms.mean_C + terms.slope * process.standardise(previous_N))
    np.testing.assert_allclose(process.smoothed_N, mean_N, atol=1e-6)
    assert 0 < np.abs(process.smoothed_N - score_N).max() < 0.05


@pytest.mark.parametrize(
    "score_N", [np.array([0.4]), np.full(6, 0.4), np.array([0.4, 0.4 + 1e-12])], ids=["one", "equal", "nearly"]
)
def test_scores_without_a_spread_make_a_process(score_N):
    x_ND = data(len(score_N))[0]
    process = GaussianProcess(x_ND, score_N, np.full(len(score_N), np.nan), GROUPS, LENGTHS)
    terms = process.terms(x_ND + 0.3)
    assert np.isfinite(terms.mean_C).all() and (terms.variance_C > 0).all()
    assert process.centre + process.scale * terms.mean_C == pytest.approx(0.4, abs=1e-5)


def test_a_few_scores_that_lie_close_together_by_chance_do_not_make_it_sure_of_itself():
    x_ND, _, previous_N = data(2)
    near = np.array([0.5, 0.5001])
    assert GaussianProcess(x_ND, near, None, GROUPS, LENGTHS, usual_spread=0.1).scale == pytest.approx(0.1 / np.sqrt(2), rel=1e-3)
    assert GaussianProcess(x_ND, near, None, GROUPS, LENGTHS).scale == pytest.approx(5e-5)
    chained = GaussianProcess(x_ND, near, np.full(2, previous_N[0]), GROUPS, LENGTHS, usual_spread=0.1)
    assert chained.standardise(previous_N[:1] + 0.1) == pytest.approx(np.sqrt(2), rel=1e-3)


def test_many_observations_are_all_used_though_lengths_are_fitted_to_the_newest():
    x_ND, score_N, _ = data(150)
    process = GaussianProcess(x_ND, score_N, None, GROUPS, LENGTHS)
    newest = GaussianProcess(x_ND[-96:], score_N[-96:], None, GROUPS, LENGTHS)
    np.testing.assert_allclose(process.length_G, newest.length_G, rtol=0.2)
    assert len(process.smoothed_N) == 150
    oldest = x_ND[:54]
    assert process.terms(oldest).variance_C.mean() < 0.9 * newest.terms(oldest).variance_C.mean()
