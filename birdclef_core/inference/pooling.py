"""From a network's outputs to one logit for each window and species.

Shapes: B windows, S segments of time, C species.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from birdclef_core.inference.procedure import Procedure
from birdclef_core.inference.runtime import Outputs


def pool(outputs: Outputs, procedure: Procedure) -> Tensor:
    """Return logits_BC of the windows in float32.

    With `frames`, p_k is the largest probability of a SED over the segments of the window shifted by k, and the window's probability
    is (1 - 2w) p_0 + w p_-d + w p_+d. Its logit is computed from the largest logits x_k as the log-sum-exp of log w_k + logsigmoid(x_k)
    minus that of log w_k + logsigmoid(-x_k), which is finite where the probability itself rounds to 0 or 1.
    """
    segments_BSC = outputs.segments_BSC
    if segments_BSC is None or procedure.pool == "clip":
        return outputs.clip_BC.float()
    segments_BSC = segments_BSC.float()
    count = segments_BSC.shape[1]
    first, last = procedure.segments(count)
    if not procedure.side_weight:
        return segments_BSC[:, first:last].amax(dim=1)
    shift = procedure.shift(count)
    readings = [_largest(segments_BSC, first + by, last + by) for by in (0, -shift, shift)]
    weights = (1 - 2 * procedure.side_weight, procedure.side_weight, procedure.side_weight)
    return mean_logit(torch.stack(readings), torch.tensor(weights, device=segments_BSC.device))


def mean_logit(logits_KBC: Tensor, weights_K: Tensor) -> Tensor:
    """Return the logits of the weighted means of K probabilities that are given as logits. The weights must add up to 1."""
    log_K11 = weights_K.log()[:, None, None]
    present_BC = torch.logsumexp(log_K11 + F.logsigmoid(logits_KBC), dim=0)
    absent_BC = torch.logsumexp(log_K11 + F.logsigmoid(-logits_KBC), dim=0)
    return present_BC - absent_BC


def _largest(segments_BSC: Tensor, first: int, last: int) -> Tensor:
    """Return the largest logit of segments `first` to `last`, as far as they are there."""
    count = segments_BSC.shape[1]
    first = min(max(0, first), count - 1)
    return segments_BSC[:, first : max(last, first + 1)].amax(dim=1)


def probabilities(logits: Tensor) -> Tensor:
    """Return probabilities in float64, where they keep the order of logits up to 36; in float32 they tie from 17 on."""
    return logits.double().sigmoid()
