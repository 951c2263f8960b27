"""A stage trained again from its record alone gives the same bits; what cannot be replayed is refused before anything is trained."""

import itertools
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from made_up_records import sweep_record
from made_up_store import damage, store

from birdclef_core.code_version import code_version
from birdclef_core.config import Recipe
from birdclef_core.data.cache import build_cache
from birdclef_core.data.dataset import load_dataset
from birdclef_core.errors import InputError, StoreError
from birdclef_core.inventory.collect import collect
from birdclef_core.models.encoders import RANDOM
from birdclef_core.stages.training import train_stage
from birdclef_core.stages.training_data import TrainingData
from birdclef_core.store.storage import Storage
from sweeps.checkpoints.replay import Replay, replay_lines, replay_reference
from sweeps.deploy.refit import refit
from sweeps.options import SweepOptions
from sweeps.schedule.records import SweepRecords, TrialRecord
from sweeps.search.chains import Chain, ChainBuilder
from sweeps.search.space import Search


def train_sweep(folder: Path, data: TrainingData, recipes: Sequence[Recipe]) -> tuple[Storage, list[Chain]]:
    """Train a trial of each recipe as a sweep; return the storage and the chains."""
    storage, dataset = Storage.parse(str(folder)), data.dataset
    builder = ChainBuilder(
        search=Search(name="tiny", recipes=tuple(recipes), space={}),
        seed=0,
        pretrained={recipe.model.encoder: RANDOM for recipe in recipes},
        all_species=dataset.all_species,
        target_species=dataset.target_species,
        data_fingerprint=dataset.fingerprint,
        code_version=code_version(),
        sources_fingerprint=dataset.sources_fingerprint,
    )
    chains = [builder.chain(recipe.name, {}) for recipe in recipes]
    for task in itertools.chain(*chains):
        list(train_stage(task, data, store(storage), torch.device("cpu")))
    records = SweepRecords(storage.at("s"))
    options = SweepOptions(search="tiny", data=str(dataset.root), pretrained="off")
    records.save_sweep(sweep_record(options, data_fingerprint=dataset.fingerprint))
    trials = [
        TrialRecord(
            trial=f"t{number:04}",
            recipe=recipe.name,
            params={},
            stage_ids=[task.stage_id for task in chain],
            stages=[task.config.name for task in chain],
            kinds=["target ce" for _ in chain],
            status="finished",
            score=0.5 - 0.1 * number,
        )
        for number, (recipe, chain) in enumerate(zip(recipes, chains, strict=True))
    ]
    records.save_trials(trials)
    return storage, chains


@pytest.fixture
def trained(tmp_path, tiny_recipe, tone_data):
    """A storage with a chain of two stages, trained by a sweep; and the chain."""
    recipe = replace(tiny_recipe, stages=tuple(replace(stage, epochs=1) for stage in tiny_recipe.stages[:2]))
    storage, (chain,) = train_sweep(tmp_path / "out", tone_data, [recipe])
    return storage, chain


@pytest.fixture
def replayed(tmp_path):
    """Replays a stage; what came out and what was said."""

    def run(storage, stage_id, data=None, pretrained=None) -> tuple[Replay, list[str]]:
        said: list[str] = []
        return replay_reference(storage, stage_id, data, pretrained, str(tmp_path / "cache"), say=said.append), said

    return run


@pytest.mark.slow
def test_a_stage_comes_out_the_same_to_the_bit_and_the_store_is_left_alone(trained, replayed, monkeypatch):
    storage, chain = trained
    before = sorted(store(storage).storage.files(), key=lambda file: file.name)
    for task in chain:
        torch.set_num_threads(2)
        result, said = replayed(storage, task.stage_id)
        assert torch.get_num_threads() == 1, "as many as it was trained with"
        assert result.is_exact and result.agrees, replay_lines(result)
        assert replay_lines(result)[-1] == "The same: every score and every weight, to the bit."
        assert said[1].startswith("epoch 1/1: cmap ")
    assert sorted(store(storage).storage.files(), key=lambda file: file.name) == before

    monkeypatch.setattr("sweeps.checkpoints.replay.code_version", lambda: "0ther")
    result, _ = replayed(storage, chain[1].stage_id)
    assert result.is_exact and [remark for remark in replay_lines(result) if "is 0ther" in remark], "other code is said aloud"


@pytest.mark.parametrize("name", ["timm", "onnx"])
def test_embeddings_and_a_head_come_out_the_same_to_the_bit(heads, replayed, name):
    """The ONNX file is no longer where it was: it is made again with the copy in the store."""
    storage, chain = heads[name]
    for task, what in zip(chain, ("every number", "every score and every weight"), strict=True):
        result, _ = replayed(storage, task.stage_id)
        assert result.is_exact and replay_lines(result)[-1] == f"The same: {what}, to the bit."


def test_predictions_of_a_head_and_their_student_come_out_the_same_to_the_bit(taught, replayed):
    storage, chain = taught
    for task in chain[2:]:
        result, _ = replayed(storage, task.stage_id)
        assert result.is_exact, replay_lines(result)


def test_embeddings_of_other_recordings_or_weights_are_refused(heads, replayed, tmp_path, tone_data):
    storage, (embed, _) = heads["timm"]
    with pytest.raises(InputError, match="The encoder had random weights, but these are file:"):
        replayed(storage, embed.stage_id, pretrained=_some_weights(tmp_path, embed.model.encoder))
    other = tmp_path / "other"
    shutil.copytree(tone_data.dataset.root, other)
    table = (other / "train.csv").read_text().splitlines()
    (other / "train.csv").write_text("\n".join(table[:-1]) + "\n")
    with pytest.raises(InputError, match="The recordings and species must be those of the record"):
        replayed(storage, embed.stage_id, other)


