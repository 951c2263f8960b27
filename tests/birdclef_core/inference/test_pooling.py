"""Pooling gives the logits of the written formulae, also where a probability rounds to 0 or 1."""

import numpy as np
import torch

from birdclef_core.inference.pooling import mean_logit, pool
from birdclef_core.inference.procedure import SOLUTION_2023, Procedure
from birdclef_core.inference.runtime import Outputs


def outputs(segments_BSC: torch.Tensor | None, clip_BC: torch.Tensor | None = None) -> Outputs:
    clip_BC = torch.full((1, 1), 9.0) if clip_BC is None else clip_BC
    return Outputs(clip_BC, segments_BSC, torch.zeros(1, 1))


def test_a_mean_of_probabilities_is_the_logit_of_their_mean():
    logits_KBC = torch.tensor([[[2.0, -3.0]], [[-1.0, 0.5]], [[0.3, 4.0]]], dtype=torch.float64)
    weights_K = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    mean_BC = (weights_K[:, None, None] * logits_KBC.sigmoid()).sum(dim=0)
    torch.testing.assert_close(mean_logit(logits_KBC, weights_K), mean_BC.logit())


def test_a_mean_is_finite_and_exact_where_probabilities_round_to_0_or_1():
    weights_K = torch.tensor([0.5, 0.25, 0.25])
    for value in (-100.0, -30.0, 30.0, 100.0):
        same = mean_logit(torch.full((3, 1, 1), value), weights_K)
        assert abs(same.item() - value) < 1e-5 * abs(value)
    # Almost sure once, and almost impossible twice: p is .25.
    mixed = mean_logit(torch.tensor([-90.0, 90.0, -90.0])[:, None, None], weights_K)
    np.testing.assert_allclose(mixed.item(), np.log(0.25 / 0.75), rtol=1e-6)


def test_the_largest_logit_of_the_windows_own_segments_counts():
    segments = torch.arange(24.0)[None, :, None].repeat(1, 1, 2)
    segments[..., 1] *= -1
    np.testing.assert_array_equal(pool(outputs(segments), Procedure()).numpy(), [[17.0, -6.0]])


def test_shifted_readings_that_leave_the_feature_map_take_what_is_there():
    for count in (1, 2, 3, 4, 9):
        segments = torch.randn(2, count, 3, generator=torch.Generator().manual_seed(count))
        assert torch.isfinite(pool(outputs(segments), SOLUTION_2023)).all()


def test_the_clip_counts_for_a_cnn_and_where_it_is_asked_for():
    assert pool(outputs(None), SOLUTION_2023).item() == 9.0
    segments = torch.zeros(1, 24, 1)
    assert pool(outputs(segments), Procedure(pool="clip")).item() == 9.0
    assert pool(outputs(segments), Procedure()).item() == 0.0
