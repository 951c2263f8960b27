"""Runs a network with OpenVINO, on the cores of a CPU: one stream a core and call, so that no two cores wait for each other.

What it is given are windows, their first dimension: spectrograms (B, K, F, N), or sound (B, T) for a network that makes its own.
"""

from concurrent.futures import ThreadPoolExecutor
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
_WARM_UPS = 3
_TOLERANCE = 1e-3


class OpenVinoRuntime:
    """Runs the network in an OpenVINO file. It is compiled for `WINDOWS_AT_ONCE` windows, and a smaller rest is filled up."""

    def __init__(self, path: Path, precision: str, num_streams: int) -> None:
        """Compile the network for so many streams, a thread each, and try every stream.

        Raises InputError when OpenVINO is missing, the file holds no network that it can compile, or this CPU does not have the precision;
        and when the network does not give the same outputs twice.
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
        self._idle: SimpleQueue[Any] = SimpleQueue()
        """A request for each stream, which a call takes while it runs."""
        for _ in range(num_streams):
            self._idle.put(self._compiled.create_infer_request())
        self._try_out(path, num_streams)

    def __call__(self, heard: Tensor) -> Outputs:
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
        request = self._idle.get()
        try:
            request.infer([heard], share_inputs=True)
            return [request.get_output_tensor(index).data[:count].copy() for index in range(len(self._compiled.outputs))]
        finally:
            self._idle.put(request)

    def _try_out(self, path: Path, num_streams: int) -> None:
        """Run every stream on the same noise until two results are the same: outputs of a first run can be left unfilled."""
        noise = np.random.default_rng(0).random(self._shape, dtype=np.float32)
        with ThreadPoolExecutor(num_streams) as pool:
            for _ in range(_WARM_UPS):
                first, *others = pool.map(lambda _: self._run(noise), range(2 * num_streams))
                if all(_same(first, outputs) for outputs in others):
                    return
        raise InputError(
            f"{path} must give the same outputs each time, but does not on this machine. Export with --format torch."
        )


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
