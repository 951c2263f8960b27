"""What a stage publishes: its last weights, an average of them, or its best epoch's; and scores are of what is published."""

from dataclasses import replace

import pytest
import torch

from birdclef_core.models.encoders import RANDOM
from birdclef_core.stages import training
from birdclef_core.stages.candidate import CandidateWeights
from birdclef_core.stages.checkpoint import load_training_state
from birdclef_core.stages.epochs import StageCounters
from birdclef_core.stages.task import StageTask
from birdclef_core.stages.training import train_stage

CPU = torch.device("cpu")


@pytest.fixture
def run(tiny_recipe, tone_data, store):
    """Trains the first stage; gives its epochs and the model's weights at the end of each but the last."""

    def run(**changes):
        config = replace(tiny_recipe.stages[0], epochs=4, **changes)
        names = {"stage_id": "s", "parent_id": None, "recipe": "tiny", "pretrained": RANDOM, "identity": {}}
        epochs, weights = [], []
        for epoch in train_stage(StageTask(model=tiny_recipe.model, config=config, **names), tone_data, store, CPU):
            epochs.append(epoch)
            if not epoch.is_last:
                weights.append(store.latest_epoch_checkpoint("s", load_training_state)[0]["model"])
        return epochs, weights

    return run


@pytest.fixture
def scripted_scores(monkeypatch):
    """Makes evaluation give these scores, one after the other."""

    def script(*scores: float) -> None:
        remaining = iter(scores)
        monkeypatch.setattr(training, "summarise", lambda truth, score: {"cmap": next(remaining)})

    return script


def same(first, second) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_without_options_the_last_weights_are_published(run, store):
    epochs, weights = run()
    assert [epoch.is_last for epoch in epochs] == [False, False, False, True]
    assert not any(same(earlier, store.open("s").weights()) for earlier in weights)


@pytest.mark.slow
def test_the_mean_over_the_last_epochs_is_published(run, store):
    _, weights = run()
    ends = [*weights[1:], store.open("s").weights()]
    store.storage.delete("stages/s")
    run(average_epochs=3)
    published = store.open("s").weights()
    for name, tensor in published.items():
        if tensor.is_floating_point():
            mean = torch.stack([end[name] for end in ends]).mean(dim=0)
            assert torch.allclose(tensor, mean, rtol=1e-5, atol=1e-6), name


@pytest.mark.slow
def test_a_moving_average_is_published_and_training_goes_on_from_the_weights_themselves(run, store):
    _, weights = run(ema_decay=0.9)
    averaged = store.open("s").weights()
    store.storage.delete("stages/s")
    _, plain = run()
    assert all(same(first, second) for first, second in zip(weights, plain, strict=True)), "averaging leaves training alone"
    assert not same(averaged, store.open("s").weights())


def test_an_early_stop_publishes_the_best_epochs_weights_with_their_scores(run, store, scripted_scores):
    scripted_scores(0.5, 0.7, 0.6, 0.71)  # the fourth is that of the best weights, scored again
    epochs, weights = run(early_stop_epochs=1)
    assert [epoch.is_last for epoch in epochs] == [False, False, True]
    assert same(weights[1], store.open("s").weights())
    assert epochs[-1].scores == store.record("s").metrics
    assert epochs[-1].scores["cmap"] == 0.71


def test_a_rising_score_is_not_stopped_and_an_equal_one_is(run, store, scripted_scores):
    scripted_scores(0.5, 0.6, 0.7, 0.8)
    assert len(run(early_stop_epochs=1)[0]) == 4
    store.storage.delete("stages/s")
    scripted_scores(0.5, 0.5, 0.5, 0.5)
    assert len(run(early_stop_epochs=2)[0]) == 3


def test_an_early_stop_publishes_the_best_epochs_average_not_the_last_one(tiny_recipe):
    model = torch.nn.Linear(1, 1, bias=False)
    config = replace(tiny_recipe.stages[0], epochs=3, early_stop_epochs=1, ema_decay=0.9)
    candidate = CandidateWeights(model, config, StageCounters(), {})
    published = []
    for epoch, (weight, score) in enumerate([(3.0, 0.1), (9.0, 0.9), (30.0, 0.5)]):
        torch.nn.init.constant_(model.weight, weight)
        candidate.after_step(epoch)
        with candidate.in_model():
            published.append(model.weight.item())
        stops = candidate.judge(epoch, score)
    assert stops and candidate.take_best(2)
    assert published[1] not in (9.0, published[2])
    assert model.weight.item() == published[1], "the scores that are published are computed with these weights"
    with candidate.in_model():
        assert model.weight.item() == published[1], "these are written to the store"
