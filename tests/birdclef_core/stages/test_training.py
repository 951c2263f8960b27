"""One stage: it learns, goes on after an interruption to the same bits, and says what it did."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from birdclef_core.data.cache import build_soundscape_cache
from birdclef_core.data.soundscapes import load_soundscapes
from birdclef_core.errors import InputError, StoreError, TrainingError
from birdclef_core.identity import canonical
from birdclef_core.models.encoders import RANDOM
from birdclef_core.stages.checkpoint import load_training_state
from birdclef_core.stages.task import StageTask
from birdclef_core.stages.training import train_stage
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage

CPU = torch.device("cpu")


def task(recipe, index: int = 0, parent: str | None = None, **changes) -> StageTask:
    config = replace(recipe.stages[index], **changes)
    return StageTask(
        stage_id=config.name,
        parent_id=parent,
        recipe=recipe.name,
        model=recipe.model,
        config=config,
        pretrained=RANDOM,
        identity={"model": canonical(recipe.model), "stage": canonical(config)},
    )


def test_a_chain_of_stages_learns_and_publishes_what_it_did(tiny_recipe, tone_data, store):
    parent = None
    for index, stage in enumerate(tiny_recipe.stages):
        epochs = list(train_stage(task(tiny_recipe, index, parent), tone_data, store, CPU))
        assert [epoch.epoch for epoch in epochs] == [1, 2, 3]
        parent = stage.name
    entry = store.open("finetune")
    assert entry.record.parent_id == "train_bce"
    assert entry.record.species == ["low", "top"]
    assert entry.record.cost_s > 0
    assert entry.record.environment["micro_batch_size"] == "4"
    assert {"cmap_pad5_se", "cmap_pad3_se", "cmap_se", "lrap_se"} <= set(entry.record.metrics)
    assert len(entry.record.history) == 3
    files = {path.name for path in entry.folder.iterdir()}
    assert {"predictions.parquet", "species.csv", "curves.png", "predictions.png", "card.html"} <= files
    assert "report-error.txt" not in files
    predictions = pd.read_parquet(entry.folder / "predictions.parquet")
    assert list(predictions.columns) == ["low", "top"]
    assert predictions.to_numpy().min() >= 0 and predictions.to_numpy().max() <= 1
    assert list(pd.read_csv(entry.folder / "species.csv")["species"]) == ["low", "top"]


def test_a_stage_that_goes_on_ends_with_the_same_bits(tiny_recipe, tone_data, store, tmp_path):
    whole = list(train_stage(task(tiny_recipe), tone_data, store, CPU))
    other = StageStore(Storage.parse(str(tmp_path / "other")))
    interrupted = train_stage(task(tiny_recipe), tone_data, other, CPU)
    first = next(interrupted)
    interrupted.close()
    torch.rand(3)
    earlier = []
    rest = list(train_stage(task(tiny_recipe), tone_data, other, CPU, on_earlier=earlier.extend))
    assert earlier == [first]
    assert [epoch.epoch for epoch in rest] == [2, 3]
    assert rest[-1].train_loss == whole[-1].train_loss
    assert rest[-1].scores == whole[-1].scores
    expected, got = store.open("pretrain_ce").weights(), other.open("pretrain_ce").weights()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert len(other.record("pretrain_ce").history) == 3
    assert other.unfinished() == {}


@pytest.mark.slow
def test_labelled_soundscapes_are_scored_by_what_is_published(tiny_recipe, tone_data, store, tmp_path):
    (tmp_path / "test_soundscapes").mkdir()
    for name in ("S", "T"):
        soundfile.write(tmp_path / "test_soundscapes" / f"{name}.wav", np.random.default_rng(0).normal(0, 0.1, 640_000), 32_000)
    (tmp_path / "test_soundscapes_labels.csv").write_text("row_id,labels\nS_5,low\nS_10,top mid\nS_15,\nS_20,mid\nT_5,top\n")
    soundscapes = load_soundscapes(tmp_path)
    dataset, cache = replace(tone_data.dataset, soundscapes=soundscapes), build_soundscape_cache(soundscapes, tmp_path / "cache")
    data = replace(tone_data, dataset=dataset, soundscape_cache=cache)
    first, second = train_stage(task(tiny_recipe, 1, epochs=2), data, store, CPU)
    assert not any(name.startswith("soundscapes/") for name in first.scores)
    entry = store.open(tiny_recipe.stages[1].name)
    assert 0 < entry.record.metrics["soundscapes/cmap_pad5"] == second.scores["soundscapes/cmap_pad5"] <= 1
    assert entry.record.metrics["soundscapes/num_windows"] == 5
    assert entry.record.metrics["soundscapes/num_windows_without_birds"] == 2, "none, and one of no target species"
    assert "soundscapes/cmap_pad5_se" in entry.record.metrics, "two files are enough for one"
    assert "labelled windows of soundscapes" in (entry.folder / "card.html").read_text()
    with_all = list(train_stage(task(tiny_recipe, 0, epochs=1), data, store, CPU, soundscapes_at=[1]))
    assert not any(name.startswith("soundscapes/") for name in with_all[0].scores)

    before = entry.weights()
    store.storage.delete(f"stages/{tiny_recipe.stages[1].name}")
    first, again = train_stage(task(tiny_recipe, 1, epochs=2), data, store, CPU, soundscapes_at=[1])
    assert first.scores["soundscapes/num_windows"] == 5, "where they are asked for, too"
    assert again.scores == second.scores, "which changes nothing else"
    weights = store.open(tiny_recipe.stages[1].name).weights()
    assert all(torch.equal(weights[name], tensor) for name, tensor in before.items())


@pytest.mark.slow
def test_another_seed_gives_other_weights(tiny_recipe, tone_data, store, tmp_path):
    list(train_stage(task(tiny_recipe, epochs=1), tone_data, store, CPU))
    other = StageStore(Storage.parse(str(tmp_path / "other")))
    list(train_stage(task(tiny_recipe, epochs=1, seed=2**40 + 1), tone_data, other, CPU))
    first, second = store.open("pretrain_ce").weights(), other.open("pretrain_ce").weights()
    assert any(not torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_finetuning_leaves_the_frozen_parts_as_they_were(tiny_recipe, tone_data, store):
    list(train_stage(task(tiny_recipe, 1, epochs=1), tone_data, store, CPU))
    list(train_stage(task(tiny_recipe, 2, "train_bce", epochs=1), tone_data, store, CPU))
    before, after = store.open("train_bce").weights(), store.open("finetune").weights()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith("head.attention_block") for name in moved)


def test_a_stage_that_thaws_begins_with_the_head(tiny_recipe, tone_data, store):
    list(train_stage(task(tiny_recipe, 0, epochs=1, clips_per_epoch=4), tone_data, store, CPU))
    before = store.open("pretrain_ce").weights()
    config = {"thaw_every": 1, "clips_per_epoch": 4, "head_transfer": "by_species", "layer_decay": 0.5}

    def moved(after) -> set[str]:
        return {name for name in before if name.startswith(("encoder", "input")) and not before[name].equal(after[name])}

    epochs = train_stage(task(tiny_recipe, 1, "pretrain_ce", epochs=2, **config), tone_data, store, CPU)
    next(epochs)
    groups, _ = store.latest_epoch_checkpoint("train_bce", load_training_state)
    assert moved(groups["model"]) == set()
    list(epochs)
    in_the_second = moved(store.open("train_bce").weights())
    assert in_the_second and all(name.startswith("encoder.model.blocks.5.") for name in in_the_second), "the last group of layers"


def test_too_many_frozen_blocks_are_refused(tiny_recipe, tone_data, store):
    with pytest.raises(InputError, match=r"frozen_blocks <= \d+ must hold"):
        list(train_stage(task(tiny_recipe, frozen_blocks=99), tone_data, store, CPU))


def test_a_loss_that_is_not_finite_names_epoch_step_and_recordings(tiny_recipe, tone_data, store):
    with pytest.raises(
        TrainingError, match=r"must be finite.*stage pretrain_ce, epoch 1, step 2 of 2.*lower learning rate.*(low|mid|top)\d"
    ):
        list(train_stage(task(tiny_recipe, learning_rate=1e30), tone_data, store, CPU))
    assert not store.is_published("pretrain_ce")


def test_a_parent_that_is_not_there_is_an_error(tiny_recipe, tone_data, store):
    with pytest.raises(StoreError, match="which is not in the store"):
        list(train_stage(task(tiny_recipe, 1, "nowhere"), tone_data, store, CPU))
