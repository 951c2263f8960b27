"""The optimiser of a stage is the one that it asks for, with a learning rate for each group of layers."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from birdclef_core.models.detector import Detector
from birdclef_core.stages.optimizers import build_optimizer, set_learning_rate


@pytest.fixture
def model(tiny_recipe) -> Detector:
    return Detector(tiny_recipe.model, 3)


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("radam", torch.optim.RAdam)]
)
def test_an_optimiser_trains_what_is_not_frozen_with_its_weight_decay(tiny_recipe, model, name, kind):
    model.freeze()
    optimizer = build_optimizer(model, replace(tiny_recipe.stages[0], optimizer=name, weight_decay=0.25))
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert group["weight_decay"] == 0.25
    trained = {id(parameter) for parameter in model.head.attention_block.parameters()}
    assert {id(parameter) for parameter in group["params"]} == trained
    set_learning_rate(optimizer, 1e-3)
    assert group["lr"] == 1e-3


def test_only_adamw_takes_weight_decay_off_the_weights(tiny_recipe):
    """Without a gradient a decoupled decay is lr x decay x weight; added to the gradient it becomes a whole step of Adam."""

    def after_a_step(name: str) -> float:
        holder = nn.Linear(1, 1, bias=False)
        nn.init.ones_(holder.weight)
        optimizer = build_optimizer(holder, replace(tiny_recipe.stages[0], optimizer=name, weight_decay=0.1))  # type: ignore[arg-type]
        set_learning_rate(optimizer, 0.01)
        holder.weight.grad = torch.zeros_like(holder.weight)
        optimizer.step()
        return holder.weight.item()

    assert after_a_step("adamw") == pytest.approx(1 - 0.01 * 0.1)
    assert after_a_step("adam") == pytest.approx(1 - 0.01)


def test_rates_fall_from_the_head_to_the_input(tiny_recipe, model):
    optimizer = build_optimizer(model, replace(tiny_recipe.stages[0], layer_decay=0.5))
    set_learning_rate(optimizer, 1.0)
    rate = {parameter: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    groups = model.layer_groups()
    for number, group in enumerate(groups):
        assert {rate.pop(parameter) for parameter in group} == {0.5 ** (len(groups) - number)}, number
    assert set(rate) == set(model.head.parameters()) and set(rate.values()) == {1.0}


def test_what_is_frozen_has_no_rate(tiny_recipe, model):
    model.freeze_blocks(2)
    optimizer = build_optimizer(model, replace(tiny_recipe.stages[0], layer_decay=0.5))
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(optimizer.param_groups) == len(model.layer_groups()) - 2 + 1
    assert set(trained) == {parameter for parameter in model.parameters() if parameter.requires_grad}
