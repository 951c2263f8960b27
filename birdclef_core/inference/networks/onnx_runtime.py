"""Runs a network with ONNX Runtime on a CPU.

What it is given are windows, their first dimension: spectrograms (B, K, F, N), or sound (B, T) for a network that makes its own.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from birdclef_core.errors import InputError
from birdclef_core.inference.runtime import Outputs, outputs_of


class OnnxRuntime:
    """Runs the network in an ONNX file, in float32."""

    def __init__(self, path: Path) -> None:
        """Load the network, which runs on one thread for each call. Raises InputError when ONNX Runtime is missing or cannot load the file."""
        library = _import_onnxruntime()
        options = library.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = library.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no class of their own
            problem = " ".join(str(error).split())[:200]
            raise InputError(f"{path} must be a network that ONNX Runtime can run, but: {problem}") from None
        (self._input,) = self._session.get_inputs()
        self._shape = tuple(self._input.shape[1:])

    def __call__(self, heard: Tensor) -> Outputs:
        if tuple(heard.shape[1:]) != self._shape:
            raise InputError(f"The network takes windows of the shape {self._shape}, but got {tuple(heard.shape[1:])}.")
        arrays = self._session.run(None, {self._input.name: np.ascontiguousarray(heard.cpu().numpy(), dtype=np.float32)})
        return outputs_of([torch.from_numpy(array) for array in arrays])


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise InputError("The format onnx needs ONNX Runtime, which is not installed: pip install onnxruntime") from None
    return onnxruntime
