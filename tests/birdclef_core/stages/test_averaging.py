"""Averages of weights: what they are, and that they leave the model alone."""

import pytest
import torch
from torch import nn

from birdclef_core.stages.averaging import WeightAverage, ema_share


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def set_weights(model: nn.Module, value: float) -> None:
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(value)


def test_an_average_moves_by_its_share_and_counters_are_the_latest(model):
    set_weights(model, 0.0)
    average = WeightAverage(model)
    set_weights(model, 8.0)
    average.update(0.25)
    assert all(bool((average.state[name] == (8 if "num_batches" in name else 2)).all()) for name in model.state_dict())


def test_shares_of_one_over_n_make_a_mean(model):
    average = WeightAverage(model)
    for number, value in enumerate((1.0, 2.0, 6.0), start=1):
        set_weights(model, value)
        average.update(1 / number)
    assert torch.allclose(average.state["0.weight"], torch.tensor(3.0))


def test_the_model_has_the_average_within_the_block_only(model):
    set_weights(model, 1.0)
    average = WeightAverage(model)
    set_weights(model, 5.0)
    with pytest.raises(KeyError), average.in_model():
        assert bool((model[0].weight == 1).all()) and bool((model[1].running_mean == 1).all())
        raise KeyError
    assert bool((model[0].weight == 5).all()) and bool((model[1].running_mean == 5).all())


def test_memory_layout_stays(model):
    model.to(memory_format=torch.channels_last)
    average = WeightAverage(model)
    with average.in_model():
        assert model[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_early_steps_are_forgotten_sooner():
    assert ema_share(0.999, 0) == pytest.approx(0.9)
    assert ema_share(0.999, 90) == pytest.approx(0.09)
    assert ema_share(0.999, 10**6) == pytest.approx(0.001)
