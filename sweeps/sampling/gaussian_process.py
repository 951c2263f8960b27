"""Gaussian process regression of a score on parameters, and linearly on the score of the stage before.

The kernel is s^2 Matern-5/2 with one length scale for each parameter, plus b^2 z z' for the score z of the stage before. Its few
numbers are those of the highest posterior density under broad priors, found from a fixed start: the same data give the same
process, in a resumed sweep too.

Shapes: N observations, C candidates, P pending points, D columns of the encoding, G groups of columns (one for each parameter).
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, lapack
from scipy.optimize import minimize

from sweeps.sampling.encoding import Array

_SQRT5 = math.sqrt(5)
_JITTER = 1e-6
_FITTED_POINTS = 96
"""Length scales are fitted to at most this many observations, because a fit takes the cube of their number."""
_MAX_ITERATIONS = 20
_PRIOR_SD = (0.6, 0.5, 0.9, 0.7)
"""Standard deviations of the logarithms of length scales, signal, noise and slope around their prior means."""
_PRIOR_MEAN = (0.0, math.log(0.3), math.log(0.7))
"""Prior means of the logarithms of signal, noise and slope, in standard deviations of the scores."""
_LOWEST_NOISE, _LOWEST_VARIANCE = 0.02, 1e-9
_USUAL_COUNTS = 2
"""The spread of a few scores says little: the usual one counts as much as this many of them."""


@dataclass(frozen=True)
class Terms:
    """What a process says of C candidates, as a function of the standardised score z of the stage before.

    The mean is `mean_C + slope * z`, the variance `variance_C + 2 * mixed_C * z + square * z**2`.
    """

    mean_C: Array
    slope: float
    variance_C: Array
    mixed_C: Array
    square: float

    def chained(self, mean_C: Array, variance_C: Array) -> tuple[Array, Array]:
        """Return mean and variance when z itself is normal with these; exact, because the process is linear in z."""
        second_C = mean_C**2 + variance_C
        spread_C = self.variance_C + 2 * self.mixed_C * mean_C + self.square * second_C
        return self.mean_C + self.slope * mean_C, np.maximum(spread_C, _LOWEST_VARIANCE) + self.slope**2 * variance_C


class GaussianProcess:
    """A process that has been fitted to scores, which it standardises itself. It is never changed."""

    def __init__(
        self,
        x_ND: Array,
        score_N: Array,
        previous_N: Array | None,
        groups_D: Sequence[int],
        length_G: Sequence[float],
        usual_spread: float = 0.0,
        like: "GaussianProcess | None" = None,
    ) -> None:
        """`x_ND`: encoded parameters. `previous_N`: scores of the stage before, NaN where there is none; None for a process without
        them. `groups_D`: the parameter of each column. `length_G`: prior median of the length scale of each parameter. `usual_spread`:
        standard deviation that is usual for such scores, where these are too few to tell; 0 takes theirs alone. `like`: the process of
        most of these scores, whose length scales and variances it takes; None fits its own.
        """
        self.centre, self.scale = float(np.mean(score_N)), _spread(score_N, usual_spread)
        self._previous_centre, self._previous_scale = 0.0, 1.0
        if previous_N is not None and np.isfinite(previous_N).any():
            self._previous_centre = float(np.nanmean(previous_N))
            self._previous_scale = _spread(previous_N[np.isfinite(previous_N)], usual_spread)
        z_N = (score_N - self.centre) / self.scale
        before_N = None if previous_N is None else self.standardise(previous_N)
        groups = np.asarray(groups_D, dtype=int)
        log_length_G = np.log(np.asarray(length_G, dtype=float))
        last = slice(-_FITTED_POINTS, None)
        before = None if before_N is None else before_N[last]
        self._theta: Array = _fit(x_ND[last], z_N[last], before, groups, log_length_G) if like is None else like._theta
        theta, num = self._theta, len(length_G)
        self.length_G = np.exp(theta[:num])
        self._signal2, self.noise2 = math.exp(2 * theta[num]), math.exp(2 * theta[num + 1]) + _LOWEST_NOISE**2
        self._slope2 = math.exp(2 * theta[num + 2]) if previous_N is not None else 0.0
        self._scale_D = 1 / self.length_G[groups]
        self._x_ND, self._before_N = x_ND * self._scale_D, before_N
        self._factor_NN = self._factored(self._x_ND, before_N)
        self._weights_N = cho_solve((self._factor_NN, True), z_N)
        self._num_observed = len(x_ND)
        self.smoothed_N = self.centre + self.scale * (z_N - self.noise2 * self._weights_N)
        """The observed scores without their noise: the means of the process at its observations."""

    def standardise(self, previous_C: Array) -> Array:
        """Return scores of the stage before as this process sees them; 0 where there is none."""
        return np.where(np.isnan(previous_C), 0.0, (previous_C - self._previous_centre) / self._previous_scale)

    def standardise_variance(self, variance_C: Array) -> Array:
        """Return variances of scores of the stage before as this process sees them."""
        return variance_C / self._previous_scale**2

    def awaiting(self, x_PD: Array, previous_P: Array) -> "GaussianProcess":
        """Return the process that knows of points whose scores are still to come: variances are smaller, means are the same."""
        narrowed = copy.copy(self)
        narrowed._x_ND = np.concatenate((self._x_ND, x_PD * self._scale_D))
        if self._before_N is not None:
            narrowed._before_N = np.concatenate((self._before_N, self.standardise(previous_P)))
        narrowed._factor_NN = narrowed._factored(narrowed._x_ND, narrowed._before_N)
        return narrowed

    def terms(self, x_CD: Array) -> Terms:
        """Return the standardised mean and variance of the noiseless score at candidates."""
        observed = self._num_observed
        cross_NC = self._signal2 * _matern(_distance(self._x_ND, x_CD * self._scale_D))
        solved_NC = _solved(self._factor_NN, cross_NC)
        mean_C = self._weights_N @ cross_NC[:observed]
        variance_C = np.maximum(self._signal2 - np.einsum("nc,nc->c", solved_NC, solved_NC), _LOWEST_VARIANCE)
        if self._before_N is None:
            return Terms(mean_C, 0.0, variance_C, np.zeros(len(x_CD)), 0.0)
        linear_N = self._slope2 * self._before_N
        solved_N = _solved(self._factor_NN, linear_N)
        slope = float(self._weights_N @ linear_N[:observed])
        square = max(self._slope2 - float(solved_N @ solved_N), 0.0)
        return Terms(mean_C, slope, variance_C, -(solved_N @ solved_NC), square)

    def _factored(self, x_ND: Array, before_N: Array | None) -> Array:
        """The Cholesky factor of the kernel matrix of scaled points."""
        kernel_NN = self._signal2 * _matern(_distance(x_ND, x_ND))
        if before_N is not None:
            kernel_NN += self._slope2 * np.outer(before_N, before_N)
        kernel_NN[np.diag_indices_from(kernel_NN)] += self.noise2 + _JITTER
        return cholesky(kernel_NN, lower=True, check_finite=False, overwrite_a=True)


def _solved(factor_NN: Array, right: Array) -> Array:
    """The solution of a lower triangular system. SciPy's own function takes longer to check its arguments than to solve it."""
    solved, _ = lapack.dtrtrs(factor_NN, right, lower=True)
    return np.asarray(solved)


