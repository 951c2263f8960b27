"""Learning rates and random seeds as functions of epoch and step, so that no checkpoint has to hold them."""

import math

import numpy as np

from birdclef_core.config import StageConfig


def cosine_learning_rate(config: StageConfig, epoch: int) -> float:
    """Return the learning rate of an epoch (counted from 0): a cosine from learning_rate down to min_learning_rate over the stage."""
    share = 0.5 * (1 + math.cos(math.pi * epoch / config.epochs))
    return config.min_learning_rate + (config.learning_rate - config.min_learning_rate) * share


def initial_seed(config: StageConfig) -> int:
    """Return the random seed of a stage's new weights."""
    return derive_seed(config.seed, 0)


def step_seed(config: StageConfig, epoch: int, step: int) -> int:
    """Return the random seed of everything drawn in a training step; epoch and step are counted from 0."""
    return derive_seed(config.seed, 1, epoch, step)


def derive_seed(*parts: int) -> int:
    """Return a 63-bit random seed from non-negative integers, independent for different integers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
