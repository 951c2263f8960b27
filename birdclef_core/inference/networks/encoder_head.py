"""A head on embeddings without its encoder, which is a file of its own.

Shapes: B clips, D numbers of an embedding, C species.
"""

import torch
from torch import Tensor, nn

from birdclef_core.inference.runtime import Outputs
from birdclef_core.models.heads import EmbeddingHead


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
