"""Averages of weights: a moving average over steps, or a mean over the last epochs, published in place of the last weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """An average of a model's weights and BatchNorm statistics, kept beside the model. Its counters are the model's latest.

    BatchNorm statistics are averaged like weights. Stochastic weight averaging computes them again over the training set, which would
    cost an epoch; at the small learning rates at the end of a cosine, the difference is small.
    """

    def __init__(self, model: nn.Module, state: Mapping[str, Tensor] | None = None) -> None:
        """Start from `state`; None: from the current state of the model."""
        self._model = model
        self.state = copy_state(model)
        if state is not None:
            _fill(self.state, state)

    @torch.no_grad()
    def update(self, share: float) -> None:
        """Move the average by `share` of its distance to the model. Does not wait for the device."""
        current = self._model.state_dict()
        real = [name for name, tensor in self.state.items() if tensor.is_floating_point()]
        counters = [name for name, tensor in self.state.items() if not tensor.is_floating_point()]
        torch._foreach_lerp_([self.state[name] for name in real], [current[name] for name in real], share)
        if counters:
            torch._foreach_copy_([self.state[name] for name in counters], [current[name] for name in counters])

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """Give the model the averaged state within the block."""
        own = copy_state(self._model)
        _fill(self._model.state_dict(), self.state)
        try:
            yield
        finally:
            _fill(self._model.state_dict(), own)


def ema_share(decay: float, step: int) -> float:
    """Return the share by which the average moves at a step (counted from 0): 1 - decay, and more at the beginning.

    So the average forgets the first weights. The ramp is that of TensorFlow's ExponentialMovingAverage: decay_t = min(decay, (1 + t) / (10 + t)).
    """
    return 1 - min(decay, (1 + step) / (10 + step))


def copy_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the model's state, on its device and in its memory layout."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@torch.no_grad()
def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state into the model. It must have every entry."""
    _fill(model.state_dict(), state)


def _fill(target: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(source[name])
