"""Writes a network as a program of torch operations, which needs nothing but torch: its text, and its weights beside it.

Shapes: B windows, K channels, F mel bins, N frames.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import GraphModule

from birdclef_core.inference.networks.network import Network
from birdclef_core.inference.networks.program_runtime import CONSTANTS, PROGRAM_SUFFIX, WEIGHTS

_HEAD = '''"""A network as a program of torch operations, made by birdclef export."""

from math import inf, nan

import torch
from torch import device

INPUTS = {inputs}


def call(device_type, dtype, enabled, cache, part, *inputs):
    """Run a part of the program. The other arguments are about automatic precision, which is off here."""
    return part(*inputs)
'''
_MODEL = "model."
"""What the names of a network's tensors begin with, and those of its model do not."""


def write_program(network: Network, mel_BKFN: Tensor, path: Path) -> None:
    """Write the weights of a network to `path`, and its program to a file of the same name beside it."""
    with torch.no_grad(), can_be_exported():
        exported = torch.export.export(network, (mel_BKFN[:2],), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    weights = {name: tensor.contiguous() for name, tensor in network.model.state_dict().items()}
    inputs, constants = _inputs(exported, set(weights))
    torch.save({WEIGHTS: weights, CONSTANTS: constants}, path)
    functions = "\n\n".join(_functions(exported.graph_module, "forward"))
    text = _HEAD.format(inputs="[\n" + "".join(f"    {name!r},\n" for name in inputs) + "]") + f"\n\n{functions}\n"
    path.with_suffix(PROGRAM_SUFFIX).write_text(text, encoding="utf-8")


@contextmanager
def can_be_exported() -> Iterator[None]:
    """Let torch.export read cuDNN's precision within the block: it asks by an older function, which only knows torch's own setting. A stage
    that was trained in this process has set another. Nothing is computed here that it changes."""
    cudnn: Any = torch.backends.cudnn
    before = cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision
    cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = "tf32"
    try:
        yield
    finally:
        cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision = before


def _inputs(exported: ExportedProgram, weights: set[str]) -> tuple[list[str | None], dict[str, Tensor]]:
    """Return the names of the program's tensors in order, None for one that it does not use, and those that are no weights."""
    used = {node.name for node in exported.graph.nodes if node.op == "placeholder" and node.users}
    names: list[str | None] = []
    constants: dict[str, Tensor] = {}
    for item in exported.graph_signature.input_specs:
        if item.kind == InputKind.USER_INPUT:
            continue
        name = str(item.target).removeprefix(_MODEL)
        is_used = item.arg.name in used
        if is_used and name not in weights:
            tensor = exported.constants[str(item.target)]
            assert isinstance(tensor, Tensor)
            constants[name] = tensor.contiguous()
        names.append(name if is_used else None)
    return names, constants


def _functions(module: GraphModule, name: str) -> Iterator[str]:
    """Yield the functions of a program: its parts, and then itself."""
    parts = [part for part, child in module.named_children() if isinstance(child, GraphModule)]
    for part in parts:
        yield from _functions(getattr(module, part), f"{name}_{part}")
    source = module.graph.python_code("self").src.strip()
    source = re.sub(r"^def forward\(self(?:, )?", f"def {name}(", source)
    source = re.sub(r"\bself\.(\w+)", rf"{name}_\1", source)
    yield source.replace("torch.ops.higher_order.wrap_with_autocast(", "call(").replace("    \n", "")
