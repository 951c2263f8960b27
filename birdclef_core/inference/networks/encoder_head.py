"""A head on embeddings as a model that hears: with the timm encoder, or with the ONNX file, that its embeddings were made by.

Shapes: B clips, T samples, D numbers of an embedding, H and W the feature map (frequency, time), C species.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from birdclef_core.config import ModelConfig, Precision
from birdclef_core.inference.runtime import Outputs
from birdclef_core.models.encoders import Encoder
from birdclef_core.models.heads import EmbeddingHead, Output


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


class HeadNetwork(nn.Module):
    """The head alone, for a bundle whose encoder is a file of its own: embedding_BD -> logits_BC and the embedding."""

    input_name = "numbers"
    output_names = ("clip", "embedding")

    def __init__(self, head: EmbeddingHead) -> None:
        super().__init__()
        self.head = head.eval()

    def forward(self, embedding_BD: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(embedding_BD), embedding_BD * 1.0  # an output that is an input has no name of its own


class TorchHead:
    """Runs a head in torch, on the CPU."""

    def __init__(self, head: EmbeddingHead) -> None:
        self._network = HeadNetwork(head)

    @torch.inference_mode()
    def __call__(self, embedding_BD: Tensor) -> Outputs:
        logits_BC, embedding_BD = self._network(embedding_BD)
        return Outputs(logits_BC, None, embedding_BD)
