"""Runs a network that is a program of torch operations, without timm. The program is code of a bundle, which only the bundle's own
`runtime.py` runs, and the export that has just written it.

Shapes: B windows, K channels, F mel bins, N frames.
"""

import runpy
from pathlib import Path

import torch
from torch import Tensor

from birdclef_core.inference.runtime import Outputs, outputs_of

WEIGHTS, CONSTANTS = "weights", "constants"
"""What the file of a network holds: the state of the model, and other tensors that the program needs."""
PROGRAM_SUFFIX = ".py"


class ProgramRuntime:
    """Runs the program beside a file of weights, on a CPU in float32."""

    def __init__(self, path: Path) -> None:
        """Load the weights in `path` and the program of the same name."""
        program = runpy.run_path(str(path.with_suffix(PROGRAM_SUFFIX)))
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        known = {**tensors[WEIGHTS], **tensors[CONSTANTS]}
        self._inputs = [None if name is None else known[name] for name in program["INPUTS"]]
        self._forward = program["forward"]

    @torch.inference_mode()
    def __call__(self, mel_BKFN: Tensor) -> Outputs:
        return outputs_of(self._forward(*self._inputs, mel_BKFN))
