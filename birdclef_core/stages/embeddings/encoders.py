"""Encoders that make embeddings: the timm encoder of a model with its first weights, or a network in an ONNX file.

Shapes: B windows, T samples, D numbers of an embedding.
"""

import shutil
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor

from birdclef_core.config import EMBEDS, StageConfig
from birdclef_core.errors import InputError
from birdclef_core.identity import file_sha256
from birdclef_core.stages.embeddings.onnx_encoder import OnnxEncoder
from birdclef_core.stages.embeddings.stored import ONNX_FILE, TIMM_WEIGHTS
from birdclef_core.stages.initial_model import initial_model
from birdclef_core.stages.precision import Arithmetic
from birdclef_core.stages.task import StageTask
from birdclef_core.taxonomy import LabelSpace

ONNX_NAME = "onnx:"
"""Beginning of the name of an ONNX encoder, which its sha256 follows; the name stands for first weights in the identity of a stage."""


class Embed(Protocol):
    """An encoder that is not trained."""

    def __call__(self, wave_BT: Tensor, /) -> Tensor:
        """Return embedding_BD in float32 on the CPU, of wave_BT in float32."""
        ...

    def save(self, folder: Path) -> None:
        """Write into `folder` what is needed to hear with it again."""
        ...


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
    return f"{ONNX_NAME}{file_sha256(path)}"


def build_embed(task: StageTask, device: torch.device) -> Embed:
    """Return the encoder of a task. Raises InputError for an ONNX file that is missing here, is another one or cannot be run."""
    path = onnx_file(task.config)
    if path is None:
        return _Timm(task, device)
    if onnx_hash(path) != task.identity["parent"]:
        raise InputError(
            f"{path} must be the same file on every worker, but its sha256 here is not {task.identity['parent'].removeprefix(ONNX_NAME)}."
        )
    return _Onnx(path, task.config)


class _Timm:
    """Hears a window at once, whatever the head of the recipe is, and takes the mean of the encoder's features."""

    def __init__(self, task: StageTask, device: torch.device) -> None:
        whole = replace(task.model, head="sed")  # a CNN would cut it in pieces
        self._model, _ = initial_model(whole, task.config, LabelSpace.of("none", ["none"]), device, pretrained=task.pretrained)
        self._model.eval()
        self._arithmetic, self._device = Arithmetic(task.config.precision, device), device

    @torch.inference_mode()
    def __call__(self, wave_BT: Tensor) -> Tensor:
        mel_BKFN = self._model.spectrograms(wave_BT.to(self._device))
        with self._arithmetic.autocast():
            features_BDHW = self._model.encoder(mel_BKFN)
        embedding_BD: Tensor = features_BDHW.float().mean(dim=(2, 3)).cpu()
        return embedding_BD

    def save(self, folder: Path) -> None:
        state = self._model.encoder.state_dict()
        save_file({name: tensor.cpu().contiguous() for name, tensor in state.items()}, folder / TIMM_WEIGHTS)


class _Onnx(OnnxEncoder):
    def __init__(self, path: Path, config: StageConfig) -> None:
        super().__init__(path, config.encoder_rate_hz, config.encoder_output)

    def save(self, folder: Path) -> None:
        shutil.copyfile(self._path, folder / ONNX_FILE)