@pytest.mark.slow
def test_what_is_not_as_it_was_is_refused_with_the_reason(trained, replayed, tmp_path, tone_data):
    storage, chain = trained
    first, second = (task.stage_id for task in chain)
    (tmp_path / "weights.pt").write_text("")
    with pytest.raises(InputError, match="started from random weights, but these are "):
        replayed(storage, first, pretrained=_some_weights(tmp_path, chain[0].model.encoder))
    other = tmp_path / "other"
    other.mkdir()
    (other / "train_audio").symlink_to(tone_data.dataset.root / "train_audio")
    (other / "target_species.txt").write_text("low\ntop\n")
    table = (tone_data.dataset.root / "train.csv").read_text().splitlines()
    (other / "train.csv").write_text("\n".join(table[:-1]) + "\n")
    with pytest.raises(InputError, match="The recordings must be those of the record"):
        replayed(storage, first, other)
    (other / "train.csv").write_text("\n".join(table) + "\n")
    (other / "target_species.txt").write_text("low\n")
    with pytest.raises(InputError, match="The species must be the 2 of the record"):
        replayed(storage, second, other)
    damage(storage, first)
    with pytest.raises(StoreError, match="must be whole to be replayed, started from or used to predict"):
        replayed(storage, second)
    store(storage).remove(first)
    with pytest.raises(InputError, match="must be in the store"):
        replayed(storage, second)
    storage.delete("s")
    with pytest.raises(InputError, match="must be named with --data: no sweep of this storage"):
        replayed(storage, second)


def collected(folder: Path, tones: Path, names: Sequence[str]) -> Path:
    """A data set of two collections: the tones of even and of odd numbers."""
    table = pd.read_csv(tones / "train.csv")
    for name, parity in zip(names, (0, 1), strict=True):
        (folder / name).mkdir(parents=True)
        (folder / name / "train_audio").symlink_to(tones / "train_audio")
        table[table["author"].str[-1].astype(int) % 2 == parity].to_csv(folder / name / "train.csv", index=False)
    collect([folder / name for name in names], folder / "set")
    return folder / "set"


@pytest.mark.slow
def test_a_stage_that_draws_by_sources_is_replayed_and_refitted_where_they_are_as_recorded(tiny_recipe, tone_data, tmp_path):
    root, other = (collected(tmp_path / names[0], tone_data.dataset.root, names) for names in (("even", "odd"), ("old", "new")))
    stage = replace(tiny_recipe.stages[0], epochs=1, label_space="target")
    recipes = tuple(
        replace(tiny_recipe, name=str(number), stages=(replace(stage, sources=sources),))
        for number, sources in enumerate([(("even", 3.0), ("odd", 1.0)), ()])
    )
    dataset = load_dataset(root)
    data = TrainingData(dataset=dataset, cache=build_cache(dataset, tmp_path / "cache"))
    storage, chains = train_sweep(tmp_path / "out", data, recipes)
    record, without = (store(storage).record(chain[0].stage_id) for chain in chains)
    assert "sources" in record.identity and "sources" not in without.identity
    assert record.history[0]["train_loss"] != without.history[0]["train_loss"]

    def again(stage_id: str, folder: Path) -> Replay:
        return replay_reference(storage, stage_id, folder, None, str(tmp_path / "cache"), say=lambda text: None)

    assert again(record.stage_id, root).is_exact and again(without.stage_id, other).is_exact
    with pytest.raises(InputError, match="draws recordings by their source, which must be as recorded"):
        again(record.stage_id, other)
    with pytest.raises(InputError, match="draws recordings by their source"):
        refit(storage, "s", str(other), None, str(tmp_path / "cache"), print)
    done = refit(storage, "s", None, None, str(tmp_path / "cache"), print)
    assert store(storage).record(done.stage_id).identity["sources"] == record.identity["sources"]


def _some_weights(folder: Path, encoder: str) -> str:
    import timm

    path = folder / "weights.pt"
    torch.save(timm.create_model(encoder).state_dict(), path)
    return str(path)


def result(recorded: float, replayed: float, *, error: float = 0.02, changed=(), more=()) -> Replay:
    return Replay(
        recorded={"cmap": recorded, "cmap_se": error, "lrap": 0.9, **dict(more)},
        replayed={"cmap": replayed, "cmap_se": error, "lrap": 0.1, **dict(more)},
        recorded_sha256="a",
        replayed_sha256="b",
        environment={},
        changed=tuple(changed),
    )


def test_scores_are_judged_by_their_standard_error():
    near, far, nothing = result(0.5, 0.51, changed=["torch was 1, is 2"]), result(0.5, 0.53), result(0.5, float("nan"))
    assert near.agrees and not near.is_exact and not far.agrees and not nothing.agrees
    assert replay_lines(near)[-1].startswith(
        "Agrees: of the scores with a standard error, cmap differs most for it: by 0.01, its standard error is 0.02; weights are not the same"
    )
    assert "  torch was 1, is 2" in replay_lines(near)
    other = result(0.5, 0.53, more={"cmap_pad5": 0.9, "cmap_pad5_se": 0.01})
    assert not other.agrees and "cmap differs most" in replay_lines(other)[-1], "every score with an error counts"
    unknown = result(0.5, 0.5, error=float("nan"))
    assert not unknown.agrees and "no score has a standard error to judge by" in replay_lines(unknown)[-1]
    assert "DOES NOT AGREE" in replay_lines(far)[-1] and "a CPU is expected to give the same bits" in replay_lines(far)[-1]
