"""Epoch checkpoints: groups of tensors and the counters of the stage, as safetensors and JSON. Nothing is unpickled."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from birdclef_core.json_files import from_json, to_json
from birdclef_core.stages.epochs import StageCounters

_TENSORS = "state.safetensors"
_COUNTERS = "counters.json"

State = dict[str, Tensor]


def save_training_state(folder: Path, groups: Mapping[str, Mapping[str, Tensor]], counters: StageCounters) -> None:
    """Write groups of named tensors (a group's name has no dot) and the stage's counters into `folder`."""
    tensors = {f"{group}.{name}": tensor for group, part in groups.items() for name, tensor in part.items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / _TENSORS)
    (folder / _COUNTERS).write_text(to_json(counters), encoding="utf-8")


def load_training_state(folder: Path) -> tuple[dict[str, State], StageCounters]:
    """Return the groups (on the CPU) and the counters that `save_training_state` wrote; a group without tensors is left out.

    Raises FileContentError for counters that are damaged or of another version of the code.
    """
    groups: dict[str, State] = {}
    for key, tensor in load_file(folder / _TENSORS).items():
        group, _, name = key.partition(".")
        groups.setdefault(group, {})[name] = tensor
    file = folder / _COUNTERS
    return groups, from_json(StageCounters, file.read_bytes(), file=str(file))


def optimizer_state(optimizer: torch.optim.Optimizer) -> State:
    """Return the optimiser's tensors by the names `<index of the parameter>.<slot>`."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{slot}": torch.as_tensor(value) for index, slots in state.items() for slot, value in slots.items()}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Load what `optimizer_state` returned into an optimiser of the same parameters."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    slots: dict[int, State] = {}
    for key, tensor in state.items():
        index, _, slot = key.partition(".")
        parameter = parameters[int(index)]
        # In the memory layout of the parameter: fused kernels pair both element by element as they lie in memory.
        laid_out = torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor
        slots.setdefault(int(index), {})[slot] = laid_out
    whole = optimizer.state_dict()
    whole["state"] = slots
    optimizer.load_state_dict(whole)
