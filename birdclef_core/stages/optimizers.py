"""The optimiser of a stage: its kind, and the learning rates of the groups of layers."""

import torch
from torch import nn

from birdclef_core.config import StageConfig
from birdclef_core.models.detector import Detector

_SHARE = "share"
"""Key of a group's learning rate as a share of that of the head, in the optimiser's groups of parameters."""


def build_optimizer(model: Detector, config: StageConfig) -> torch.optim.Optimizer:
    """Return the optimiser of all that the stage trains, with the learning rate at 0: `set_learning_rate` sets it.

    With `layer_decay` d below 1, the head has the learning rate itself, the encoder's last group of layers d times it, the group below
    d^2 times it, and so on to the input BatchNorm, which is in the first group (Clark et al. 2020, https://arxiv.org/abs/2003.10555).
    Call it when what is never trained has been frozen. Raises as `Encoder.layer_groups` does when it needs the groups.
    """
    groups = [{"params": parameters, _SHARE: share} for share, parameters in _shares(model, config.layer_decay) if parameters]
    match config.optimizer:
        case "adam":
            return torch.optim.Adam(groups, lr=0.0, weight_decay=config.weight_decay, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, lr=0.0, weight_decay=config.weight_decay, fused=True)
        case "radam":  # has no fused kernel; torch takes the one over many tensors at once where the device has it
            return torch.optim.RAdam(groups, lr=0.0, weight_decay=config.weight_decay)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the head, and of each group of layers its share of that."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group[_SHARE]


def _shares(model: Detector, layer_decay: float) -> list[tuple[float, list[nn.Parameter]]]:
    """What is trained, as parameters with their share of the learning rate."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if layer_decay == 1.0:
        return [(1.0, trained)]
    layers = model.layer_groups()
    group_of = {parameter: number for number, group in enumerate(layers) for parameter in group}
    parts: list[list[nn.Parameter]] = [[] for _ in range(len(layers) + 1)]
    for parameter in trained:
        parts[group_of.get(parameter, len(layers))].append(parameter)
    return [(layer_decay ** (len(layers) - number), part) for number, part in enumerate(parts)]
