"""Runs a network with OpenVINO, on the cores of a CPU: one stream a core and call, so that no two cores wait for each other.

What it is given are windows, their first dimension: spectrograms (B, K, F, N), or sound (B, T) for a network that makes its own.
"""

from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from birdclef_core.errors import InputError
from birdclef_core.inference.runtime import WINDOWS_AT_ONCE, Outputs, outputs_of

HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
"""What OpenVINO calls a precision. Always said: its own choice depends on the CPU. Of an int8 network it is that of the other layers."""
_MOST_RUNS = 6
"""Runs of the first windows of a stream in which two that follow each other must give the same."""
_TOLERANCE = 1e-3


class OpenVinoRuntime:
    """Runs the network in an OpenVINO file. It is compiled for `WINDOWS_AT_ONCE` windows, and a smaller rest is filled up."""

    def __init__(self, path: Path, precision: str, num_streams: int) -> None:
        """Compile the network for so many streams, a thread each.

        Raises InputError when OpenVINO is missing, the file holds no network that it can compile, or this CPU does not have the precision.
        """
        openvino = import_openvino()
        core = openvino.Core()
        if precision == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise InputError(
                f"{path} is a network in bfloat16, which this CPU cannot compute in: its scores would differ. Export with --precision float32."
            )
        try:
            model = core.read_model(path)
            shape = model.inputs[0].partial_shape
            self._shape = (WINDOWS_AT_ONCE, *(shape[axis].get_length() for axis in range(1, len(shape))))
            model.reshape(list(self._shape))
            settings = {
                "INFERENCE_PRECISION_HINT": HINTS[precision],
                "NUM_STREAMS": num_streams,
                "INFERENCE_NUM_THREADS": num_streams,
            }
            self._compiled = core.compile_model(model, "CPU", settings)
        except (RuntimeError, IndexError) as error:
            problem = " ".join(str(error).split())[:200]
            raise InputError(f"{path} must be a network that OpenVINO can run, but: {problem}") from None
        self._path = path
        self._idle: SimpleQueue[_Stream] = SimpleQueue()
        """The streams that no call has taken."""
        for _ in range(num_streams):
            self._idle.put(_Stream(self._compiled.create_infer_request()))

    def __call__(self, heard: Tensor) -> Outputs:
        """Return the outputs. Raises InputError when the windows have another shape, or the network does not give the same outputs twice."""
        if tuple(heard.shape[1:]) != self._shape[1:]:
            raise InputError(f"The network takes windows of the shape {self._shape[1:]}, but got {tuple(heard.shape[1:])}.")
        values = np.ascontiguousarray(heard.cpu().numpy(), dtype=np.float32)
        parts = [self._run(values[first : first + WINDOWS_AT_ONCE]) for first in range(0, len(values), WINDOWS_AT_ONCE)]
        return outputs_of([torch.from_numpy(np.concatenate(tensors)) for tensors in zip(*parts, strict=True)])

    def _run(self, heard: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return the tensors of at most `WINDOWS_AT_ONCE` windows."""
        count = len(heard)
        if count < WINDOWS_AT_ONCE:
            heard = np.concatenate([heard, np.zeros((WINDOWS_AT_ONCE - count, *self._shape[1:]), dtype=np.float32)])
        stream = self._idle.get()
        try:
            outputs = stream.run(heard) if stream.is_tried else self._try_out(stream, heard)
            return [tensor[:count] for tensor in outputs]
        finally:
            self._idle.put(stream)

    def _try_out(self, stream: "_Stream", heard: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Run a stream's first windows until two results are the same, and return these: outputs of a first run can be left unfilled.

        It is tried with what it is for, and not when it is made: a stream that gets no windows costs nothing, and one run is not thrown away.
        """
        before = stream.run(heard)
        for _ in range(_MOST_RUNS - 1):
            outputs = stream.run(heard)
            if _same(before, outputs):
                stream.is_tried = True
                return outputs
            before = outputs
        raise InputError(
            f"{self._path} must give the same outputs each time, but does not on this machine. Export with --format torch."
        )


class _Stream:
    """A request of OpenVINO, which runs in a thread of its own."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self.is_tried = False

    def run(self, heard: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return the tensors of `WINDOWS_AT_ONCE` windows."""
        self._request.infer([heard], share_inputs=True)
        return [tensor.data.copy() for tensor in self._request.output_tensors]


def import_openvino() -> Any:
    """Return OpenVINO. Raises InputError, with the line that installs it, when it is missing."""
    try:
        import openvino
    except ImportError:
        raise InputError("The format openvino needs OpenVINO, which is not installed: pip install openvino") from None
    return openvino


def _same(first: list[NDArray[np.float32]], second: list[NDArray[np.float32]]) -> bool:
    return all(
        np.isfinite(a).all() and np.allclose(a, b, rtol=_TOLERANCE, atol=_TOLERANCE) for a, b in zip(first, second, strict=True)
    )
