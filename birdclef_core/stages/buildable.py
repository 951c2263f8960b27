"""Whether a stage can be built: what its encoder says of its settings, found out without weights, before anything is trained."""

from functools import lru_cache
from pathlib import Path

import torch

from birdclef_core.config import ModelConfig, StageConfig
from birdclef_core.errors import InputError
from birdclef_core.models.detector import PIECE_S
from birdclef_core.models.encoders import RANDOM, Encoder, build_encoder
from birdclef_core.stages.embeddings.encoders import build_embed, onnx_file, onnx_hash
from birdclef_core.stages.task import StageTask


def check_layers(model: ModelConfig, stage: StageConfig) -> None:
    """Raise InputError for a stage that freezes more groups of layers than its encoder has, or needs groups where timm knows none."""
    if stage.predicts or stage.embeddings or not (stage.frozen_blocks or stage.thaw_every or stage.layer_decay != 1):
        return
    try:
        number = _num_groups(_encoder_of(model))
    except InputError as error:
        raise InputError(f"Stage {stage.name}: {error}") from None
    if stage.frozen_blocks > number:
        raise InputError(
            f"frozen_blocks <= {number} must hold for stage {stage.name}, because the encoder {model.encoder!r} has so many groups of layers, "
            f"but got frozen_blocks={stage.frozen_blocks}."
        )


def check_length(model: ModelConfig, stage: StageConfig) -> None:
    """Raise InputError for clips that are too short for the encoder to make features of them. It is known to take those of PIECE_S."""
    if (
        model.head == "cnn"
        or stage.clip_s >= PIECE_S
        or stage.embeddings
        or (stage.predicts and stage.predicts != "encoder:timm")
    ):
        return
    frames = stage.clip_samples // model.spectrogram.hop_length + 1
    if not _takes(_encoder_of(model), frames):
        raise InputError(
            f"The encoder {model.encoder!r} cannot make features of clips of {stage.clip_s:g} s, {frames} frames, in stage {stage.name}. "
            "Take longer clips, a smaller hop_length, or another encoder."
        )


def check_embeds(stage: StageConfig) -> None:
    """Raise InputError for a stage of embeddings whose encoder is no file that can hear a window of the stage's length."""
    if stage.embeds and (path := onnx_file(stage)) is not None:
        _hear_silence(path, onnx_hash(path), stage.encoder_rate_hz, stage.encoder_output, stage)


@lru_cache(maxsize=64)
def _hear_silence(path: Path, name: str, rate_hz: int, output: str, stage: StageConfig) -> None:
    task = StageTask(
        stage_id="",
        parent_id=None,
        recipe="",
        model=ModelConfig(),
        config=stage,
        pretrained=RANDOM,
        identity={"parent": name},
    )
    build_embed(task, torch.device("cpu"))(torch.zeros(2, stage.clip_samples))


def _encoder_of(model: ModelConfig) -> ModelConfig:
    """The model without what changes nothing of its encoder's shape."""
    return ModelConfig(
        encoder=model.encoder,
        encoder_axes=model.encoder_axes,
        spectrogram=model.spectrogram,
        drop_rate=0.0,
        drop_path_rate=0.0,
    )


@lru_cache(maxsize=8)
def _built(model: ModelConfig, device: str) -> Encoder:
    with torch.device(device):
        return build_encoder(model, RANDOM)[0].eval()


@lru_cache(maxsize=256)
def _num_groups(model: ModelConfig) -> int:
    for device in ("meta", "cpu"):  # without weights first, which takes a tenth of the time
        try:
            return len(_built(model, device).layer_groups())
        except InputError:
            raise
        except Exception:  # on the meta device, any error of an architecture
            continue
    return 0


@lru_cache(maxsize=1024)
def _takes(model: ModelConfig, frames: int) -> bool:
    shape = (1, model.spectrogram.num_channels, model.spectrogram.num_mels, frames)
    for device in ("meta", "cpu"):
        try:
            encoder = _built(model, device)
        except Exception:  # what is wrong with the encoder itself is said elsewhere
            continue
        try:
            with torch.no_grad():
                features = encoder(torch.zeros(shape, device=device))
            return features.numel() > 0  # on the meta device, a picture that is too small becomes an empty one
        except Exception:  # any error of an architecture
            if device == "cpu":
                return False
    return True
