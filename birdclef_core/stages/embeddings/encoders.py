"""Encoders that make embeddings: the timm encoder of a model with its first weights, or a network in an ONNX file.

Shapes: B windows, T samples, D numbers of an embedding.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchaudio
from torch import Tensor

from birdclef_core.config import EMBEDS, SAMPLE_RATE_HZ, StageConfig
from birdclef_core.errors import InputError
from birdclef_core.identity import file_sha256
from birdclef_core.models.detector import Detector
from birdclef_core.stages.initial_model import initial_model
from birdclef_core.stages.precision import Arithmetic
from birdclef_core.stages.task import StageTask
from birdclef_core.taxonomy import LabelSpace

Embed = Callable[[Tensor], Tensor]
"""From wave_BT in float32 to embedding_BD in float32 on the CPU."""


def onnx_file(config: StageConfig) -> Path | None:
    """Return the ONNX file of a stage that keeps embeddings; None: it takes the timm encoder of the model. Raises InputError when the file
    is not there."""
    name = config.predicts.removeprefix(EMBEDS)
    if name == "timm":
        return None
    path = Path(name)
    if path.suffix != ".onnx" or not path.is_file():
        raise InputError(
            f"predicts of stage {config.name} must be {EMBEDS}timm or {EMBEDS} and a readable .onnx file, but is {name!r}."
        )
    return path


@lru_cache(maxsize=64)
def onnx_hash(path: Path) -> str:
    """Return `onnx:` and the sha256 of the file, once for a process."""
    return f"onnx:{file_sha256(path)}"


def build_embed(task: StageTask, device: torch.device) -> Embed:
    """Return the encoder of a task. Raises InputError for an ONNX file that is missing here, is another one or cannot be run."""
    path = onnx_file(task.config)
    if path is None:
        return _timm(task, device)
    if onnx_hash(path) != task.identity["parent"]:
        raise InputError(
            f"{path} must be the same file on every worker, but its sha256 here is not {task.identity['parent'][5:]}."
        )
    return _Onnx(path, task.config)


def _timm(task: StageTask, device: torch.device) -> Embed:
    model: Detector
    model, _ = initial_model(task.model, task.config, LabelSpace.of("none", ["none"]), device, pretrained=task.pretrained)
    model.eval()
    arithmetic = Arithmetic(task.config.precision, device)

    @torch.inference_mode()
    def embed(wave_BT: Tensor) -> Tensor:
        mel_BKFN = model.spectrograms(wave_BT.to(device))
        with arithmetic.autocast():
            # A CNN reads a clip in pieces; an embedding is of the whole window.
            return model.encoder(mel_BKFN).float().mean(dim=(2, 3)).cpu()

    return embed


class _Onnx:
    """Runs an ONNX network that takes sound."""

    def __init__(self, path: Path, config: StageConfig) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise InputError(
                "An ONNX encoder needs ONNX Runtime, which is not installed: pip install 'birdclef-sweeps[onnx]'"
            ) from None
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no class of their own
            raise InputError(
                f"{path} must be a network that ONNX Runtime can run, but: {' '.join(str(error).split())[:200]}"
            ) from None
        self._path, self._rate_hz, self._output = path, config.encoder_rate_hz, config.encoder_output
        names = [item.name for item in self._session.get_outputs()]
        if self._output and self._output not in names:
            raise InputError(f"encoder_output must be an output of {path} ({', '.join(names)}), but is {self._output!r}.")
        if len(self._session.get_inputs()) != 1:
            raise InputError(f"{path} must have one input, sound (B, T), but has {len(self._session.get_inputs())}.")

    def __call__(self, wave_BT: Tensor) -> Tensor:
        if self._rate_hz != SAMPLE_RATE_HZ:
            wave_BT = torchaudio.functional.resample(wave_BT, SAMPLE_RATE_HZ, self._rate_hz)
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