def _spread(score_N: Array, usual: float) -> float:
    """Standard deviation of scores, pulled towards the usual one if that is given."""
    counts = _USUAL_COUNTS if usual else 0
    return max(math.sqrt((len(score_N) * float(np.var(score_N)) + counts * usual**2) / (len(score_N) + counts)), 1e-6)


def _distance(first_ND: Array, second_MD: Array) -> Array:
    """Euclidean distances (N, M)."""
    square = (first_ND**2).sum(axis=1)[:, None] + (second_MD**2).sum(axis=1) - 2 * first_ND @ second_MD.T
    return np.sqrt(np.maximum(square, 0))


def _matern(distance: Array) -> Array:
    scaled = _SQRT5 * distance
    return (1 + scaled + scaled**2 / 3) * np.exp(-scaled)


def _fit(x_ND: Array, z_N: Array, previous_N: Array | None, groups_D: NDArray[np.int_], log_length_G: Array) -> Array:
    """Return the logarithms of length scales, signal, noise and slope with the highest posterior density."""
    num = len(log_length_G)
    prior_mean = np.concatenate((log_length_G, _PRIOR_MEAN))
    prior_sd = np.concatenate((np.full(num, _PRIOR_SD[0]), _PRIOR_SD[1:]))
    square_GNN = np.zeros((num, len(x_ND), len(x_ND)))
    for column, group in enumerate(groups_D):
        square_GNN[group] += (x_ND[:, None, column] - x_ND[None, :, column]) ** 2
    flat_GM = square_GNN.reshape(num, -1)
    linear_NN = np.zeros((len(x_ND), len(x_ND))) if previous_N is None else np.outer(previous_N, previous_N)
    diagonal = np.diag_indices(len(x_ND))

    def loss(theta: Array) -> tuple[float, Array]:
        signal2, noise2, slope2 = np.exp(2 * theta[num:])
        weight_G = np.exp(-2 * theta[:num])
        scaled = _SQRT5 * np.sqrt(weight_G @ flat_GM).reshape(linear_NN.shape)
        decay = np.exp(-scaled)
        matern = (1 + scaled + scaled**2 / 3) * decay
        kernel = signal2 * matern + slope2 * linear_NN
        kernel[diagonal] += noise2 + _LOWEST_NOISE**2 + _JITTER
        factor, failed = lapack.dpotrf(kernel, lower=True)
        if failed:
            return math.inf, np.zeros(len(theta))
        inverse, _ = lapack.dpotri(factor, lower=True)
        inverse += inverse.T
        inverse[diagonal] /= 2
        alpha = inverse @ z_N
        pull = (theta - prior_mean) / prior_sd
        value = 0.5 * z_N @ alpha + np.log(np.diag(factor)).sum() + 0.5 * pull @ pull
        outer = inverse - np.outer(alpha, alpha)
        # d Matern / d log length = 5/3 (1 + sqrt(5) r) exp(-sqrt(5) r) (difference / length)^2
        by_length = weight_G * (flat_GM @ (outer * (signal2 * 5 / 3 * (1 + scaled) * decay)).ravel()) / 2
        by_signal = signal2 * float(np.vdot(outer, matern))
        by_noise = noise2 * float(np.trace(outer))
        by_slope = slope2 * float(np.vdot(outer, linear_NN))
        return float(value), np.concatenate((by_length, (by_signal, by_noise, by_slope))) + pull / prior_sd

    bounds = list(zip(prior_mean - 4 * prior_sd, prior_mean + 4 * prior_sd, strict=True))
    found = minimize(loss, prior_mean, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _MAX_ITERATIONS})
    return np.asarray(found.x)
