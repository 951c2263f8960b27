"""Losses are what the recipes say, written out by hand here.

Shapes: B clips, C species.
"""

import pytest
import torch

from birdclef_core.models.heads import Output
from birdclef_core.models.losses import bce_loss, ce_loss

GENERATOR = torch.Generator().manual_seed(0)
LOGITS_BC = torch.randn(4, 6, generator=GENERATOR)
SEGMENTS_BC = torch.randn(4, 6, generator=GENERATOR)
TARGET_BC = torch.tensor([[1, 0.9, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 0.9, 0.9], [0, 0, 0, 0, 0, 1.0]])
WEIGHT_B = torch.tensor([1.0, 0.8, 0.1, 0.5])


def smoothed_ce(logits_BC: torch.Tensor, smoothing: float) -> torch.Tensor:
    target_BC = TARGET_BC * (1 - smoothing) + smoothing / 6
    loss_B = -(target_BC * logits_BC.log_softmax(1)).sum(1)
    return (loss_B * WEIGHT_B / WEIGHT_B.sum()).sum()


def summed_bce(logits_BC: torch.Tensor) -> torch.Tensor:
    p_BC = logits_BC.sigmoid()
    loss_BC = -(TARGET_BC * p_BC.log() + (1 - TARGET_BC) * (1 - p_BC).log())
    return (loss_BC.sum(1) * WEIGHT_B).sum()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(smoothing: float) -> None:
    cnn = ce_loss(Output(LOGITS_BC, None, None), TARGET_BC, WEIGHT_B, smoothing)
    torch.testing.assert_close(cnn, smoothed_ce(LOGITS_BC, smoothing))
    sed = ce_loss(Output(LOGITS_BC, SEGMENTS_BC, None), TARGET_BC, WEIGHT_B, smoothing)
    torch.testing.assert_close(sed, 0.5 * smoothed_ce(LOGITS_BC, smoothing) + 0.5 * smoothed_ce(SEGMENTS_BC, smoothing))


def test_binary_cross_entropy() -> None:
    torch.testing.assert_close(bce_loss(Output(LOGITS_BC, None, None), TARGET_BC, WEIGHT_B), summed_bce(LOGITS_BC))
    sed = bce_loss(Output(LOGITS_BC, SEGMENTS_BC, None), TARGET_BC, WEIGHT_B)
    torch.testing.assert_close(sed, 0.5 * summed_bce(LOGITS_BC) + 0.5 * summed_bce(SEGMENTS_BC))


def test_micro_batches_add_up_by_their_share_of_the_weights() -> None:
    def loss(part: slice) -> torch.Tensor:
        return ce_loss(Output(LOGITS_BC[part], None, None), TARGET_BC[part], WEIGHT_B[part])

    parts = [slice(0, 1), slice(1, 4)]
    summed = sum(loss(part) * WEIGHT_B[part].sum() / WEIGHT_B.sum() for part in parts)
    torch.testing.assert_close(summed, loss(slice(None)))


@pytest.mark.parametrize("loss", [ce_loss, bce_loss])
def test_is_float32_under_autocast_and_finite_at_saturation(loss) -> None:
    output = Output(torch.full((4, 6), 300.0, dtype=torch.bfloat16), torch.full((4, 6), -300.0, dtype=torch.bfloat16), None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(output, TARGET_BC, WEIGHT_B)
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
