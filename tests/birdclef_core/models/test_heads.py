"""Heads agree with the reference numbers, keep finite where probabilities saturate, and average dropout as the recipes do.

Shapes: B clips, D features, H and W the feature map, S segments, C species.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from birdclef_core.models.heads import DROPOUT_DRAWS, AttentionBlock, CnnHead, GeM, SedHead

HEADS = {name: torch.from_numpy(array) for name, array in np.load(Path(__file__).parents[2] / "data/golden/heads.npz").items()}


def golden_block() -> AttentionBlock:
    block = AttentionBlock(16, 7)
    weights = {"attention.weight": "att_w", "attention.bias": "att_b", "classify.weight": "cla_w", "classify.bias": "cla_b"}
    block.load_state_dict({name: HEADS[key] for name, key in weights.items()})
    return block


def test_attention_block_agrees_with_golden() -> None:
    logits_BC, segments_BCS = golden_block()(HEADS["feat"])
    torch.testing.assert_close(logits_BC.sigmoid(), HEADS["clipwise"], atol=1e-6, rtol=0)
    torch.testing.assert_close(segments_BCS.sigmoid(), HEADS["segmentwise"], atol=1e-6, rtol=0)
    torch.testing.assert_close(logits_BC, torch.logit(HEADS["clipwise"].double()).float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_logit_is_finite_and_has_a_gradient_at_saturation(scale: float, sign: float) -> None:
    """The seed took logit(p) of a p rounded to 1, which is infinite."""
    block = golden_block()
    with torch.no_grad():
        block.classify.bias.fill_(sign * scale)
    logits_BC, _ = block(HEADS["feat"])
    assert torch.isfinite(logits_BC).all()
    F.binary_cross_entropy_with_logits(logits_BC, torch.full_like(logits_BC, 0.5), reduction="sum").backward()
    assert torch.isfinite(block.classify.weight.grad).all()
    assert block.classify.bias.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_heads_are_finite_and_float32_under_autocast(dtype: torch.dtype) -> None:
    features_BDHW = torch.full((2, 16, 3, 8), 60.0)
    for head in (SedHead(16, 5, 0.5), CnnHead(16, 5, 0.5, 0.5)):
        with torch.autocast("cpu", dtype=dtype):
            output = head(features_BDHW.to(dtype))
        for part in output:
            assert part is None or (part.dtype == torch.float32 and torch.isfinite(part).all())


def test_gem_agrees_with_golden() -> None:
    pooled_BD = GeM()(HEADS["gem_in"])
    torch.testing.assert_close(pooled_BD, HEADS["gem_out"].flatten(1), atol=1e-6, rtol=0)


def test_sed_output_is_made_of_the_parts_it_says() -> None:
    head = SedHead(16, 5, 0.5).eval()
    features_BDHW = torch.randn(2, 16, 3, 8)
    output = head(features_BDHW)
    mean_BDS = features_BDHW.mean(2)
    pooled_BDS = F.max_pool1d(mean_BDS, 3, 1, 1) + F.avg_pool1d(mean_BDS, 3, 1, 1)
    hidden_BDS = F.relu(head.linear(pooled_BDS.transpose(1, 2))).transpose(1, 2)
    logits_BC, segments_BCS = head.attention_block(hidden_BDS)
    torch.testing.assert_close(output.logits_BC, logits_BC)
    torch.testing.assert_close(output.segment_logits_BC, segments_BCS.max(dim=-1).values)
    torch.testing.assert_close(output.frame_logits_BNC, segments_BCS.transpose(1, 2))


def test_the_linear_layer_of_a_cnn_starts_as_torch_makes_it_and_that_of_a_sed_as_xavier_does() -> None:
    """Both as in the 2023 solution. The largest of many uniform numbers is almost the bound."""
    torch.manual_seed(0)
    cnn, sed = CnnHead(1000, 264, 0.5, 0.5).linear, SedHead(1000, 264, 0.5)
    bound = 1 / 1000**0.5
    assert cnn.weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert cnn.bias.abs().max().item() == pytest.approx(bound, rel=0.05)
    assert sed.attention_block.classify.weight.abs().max().item() == pytest.approx((6 / 1264) ** 0.5, rel=1e-3)
    assert not sed.attention_block.classify.bias.any() and not sed.linear.bias.any()


def test_cnn_head_averages_its_dropout_draws() -> None:
    torch.manual_seed(0)
    head = CnnHead(2000, 1, 0.5, 0.0)
    torch.nn.init.ones_(head.linear.weight)
    torch.nn.init.zeros_(head.linear.bias)
    features_BDHW = torch.ones(64, 2000, 1, 1)
    spread = head(features_BDHW).logits_BC.std().item()
    one_draw = 2000**0.5  # each feature becomes 0 or 2, so the sum of 2000 has variance 2000
    assert spread == pytest.approx(one_draw / DROPOUT_DRAWS**0.5, rel=0.25)
    head.eval()
    torch.testing.assert_close(head(features_BDHW).logits_BC, torch.full((64, 1), 2000.0))


def test_a_cnn_drops_places_of_its_feature_map_in_training_only() -> None:
    """Half of the places become 0 and the others twice as large, so the mean of their third powers is four times as large."""
    torch.manual_seed(0)
    head = CnnHead(2000, 1, 0.0, 0.5)
    torch.nn.init.constant_(head.linear.weight, 1 / 2000)
    torch.nn.init.zeros_(head.linear.bias)
    features_BDHW = torch.ones(1, 2000, 8, 8)
    assert head(features_BDHW).logits_BC.item() == pytest.approx(4 ** (1 / 3), rel=0.02)
    for part in head.frozen_parts():
        part.eval()
    assert head.training and head(features_BDHW).logits_BC.item() == pytest.approx(1.0, rel=1e-5)
