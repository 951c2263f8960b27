"""Where an interrupted stage goes on: weights, optimiser and progress, in safetensors and JSON (nothing is unpickled)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

_TENSORS = "state.safetensors"
_PROGRESS = "progress.json"


def save_training_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Mapping[str, Any]) -> None:
    """Writes model, optimiser and `progress` (plain JSON: epoch, history, cost) into `folder`."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in slots.items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / _TENSORS)
    (folder / _PROGRESS).write_text(json.dumps(progress))


def load_training_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Puts the state written by `save_training_state` into model and optimiser; gives back the progress."""
    tensors = load_file(folder / _TENSORS)
    model.load_state_dict({name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model.")})
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, slot = name.split(".", 2)
            slots.setdefault(int(index), {})[slot] = tensor
    state = optimizer.state_dict()
    state["state"] = slots
    optimizer.load_state_dict(state)
    return json.loads((folder / _PROGRESS).read_text())
