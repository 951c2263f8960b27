"""The two losses of the recipes. For a SED, half of the loss is on the clip's logits, half on the largest logits over its segments.

Shapes: B clips, C species. Targets are from 0 to 1, and several species of a clip may be above 0. A weight says how much a clip is trusted.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from birdclef_core.models.heads import Output


def ce_loss(output: Output, target_BC: Tensor, weight_B: Tensor, label_smoothing: float = 0.1) -> Tensor:
    """Return the cross-entropy with soft targets, as a weighted mean over clips: a scalar in float32.

    The losses of micro-batches add up to the loss of their batch when each is multiplied by its share of the batch's summed weights.
    """
    weight_B = weight_B.float()

    def weighted(logits_BC: Tensor) -> Tensor:
        loss_B = F.cross_entropy(logits_BC, target_BC.float(), label_smoothing=label_smoothing, reduction="none")
        return (loss_B * weight_B).sum() / weight_B.sum()

    return _over_output(weighted, output)


def bce_loss(output: Output, target_BC: Tensor, weight_B: Tensor) -> Tensor:
    """Return the binary cross-entropy, summed over species, weighted and summed over clips: a scalar in float32."""
    weight_B = weight_B.float()

    def weighted(logits_BC: Tensor) -> Tensor:
        loss_BC = F.binary_cross_entropy_with_logits(logits_BC, target_BC.float(), reduction="none")
        return (loss_BC.sum(dim=1) * weight_B).sum()

    return _over_output(weighted, output)


def _over_output(loss: Callable[[Tensor], Tensor], output: Output) -> Tensor:
    with torch.autocast(output.logits_BC.device.type, enabled=False):
        clip = loss(output.logits_BC.float())
        if output.segment_logits_BC is None:
            return clip
        return 0.5 * clip + 0.5 * loss(output.segment_logits_BC.float())
