"""Runs an encoder in an ONNX file, which takes sound. It imports nothing that a bundle's own runtime lacks.

Shapes: B windows, T samples, D numbers of an embedding.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchaudio.functional as AF
from torch import Tensor

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.errors import InputError


class OnnxEncoder:
    """An encoder in an ONNX file: wave_BT at 32 kHz in float32 -> embedding_BD in float32, on the CPU. Several threads may call it."""

    def __init__(self, path: Path, rate_hz: int, output: str, *, num_threads: int = 0) -> None:
        """Load the network. `rate_hz`: sample rate of the sound that it takes. `output`: name of its output (B, D); empty: the first with
        two axes. `num_threads`: those of one call; 0: all cores.

        Raises InputError when ONNX Runtime is missing, or the file is no network with one input and such an output.
        """
        try:
            import onnxruntime
        except ImportError:
            raise InputError(
                "An ONNX encoder needs ONNX Runtime, which is not installed: pip install 'birdclef-sweeps[onnx]'"
            ) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no class of their own
            raise InputError(
                f"{path} must be a network that ONNX Runtime can run, but: {' '.join(str(error).split())[:200]}"
            ) from None
        self._path, self._rate_hz, self._output = path, rate_hz, output
        names = [item.name for item in self._session.get_outputs()]
        if output and output not in names:
            raise InputError(f"encoder_output must be an output of {path} ({', '.join(names)}), but is {output!r}.")
        if len(self._session.get_inputs()) != 1:
            raise InputError(f"{path} must have one input, sound (B, T), but has {len(self._session.get_inputs())}.")

    def __call__(self, wave_BT: Tensor) -> Tensor:
        """Return embedding_BD. Raises InputError for sound that the network does not take, or an output of another shape."""
        wave_BT = wave_BT.cpu()
        if self._rate_hz != SAMPLE_RATE_HZ:
            wave_BT = AF.resample(wave_BT, SAMPLE_RATE_HZ, self._rate_hz)
        wave = np.ascontiguousarray(wave_BT.numpy(), dtype=np.float32)
        try:
            arrays = self._session.run([self._output] if self._output else None, {self._session.get_inputs()[0].name: wave})
        except Exception as error:  # its errors have no class of their own
            raise InputError(f"{self._path} cannot take sound {wave.shape}: {' '.join(str(error).split())[:200]}") from None
        found = next((array for array in arrays if array.ndim == 2 and len(array) == len(wave)), None)
        if found is None:
            raise InputError(
                f"{self._path} must have an output (B, D), but its outputs have {[array.shape for array in arrays]}."
            )
        return torch.from_numpy(found).float()
