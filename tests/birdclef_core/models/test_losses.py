"""Losses are what the recipes and the papers say, written out by hand here.

Shapes: B clips, C species.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from birdclef_core.config import LossName, StageConfig
from birdclef_core.models import losses
from birdclef_core.models.heads import Output
from birdclef_core.models.losses import asymmetric_loss, batch_share_of_loss, bce_loss, ce_loss, focal_loss, soft_auc_loss
from birdclef_core.recipes import sed_v2s

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


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def by_clip_and_species(cost: Callable[[float, float], float], logits_BC: Tensor) -> float:
    """The sum of the costs of all clips and species, by their probabilities and targets."""
    total = 0.0
    for clip, weight in enumerate(WEIGHT_B.tolist()):
        for species in range(6):
            p, target = sigmoid(float(logits_BC[clip, species])), float(TARGET_BC[clip, species])
            total += weight * cost(p, target)
    return total


def plain_focal(gamma: float, alpha: float) -> Callable[[Tensor], float]:
    """Lin et al. 2017, equation 5, where a soft target is so much of a positive and the rest of a negative."""

    def cost(p: float, target: float) -> float:
        present = -alpha * (1 - p) ** gamma * math.log(p)
        absent = -(1 - alpha) * p**gamma * math.log(1 - p)
        return target * present + (1 - target) * absent

    return lambda logits_BC: by_clip_and_species(cost, logits_BC)


def plain_asymmetric(positive_gamma: float, negative_gamma: float, margin: float) -> Callable[[Tensor], float]:
    """Ridnik et al. 2021, equations 4 to 6."""

    def cost(p: float, target: float) -> float:
        shifted = max(p - margin, 0)
        present = (1 - p) ** positive_gamma * math.log(p)
        absent = shifted**negative_gamma * math.log(1 - shifted)
        return -target * present - (1 - target) * absent

    return lambda logits_BC: by_clip_and_species(cost, logits_BC)


def plain_soft_auc(logits_BC: Tensor) -> float:
    """Gao & Zhou 2015, with the logistic loss of pairs, soft targets and weights."""
    s, t, w = (tensor.double().numpy() for tensor in (logits_BC, TARGET_BC, WEIGHT_B))
    total = 0.0
    for species in range(s.shape[1]):
        for i in range(len(s)):
            costs = [math.log(1 + math.exp(s[j, species] - s[i, species])) for j in range(len(s))]
            total += w[i] * t[i, species] * np.average(costs, weights=w * (1 - t[:, species]))
    return total / w.sum()


CASES = [
    (lambda *batch: focal_loss(*batch, gamma=2.0, alpha=0.25), plain_focal(2.0, 0.25)),
    (lambda *batch: focal_loss(*batch, gamma=0.5, alpha=0.6), plain_focal(0.5, 0.6)),
    (
        lambda *batch: asymmetric_loss(*batch, positive_gamma=0.0, negative_gamma=4.0, negative_margin=0.05),
        plain_asymmetric(0.0, 4.0, 0.05),
    ),
    (
        lambda *batch: asymmetric_loss(*batch, positive_gamma=1.5, negative_gamma=0.5, negative_margin=0.6),
        plain_asymmetric(1.5, 0.5, 0.6),
    ),
    (soft_auc_loss, plain_soft_auc),
]


@pytest.mark.parametrize(("loss", "plain"), CASES)
def test_a_loss_is_that_of_its_paper(loss, plain) -> None:
    cnn = loss(Output(LOGITS_BC, None, None), TARGET_BC, WEIGHT_B)
    assert cnn.item() == pytest.approx(plain(LOGITS_BC), rel=1e-5)
    sed = loss(Output(LOGITS_BC, SEGMENTS_BC, None), TARGET_BC, WEIGHT_B)
    assert sed.item() == pytest.approx(0.5 * plain(LOGITS_BC) + 0.5 * plain(SEGMENTS_BC), rel=1e-5)


@pytest.mark.parametrize(("loss", "plain"), CASES)
def test_the_gradient_is_the_slope_of_the_loss(loss, plain) -> None:
    logits_BC = LOGITS_BC.double().requires_grad_()
    loss(Output(logits_BC, None, None), TARGET_BC, WEIGHT_B).backward()
    step = 1e-5
    for clip, species in ((0, 0), (0, 1), (2, 3), (3, 0)):
        change_BC = torch.zeros_like(LOGITS_BC, dtype=torch.float64)
        change_BC[clip, species] = step
        slope = (plain(LOGITS_BC.double() + change_BC) - plain(LOGITS_BC.double() - change_BC)) / (2 * step)
        assert float(logits_BC.grad[clip, species]) == pytest.approx(slope, rel=1e-4, abs=1e-7)


def test_focal_and_asymmetric_losses_without_focus_are_the_binary_cross_entropy() -> None:
    output = Output(LOGITS_BC, SEGMENTS_BC, None)
    bce = bce_loss(output, TARGET_BC, WEIGHT_B)
    torch.testing.assert_close(2 * focal_loss(output, TARGET_BC, WEIGHT_B, gamma=0.0, alpha=0.5), bce)
    plain = asymmetric_loss(output, TARGET_BC, WEIGHT_B, positive_gamma=0.0, negative_gamma=0.0, negative_margin=0.0)
    torch.testing.assert_close(plain, bce)


def test_a_ranking_loss_of_many_pairs_is_the_same_in_parts(monkeypatch) -> None:
    def value_and_gradient() -> tuple[Tensor, Tensor]:
        logits_BC = LOGITS_BC.clone().requires_grad_()
        value = soft_auc_loss(Output(logits_BC, None, None), TARGET_BC, WEIGHT_B)
        value.backward()
        return value.detach(), logits_BC.grad

    whole = value_and_gradient()
    monkeypatch.setattr(losses, "_PAIRS_AT_ONCE", 4 * 4 * 4)
    torch.testing.assert_close(value_and_gradient(), whole)


def test_a_ranking_loss_falls_to_the_logits_of_soft_targets_and_teaches_nothing_without_pairs() -> None:
    target_BC = torch.tensor([[0.9], [0.2], [0.5]])
    logits_BC = torch.zeros(3, 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits_BC], max_iter=100)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = soft_auc_loss(Output(logits_BC, None, None), target_BC, torch.ones(3))
        loss.backward()
        return loss

    optimizer.step(closure)
    differences_B1 = (logits_BC - logits_BC[2]).detach()
    torch.testing.assert_close(differences_B1, torch.logit(target_BC), atol=1e-2, rtol=1e-2)

    logits_BC = torch.randn(3, 1, requires_grad=True)
    value = soft_auc_loss(Output(logits_BC, None, None), torch.ones(3, 1), torch.ones(3))
    value.backward()
    assert value == 0 and not logits_BC.grad.any()


def stage(loss: LossName, **changes: object) -> StageConfig:
    return replace(sed_v2s().stages[0], loss=loss, **changes)


@pytest.mark.parametrize("loss", get_args(LossName))
def test_micro_batches_add_up_to_the_loss_of_their_batch(loss) -> None:
    def share(part: slice) -> Tensor:
        return batch_share_of_loss(
            stage(loss), Output(LOGITS_BC[part], None, None), TARGET_BC[part], WEIGHT_B[part], WEIGHT_B.sum()
        )

    whole, parts = share(slice(None)), share(slice(0, 1)) + share(slice(1, 4))
    if loss == "soft_auc":
        assert parts < whole, "the clip of the first part is compared with none"
        assert share(slice(0, 1)).item() == pytest.approx(0.9 * math.log(2) / float(WEIGHT_B.sum()), rel=1e-5), "with itself"
    else:
        torch.testing.assert_close(parts, whole)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"loss": "ce", "label_smoothing": 0.3}, lambda *batch: ce_loss(*batch, 0.3)),
        ({"loss": "bce", "label_smoothing": 0.3}, bce_loss),
        ({"loss": "focal", "focal_gamma": 3.0, "focal_alpha": 0.4}, lambda *batch: focal_loss(*batch, gamma=3.0, alpha=0.4)),
        (
            {"loss": "asymmetric", "positive_gamma": 1.0, "negative_gamma": 3.0, "negative_margin": 0.1},
            lambda *batch: asymmetric_loss(*batch, positive_gamma=1.0, negative_gamma=3.0, negative_margin=0.1),
        ),
        ({"loss": "soft_auc"}, soft_auc_loss),
    ],
)
def test_a_stage_learns_by_the_loss_of_its_config(changes, expected) -> None:
    batch = (Output(LOGITS_BC, SEGMENTS_BC, None), TARGET_BC, WEIGHT_B)
    assert torch.equal(batch_share_of_loss(stage(**changes), *batch, WEIGHT_B.sum()), expected(*batch))


@pytest.mark.parametrize("saturation", [50.0, 300.0])
@pytest.mark.parametrize("loss", get_args(LossName))
@pytest.mark.parametrize("changes", [{}, {"focal_gamma": 0.5, "negative_gamma": 0.5, "negative_margin": 0.0}])
def test_is_float32_under_autocast_with_finite_values_and_gradients_at_saturation(loss, changes, saturation) -> None:
    sign_BC = torch.tensor([1.0, -1.0]).repeat(4, 3)
    sign_BC[1] *= -1
    logits_BC = (sign_BC * saturation).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = batch_share_of_loss(
            stage(loss, **changes), Output(logits_BC, -logits_BC, None), TARGET_BC, WEIGHT_B, WEIGHT_B.sum()
        )
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(value) and value > 0
    assert torch.isfinite(logits_BC.grad).all() and logits_BC.grad.any()
