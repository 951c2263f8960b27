"""Random parameters, drawn on the host by a CPU generator and moved to the device without waiting for it."""

import torch
from torch import Tensor


def chosen(prob: float, count: int, generator: torch.Generator) -> Tensor:
    """Return which of `count` rows are chosen, each with probability `prob`: bool (count,)."""
    return torch.rand(count, generator=generator) < prob


def uniform(low: float, high: float, *shape: int, generator: torch.Generator) -> Tensor:
    """Return uniform random numbers from `low` to `high`."""
    return torch.rand(shape, generator=generator) * (high - low) + low


def rows_of(chosen_B: Tensor) -> Tensor:
    """Return the rows of a bool tensor on the host that are true, in order."""
    return torch.nonzero(chosen_B)[:, 0]


def to_device(drawn: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on the device. It is copied from pinned memory: any other copy would wait for the device."""
    return (drawn.pin_memory() if device.type == "cuda" else drawn).to(device, non_blocking=True)
