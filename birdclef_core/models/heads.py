"""Heads, which turn an encoder's features into species: detection with attention over time (SED), pooling of a clip (CNN), or a head on
embeddings, which are the mean of features.

Shapes: B clips, D features, H and W the feature map (frequency, time), S segments (W), C species.
`num_classes` only enters through the shapes of parameters, along their first dimension: head surgery relies on that.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DROPOUT_DRAWS = 5
"""Dropout draws that a CNN head averages over in training."""


class Output(NamedTuple):
    """The output of a detector, in float32."""

    logits_BC: Tensor
    """Logits of the clip, its scores."""
    segment_logits_BC: Tensor | None
    """SED: largest logit over the segments of the clip, for the other half of the loss. CNN: None."""
    frame_logits_BNC: Tensor | None
    """SED: logits of each segment of the feature map. CNN: None."""


class AttentionBlock(nn.Module):
    """Probability of a clip as the attention-weighted mean over its segments (PANNs, Kong et al. 2020)."""

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.attention = nn.Conv1d(num_features, num_classes, kernel_size=1)
        self.classify = nn.Conv1d(num_features, num_classes, kernel_size=1)
        for layer in (self.attention, self.classify):
            _init_xavier(layer)

    def forward(self, features_BDS: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits_BC of the clip probability, and segment_logits_BCS.

        With p = sum a * sigmoid(x), log p is the log-sum-exp of log a + logsigmoid(x), and log (1 - p) that of log a + logsigmoid(-x).
        Their difference is the logit of p. It is finite and has a gradient even where p itself rounds to 0 or 1.
        """
        log_attention_BCS = torch.log_softmax(torch.tanh(self.attention(features_BDS)), dim=-1)
        segments_BCS = self.classify(features_BDS)
        log_present_BC = torch.logsumexp(log_attention_BCS + F.logsigmoid(segments_BCS), dim=-1)
        log_absent_BC = torch.logsumexp(log_attention_BCS + F.logsigmoid(-segments_BCS), dim=-1)
        return log_present_BC - log_absent_BC, segments_BCS


class SedHead(nn.Module):
    """SED head: features_BDHW -> Output with scores for each segment of time."""

    def __init__(self, num_features: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(num_features, num_features)
        self.attention_block = AttentionBlock(num_features, num_classes)
        _init_xavier(self.linear)

    def forward(self, features_BDHW: Tensor) -> Output:
        features_BDS = features_BDHW.mean(dim=2)
        features_BDS = F.max_pool1d(features_BDS, 3, 1, 1) + F.avg_pool1d(features_BDS, 3, 1, 1)
        features_BSD = self.dropout(features_BDS).transpose(1, 2)
        features_BDS = self.dropout(F.relu(self.linear(features_BSD))).transpose(1, 2)
        with torch.autocast(features_BDS.device.type, enabled=False):
            logits_BC, segments_BCS = self.attention_block(features_BDS.float())
        return Output(logits_BC, segments_BCS.amax(dim=-1), segments_BCS.transpose(1, 2))

    def frozen_parts(self) -> list[nn.Module]:
        """Return the parts that finetuning keeps fixed."""
        return [self.linear]


class GeM(nn.Module):
    """Generalised mean over the feature map with a learnt power (Radenović et al. 2018): features_BDHW -> features_BD."""

    def __init__(self, power: float = 3.0, floor: float = 1e-6) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor([power]))
        self.floor = floor

    def forward(self, features_BDHW: Tensor) -> Tensor:
        # Always in float32: in half precision, the third power of 41 is already infinite.
        with torch.autocast(features_BDHW.device.type, enabled=False):
            return features_BDHW.float().clamp(min=self.floor).pow(self.power).mean(dim=(2, 3)).pow(1 / self.power)


class CnnHead(nn.Module):
    """CNN head: features_BDHW of a whole clip -> Output with scores for the clip only.

    `map_dropout` drops single places of the feature map before it is pooled, as timm's own models do with `drop_rate` when they pool
    nothing, so that the 2023 solution had it.
    """

    def __init__(self, num_features: int, num_classes: int, dropout: float, map_dropout: float) -> None:
        super().__init__()
        self.map_dropout = nn.Dropout(map_dropout)
        self.gem = GeM()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(num_features, num_classes)

    def forward(self, features_BDHW: Tensor) -> Output:
        features_BD = self.gem(self.map_dropout(features_BDHW))
        with torch.autocast(features_BD.device.type, enabled=False):
            return Output(self._logits(features_BD), None, None)

    def _logits(self, features_BD: Tensor) -> Tensor:
        """In training, the mean over several dropout draws (multi-sample dropout, Inoue 2019), computed in one pass.

        The layer is linear, so the mean of its outputs is its output for the mean of the features.
        """
        if self.training:
            features_BD = self.dropout(features_BD.expand(DROPOUT_DRAWS, -1, -1)).mean(dim=0)
        return self.linear(features_BD)

    def frozen_parts(self) -> list[nn.Module]:
        """Return the parts that finetuning keeps fixed; it has no dropout on the feature map."""
        return [self.gem, self.map_dropout]


class EmbeddingHead(nn.Module):
    """From embeddings to logits: one linear layer, or two with a ReLU between; embeddings are normalised to a length that does not change."""

    def __init__(self, num_numbers: int, num_species: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.hidden = hidden
        layers: list[nn.Module] = [nn.LayerNorm(num_numbers)]
        if hidden:
            layers += [nn.Linear(num_numbers, hidden), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(hidden or num_numbers, num_species))

    def forward(self, embedding_BD: Tensor) -> Tensor:
        """Return logits_BC."""
        logits_BC: Tensor = self.layers(embedding_BD)
        return logits_BC


def _init_xavier(layer: nn.Linear | nn.Conv1d) -> None:
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
