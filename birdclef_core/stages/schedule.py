"""Learning rates, what is frozen, and random seeds as functions of epoch and step, so that no checkpoint has to hold them."""

import math

import numpy as np

from birdclef_core.config import StageConfig

ONE_CYCLE_RISE = 0.3
"""Share of a `one_cycle` schedule in which the learning rate rises."""
ONE_CYCLE_START = 1 / 25
"""Learning rate at the beginning of a `one_cycle` schedule, as a share of the highest."""


def learning_rate(config: StageConfig, epoch: int, step: int, num_steps: int) -> float:
    """Return the learning rate of the head in a step of an epoch of `num_steps`; epoch and step are counted from 0.

    `cosine` falls from learning_rate to min_learning_rate over the stage, after each epoch. A warm-up rises from min_learning_rate with
    each step, and the cosine takes the rest of the stage. `one_cycle` (Smith & Topin 2018, https://arxiv.org/abs/1708.07120) rises from
    1/25 of learning_rate in the first 30% of all steps and falls to min_learning_rate in the others, both as a half cosine, which is the
    form of fastai and torch.
    """
    low, high = config.min_learning_rate, config.learning_rate
    warmup, done = config.warmup_epochs, epoch + step / num_steps
    if config.schedule == "one_cycle":
        return _one_cycle(low, high, epoch * num_steps + step, config.epochs * num_steps)
    if done < warmup:
        return low + (high - low) * min(1.0, (done + 1 / num_steps) / warmup)
    if config.schedule == "constant":
        return high
    share = 0.5 * (1 + math.cos(math.pi * max(0.0, epoch - warmup) / (config.epochs - warmup)))
    return low + (high - low) * share


def _one_cycle(low: float, high: float, step: int, num_steps: int) -> float:
    top, last = max(0.0, ONE_CYCLE_RISE * num_steps - 1), num_steps - 1
    if step <= top:
        return _half_cosine(high * ONE_CYCLE_START, high, step / top if top else 1.0)
    return _half_cosine(high, low, (step - top) / (last - top))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))


def num_frozen_blocks(config: StageConfig, epoch: int, num_groups: int) -> int:
    """Return how many of the encoder's groups of layers, from the input on, are frozen in an epoch (counted from 0).

    With `thaw_every` all are at first, and one less after each so many epochs, down to `frozen_blocks`: gradual unfreezing (Howard &
    Ruder 2018, https://arxiv.org/abs/1801.06146).
    """
    if not config.thaw_every:
        return config.frozen_blocks
    return max(config.frozen_blocks, num_groups - epoch // config.thaw_every)


def initial_seed(config: StageConfig) -> int:
    """Return the random seed of a stage's new weights."""
    return derive_seed(config.seed, 0)


def step_seed(config: StageConfig, epoch: int, step: int) -> int:
    """Return the random seed of everything drawn in a training step; epoch and step are counted from 0."""
    return derive_seed(config.seed, 1, epoch, step)


def derive_seed(*parts: int) -> int:
    """Return a 63-bit random seed from non-negative integers, independent for different integers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
