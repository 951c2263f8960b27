"""Learning rates and seeds as functions of where a stage is, so that nothing of them has to be remembered."""

import math

import numpy as np

from birdclef_core.config import StageConfig


def cosine_learning_rate(config: StageConfig, epoch: int) -> float:
    """Learning rate of an epoch counted from 0: cosine from learning_rate down to min_learning_rate over the stage."""
    share = 0.5 * (1 + math.cos(math.pi * epoch / config.epochs))
    return config.min_learning_rate + (config.learning_rate - config.min_learning_rate) * share


def initial_seed(config: StageConfig) -> int:
    """Of a stage's fresh weights."""
    return derive_seed(config.seed, 0)


def step_seed(config: StageConfig, epoch: int, step: int) -> int:
    """Of all that is drawn on the way from a batch of the feed to new weights; epoch and step are counted from 0."""
    return derive_seed(config.seed, 1, epoch, step)


def derive_seed(*parts: int) -> int:
    """A 63-bit seed from any non-negative integers, independent for different parts."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
