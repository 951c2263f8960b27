"""The losses of stages. For a SED, half of the loss is on the clip's logits, half on the largest logits over its segments.

Shapes: B clips, C species; I and J are clips of a pair. Targets are from 0 to 1, and several species of a clip may be above 0. A weight
says how much a clip is trusted.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from birdclef_core.config import SUMMED_LOSSES, StageConfig
from birdclef_core.models.heads import Output

_PAIRS_AT_ONCE = 2**24
"""Pairs of clips that a ranking loss looks at in one operation: 64 MiB in float32."""
_SMALLEST = 1e-8
"""What stands for a probability of 0, where a power of it must have a gradient."""


def batch_share_of_loss(config: StageConfig, output: Output, target_BC: Tensor, weight_B: Tensor, total_weight: Tensor) -> Tensor:
    """Return what a micro-batch adds to the loss of its batch, a scalar in float32.

    `total_weight` is the sum of the weights of the whole batch.
    """
    loss = _loss(config, output, target_BC, weight_B)
    return loss if config.loss in SUMMED_LOSSES else loss * (weight_B.sum() / total_weight)


def _loss(config: StageConfig, output: Output, target_BC: Tensor, weight_B: Tensor) -> Tensor:
    match config.loss:
        case "ce":
            return ce_loss(output, target_BC, weight_B, config.label_smoothing)
        case "bce":
            return bce_loss(output, target_BC, weight_B)
        case "focal":
            return focal_loss(output, target_BC, weight_B, gamma=config.focal_gamma, alpha=config.focal_alpha)
        case "asymmetric":
            return asymmetric_loss(
                output,
                target_BC,
                weight_B,
                positive_gamma=config.positive_gamma,
                negative_gamma=config.negative_gamma,
                negative_margin=config.negative_margin,
            )
        case "soft_auc":
            return soft_auc_loss(output, target_BC, weight_B)


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


def focal_loss(output: Output, target_BC: Tensor, weight_B: Tensor, *, gamma: float, alpha: float) -> Tensor:
    """Return the focal loss in its sigmoid form (Lin et al. 2017, https://arxiv.org/abs/1708.02002): a scalar in float32.

    A species that is heard costs alpha (1 - p)^gamma (-log p), another one (1 - alpha) p^gamma (-log (1 - p)), where p is the sigmoid of
    its logit. A soft target t costs t times the former and 1 - t times the latter. It is summed over species, weighted and summed over
    clips.
    """
    weight_B = weight_B.float()

    def weighted(logits_BC: Tensor) -> Tensor:
        log_present_BC, log_absent_BC = F.logsigmoid(logits_BC), F.logsigmoid(-logits_BC)
        # Powers as exponentials: their gradients are finite where p or 1 - p is 0 in float32.
        present_BC = alpha * target_BC * torch.exp(gamma * log_absent_BC) * log_present_BC
        absent_BC = (1 - alpha) * (1 - target_BC) * torch.exp(gamma * log_present_BC) * log_absent_BC
        return -((present_BC + absent_BC).sum(dim=1) * weight_B).sum()

    return _over_output(weighted, output)


def asymmetric_loss(
    output: Output, target_BC: Tensor, weight_B: Tensor, *, positive_gamma: float, negative_gamma: float, negative_margin: float
) -> Tensor:
    """Return the asymmetric loss (Ridnik et al. 2021, https://arxiv.org/abs/2009.14119): a scalar in float32.

    A species that is heard costs (1 - p)^positive_gamma (-log p), another one q^negative_gamma (-log (1 - q)), where p is the sigmoid of
    its logit and q = max(p - negative_margin, 0). A soft target t costs t times the former and 1 - t times the latter. It is summed over
    species, weighted and summed over clips.
    """
    weight_B = weight_B.float()
    log_margin = math.log(negative_margin) if negative_margin else -math.inf

    def weighted(logits_BC: Tensor) -> Tensor:
        log_present_BC, log_absent_BC = F.logsigmoid(logits_BC), F.logsigmoid(-logits_BC)
        present_BC = target_BC * torch.exp(positive_gamma * log_absent_BC) * log_present_BC
        shifted_BC = (log_present_BC.exp() - negative_margin).clamp(min=_SMALLEST)
        # 1 - q is (1 - p) + margin, at most 1. As a sum of logarithms it is exact where p is 1 in float32.
        log_shifted_absent_BC = torch.logaddexp(log_absent_BC, log_absent_BC.new_full((), log_margin)).clamp(max=0)
        absent_BC = (1 - target_BC) * shifted_BC**negative_gamma * log_shifted_absent_BC
        return -((present_BC + absent_BC).sum(dim=1) * weight_B).sum()

    return _over_output(weighted, output)


def soft_auc_loss(output: Output, target_BC: Tensor, weight_B: Tensor) -> Tensor:
    """Return a ranking loss whose minimum has each species' clips in the right order, as AUROC asks for: a scalar in float32.

    It is the pairwise logistic loss, which is consistent with AUROC (Gao & Zhou 2015, https://arxiv.org/abs/1208.0645). For clips i and j
    and the logits s of a species, a pair costs log(1 + exp(s_j - s_i)). It counts by the probability that the species is heard in i and
    not in j, t_i (1 - t_j) for soft targets, and by the weights of both clips. The pairs of a clip i are averaged over the other clips,
    then summed over species; the result is the weighted mean over the clips i. Clips are compared within a micro-batch only, so with
    smaller ones each is compared with fewer others. A micro-batch in which all clips have the same species teaches nothing.
    """
    weight_B = weight_B.float()

    def weighted(logits_BC: Tensor) -> Tensor:
        positive_BC, negative_BC = target_BC * weight_B[:, None], (1 - target_BC) * weight_B[:, None]
        negative_BC = negative_BC / negative_BC.sum(dim=0).clamp(min=_SMALLEST)
        return _PairwiseLogistic.apply(logits_BC, positive_BC, negative_BC) / weight_B.sum()

    return _over_output(weighted, output)


class _PairwiseLogistic(torch.autograd.Function):
    """Sum over species and pairs of positive_i negative_j log(1 + exp(s_j - s_i)), for logits s.

    The gradient is computed at once, a part of the species after the other: autograd would keep several tensors of B x B x C for it.
    """

    @staticmethod
    def forward(ctx: Any, logits_BC: Tensor, positive_BC: Tensor, negative_BC: Tensor) -> Tensor:
        at_once = max(1, _PAIRS_AT_ONCE // len(logits_BC) ** 2)
        total, gradients = logits_BC.new_zeros(()), []
        for s_CB, positive_CB, negative_CB in zip(
            *(tensor.T.split(at_once) for tensor in (logits_BC, positive_BC, negative_BC)), strict=True
        ):
            above_CIJ = s_CB[:, None, :] - s_CB[:, :, None]
            pair_CIJ = positive_CB[:, :, None] * negative_CB[:, None, :]
            total = total + (F.softplus(above_CIJ) * pair_CIJ).sum()
            slope_CIJ = above_CIJ.sigmoid_().mul_(pair_CIJ)
            gradients.append(slope_CIJ.sum(dim=1) - slope_CIJ.sum(dim=2))
        ctx.save_for_backward(torch.cat(gradients).T)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient_BC,) = ctx.saved_tensors
        return gradients[0] * gradient_BC, None, None


def _over_output(loss: Callable[[Tensor], Tensor], output: Output) -> Tensor:
    with torch.autocast(output.logits_BC.device.type, enabled=False):
        clip = loss(output.logits_BC.float())
        if output.segment_logits_BC is None:
            return clip
        return 0.5 * clip + 0.5 * loss(output.segment_logits_BC.float())
