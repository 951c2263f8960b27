"""A head on embeddings with the encoder that made them, as a model that hears. Teachers and deployed detectors share it.

Shapes: B clips, T samples, D numbers of an embedding, H and W the feature map (frequency, time), C species.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from birdclef_core.audio.spectrogram import MelSpectrogram
from birdclef_core.config import SAMPLE_RATE_HZ, ModelConfig, Precision, StageConfig
from birdclef_core.errors import InputError, StoreError
from birdclef_core.identity import file_sha256, restore
from birdclef_core.models.encoders import RANDOM, Encoder, build_encoder
from birdclef_core.models.heads import EmbeddingHead, Output
from birdclef_core.stages.embeddings.encoders import ONNX_NAME
from birdclef_core.stages.embeddings.onnx_encoder import OnnxEncoder
from birdclef_core.stages.embeddings.stored import ONNX_FILE, TIMM_WEIGHTS
from birdclef_core.stages.precision import Arithmetic
from birdclef_core.store.stage_store import StageEntry, StageRecord


class PooledHead(nn.Module):
    """A head on the mean of an encoder's features: features_BDHW -> Output with scores for the clip only."""

    def __init__(self, head: EmbeddingHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, features_BDHW: Tensor) -> Output:
        with torch.autocast(features_BDHW.device.type, enabled=False):
            return Output(self.head(features_BDHW.float().mean(dim=(2, 3))), None, None)


class EncoderWithHead(nn.Module):
    """A timm encoder that was not trained, and a head on its embeddings: the parts that `Network` takes of a detector."""

    def __init__(self, config: ModelConfig, clip_s: float, precision: Precision, encoder: Encoder, head: EmbeddingHead) -> None:
        """`clip_s`: seconds of the clips that its embeddings are of. `precision`: in which the encoder made them."""
        super().__init__()
        self.config, self.clip_s, self.precision = config, clip_s, precision
        self.encoder, self.input_norm, self.head = encoder, nn.Identity(), PooledHead(head)


@dataclass(frozen=True, kw_only=True)
class FileWithHead:
    """An encoder in an ONNX file, and a head on its embeddings."""

    config: ModelConfig
    """Of this only the name of the encoder and the frequencies mean something."""
    clip_s: float
    path: Path
    rate_hz: int
    output: str
    head: EmbeddingHead


class HearingHead(nn.Module):
    """A head on embeddings that hears clips of sound with its encoder: wave_BT -> logits_BC. An ONNX encoder runs on the CPU."""

    def __init__(self, made: EncoderWithHead | FileWithHead, device: torch.device) -> None:
        """Move it to the device, in evaluation mode. Raises InputError for an ONNX encoder that cannot be run."""
        super().__init__()
        self.clip = round(made.clip_s * SAMPLE_RATE_HZ)
        """Samples of a clip."""
        self._device, self.head = device, made.head
        self._file = (
            OnnxEncoder(made.path, made.rate_hz, made.output, num_threads=torch.get_num_threads())
            if isinstance(made, FileWithHead)
            else None
        )
        if isinstance(made, EncoderWithHead):
            self.front = MelSpectrogram(made.config.spectrogram)
            self.encoder = made.encoder
            self.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._arithmetic = Arithmetic(made.precision, device)
        self.to(device).eval()

    def forward(self, wave_BT: Tensor) -> Tensor:
        with torch.autocast(self._device.type, enabled=False):
            if self._file is not None:
                logits_BC: Tensor = self.head(self._file(wave_BT).to(self._device))
                return logits_BC
            mel_BKFN = self.front(wave_BT)
            with self._arithmetic.autocast():
                features_BDHW = self.encoder(mel_BKFN)
            output: Output = self.head(features_BDHW)
            return output.logits_BC


def with_encoder(
    record: StageRecord, config: ModelConfig, weights: dict[str, Tensor], embeddings: StageEntry
) -> EncoderWithHead | FileWithHead:
    """Return a head on embeddings with the encoder that made these. `record`, `config`, `weights`: of the head; `embeddings`: the stage that
    keeps these, and with them the encoder.

    Raises InputError when the encoder was not kept or is another file, StoreError for weights of another model.
    """
    made, folder = embeddings.record.identity, embeddings.folder
    num_numbers, clip_s = len(weights["layers.0.weight"]), float(made["stage"]["clip_s"])
    hidden = restore(StageConfig, record.identity["stage"]).head_hidden
    head = EmbeddingHead(num_numbers, len(record.species), hidden, config.head_dropout)
    load_weights(head, weights, record)
    sha256 = made["parent"].removeprefix(ONNX_NAME) if made["parent"].startswith(ONNX_NAME) else None
    file = folder / (TIMM_WEIGHTS if sha256 is None else ONNX_FILE)
    if not file.is_file():
        raise InputError(
            f"The encoder of head {record.stage_id[:16]} must be with its embeddings, but {file} is not there: an older version of the "
            "code made them. Remove that stage from the store, and train the head again."
        )
    if sha256 is None:
        with torch.random.fork_rng(devices=[]):
            encoder, _ = build_encoder(config, RANDOM)
        try:
            load_weights(encoder, load_file(file), embeddings.record)
        except (OSError, SafetensorError) as error:
            raise StoreError(f"{file} must have the weights of an encoder, but: {error}") from None
        return EncoderWithHead(config, clip_s, made["stage"]["precision"], encoder, head)
    if file_sha256(file) != sha256:
        raise InputError(f"{file} must be the ONNX encoder that made the embeddings (sha256 {sha256}), but is another file.")
    rate_hz = int(made["stage"]["encoder_rate_hz"])
    heard = replace(config.spectrogram, f_min_hz=0.0, f_max_hz=min(rate_hz, SAMPLE_RATE_HZ) / 2)
    shown = replace(config, encoder=f"{ONNX_NAME}{sha256[:16]}", spectrogram=heard)
    return FileWithHead(
        config=shown, clip_s=clip_s, path=file, rate_hz=rate_hz, output=made["stage"]["encoder_output"], head=head.eval()
    )


def load_weights(model: nn.Module, weights: dict[str, Tensor], record: StageRecord) -> None:
    """Load the weights of a recorded stage into a model. Raises StoreError when they are of another one."""
    try:
        model.load_state_dict(weights)
    except (RuntimeError, KeyError) as error:
        problem = str(error).splitlines()[-1].strip()
        raise StoreError(
            f"The weights of stage {record.stage_id[:16]} must be those of the model of its record, but: {problem}"
        ) from None
