"""A configuration trained on all recordings: nothing is held back, and it has no score of its own."""

import shutil
from dataclasses import replace

import pytest
from made_up import chains_on
from made_up_records import sweep_record
from made_up_store import save_trial, store

from birdclef_core.code_version import code_version
from birdclef_core.data.targets import training_table
from birdclef_core.errors import InputError
from birdclef_core.stages.training import train_stage
from birdclef_core.store.leases import Holder, Leases
from birdclef_core.store.recordings_table import read_recordings
from birdclef_core.store.storage import Storage
from sweeps.checkpoints.replay import recording_finder
from sweeps.deploy.loading import load_detector
from sweeps.deploy.refit import find_refit, refit
from sweeps.options import SweepOptions
from sweeps.schedule.records import SweepRecords, TrialRecord


@pytest.fixture
def trained(tmp_path, tiny_recipe, tone_data):
    """A function that trains a sweep of one trial with two stages of one epoch; it returns the storage and the chain."""
    import torch

    def train(**changes):
        storage, dataset = Storage.parse(str(tmp_path / "out")), tone_data.dataset
        recipe = replace(tiny_recipe, stages=tuple(replace(stage, epochs=1, **changes) for stage in tiny_recipe.stages[:2]))
        chain = chains_on(recipe, tone_data, code_version=code_version()).chain("tiny", {})
        for task in chain:
            list(train_stage(task, tone_data, store(storage), torch.device("cpu")))
        options = SweepOptions(search="tiny", data=str(dataset.root), pretrained="off")
        records = SweepRecords(storage.at("s"))
        records.save_sweep(sweep_record(options, data_fingerprint=dataset.fingerprint))
        names = [task.config.name for task in chain]
        save_trial(
            storage, "t0000", [task.stage_id for task in chain], stages=names, score=0.5, stage_scores=dict.fromkeys(names, 0.5)
        )
        return storage, chain

    return train


def test_a_refit_trains_on_everything_and_says_that_it_has_no_score(trained, tone_data, tmp_path):
    storage, chain = trained()
    said: list[str] = []
    done = refit(storage, "s", None, None, str(tmp_path / "cache"), said.append)
    stages, dataset = store(storage), tone_data.dataset
    record = stages.record(done.stage_id)
    assert record.metrics == {} and record.history[-1]["scores"] == {}
    assert record.parent_id not in (None, chain[0].stage_id)  # the stage before it was trained on everything too
    assert record.identity["stage"] == chain[-1].identity["stage"]
    table = read_recordings(stages.storage, record.identity["data"])
    assert len(table) == len(dataset.recordings) and not table["is_validation"].any()
    assert "No score of its own" in done.lines()[0] and "s/t0000" in done.lines()[0] and "0.500" in done.lines()[0]
    assert done.lines()[-1].endswith(done.stage_id[:16])
    assert [line.split(":")[1].split("/")[0] for line in said if "epoch" in line] == [" epoch 1", " epoch 1"]
    again: list[str] = []
    assert refit(storage, "s/t0000", None, None, str(tmp_path / "cache"), again.append).stage_id == done.stage_id
    assert all("in the store" in line for line in again)
    assert load_detector(done.stage_id, storage=str(tmp_path / "out")) is not None


def test_without_validation_every_recording_trains(tone_data):
    dataset = tone_data.dataset
    whole = dataset.all_training()
    assert whole.fingerprint != dataset.fingerprint and dataset.recordings["is_validation"].any()
    assert len(training_table(whole, whole.target_species).rows_R) > len(training_table(dataset, dataset.target_species).rows_R)
    assert whole.soundscapes is None


def test_a_stage_that_ends_by_its_score_is_refused(trained, tmp_path):
    storage, _ = trained(early_stop_epochs=1)
    with pytest.raises(InputError, match="early_stop_epochs"):
        refit(storage, "s", None, None, str(tmp_path / "cache"), print)


def test_a_trial_that_has_not_finished_is_refused(tmp_path):
    storage = Storage.parse(str(tmp_path / "out"))
    records = SweepRecords(storage.at("s"))
    records.save_sweep(sweep_record(SweepOptions(search="tiny")))
    records.save_trials([TrialRecord(trial="t0000", recipe="tiny", params={}, stage_ids=["a"], stages=["a"], kinds=["x"])])
    with pytest.raises(InputError, match="finished trial"):
        refit(storage, "s", None, None, "cache", print)
    with pytest.raises(InputError, match="s/t0000 is waiting"):
        refit(storage, "s/t0000", None, None, "cache", print)


def test_a_stage_that_another_process_trains_on_all_recordings_is_left_to_it(trained, tmp_path):
    storage, _ = trained()
    done = refit(storage, "s", None, None, str(tmp_path / "cache"), print)
    store(storage).remove(done.stage_id)
    other = Holder(sweep="refit-1", run="1", trial="t0000")
    with (
        Leases(store(storage).storage).hold(done.stage_id, other),
        pytest.raises(InputError, match="Another process trains train_bce of s/t0000 on all recordings"),
    ):
        refit(storage, "s", None, None, str(tmp_path / "cache"), print)
    assert refit(storage, "s", None, None, str(tmp_path / "cache"), print).stage_id == done.stage_id
    assert Leases(store(storage).storage).entries() == []


def test_of_a_trial_with_folds_one_is_trained_on_all_recordings(trained, tone_data, tmp_path):
    """All folds have the same configuration, and without a fold the same recordings."""
    storage, chain = trained()
    other = [replace(task, stage_id=f"{number}" * 64) for number, task in enumerate(chain)]
    records = SweepRecords(storage.at("s"))
    (trial,) = records.load_trials()
    trial.stages = [f"{task.config.name}@fold{fold}" for task in chain for fold in (1, 0)]
    trial.stage_ids = [
        stage_id for of_one, of_other in zip(chain, other, strict=True) for stage_id in (of_other.stage_id, of_one.stage_id)
    ]
    trial.kinds = ["target ce"] * 4
    records.save_trials([trial])
    found = recording_finder(storage, None, str(tmp_path / "cache")).find(store(storage).record(chain[-1].stage_id))
    assert find_refit(store(storage), trial, found) is None
    done = refit(storage, "s", None, None, str(tmp_path / "cache"), print)
    assert store(storage).record(done.stage_id).identity["stage"] == chain[-1].identity["stage"]
    assert find_refit(store(storage), trial, found) == store(storage).record(done.stage_id)
    store(storage).remove(chain[0].stage_id)
    assert find_refit(store(storage), trial, found) is None


@pytest.mark.parametrize("name", ["timm", "onnx"])
def test_a_head_on_embeddings_is_trained_on_everything_too(heads, tone_data, tmp_path, name):
    """On the embeddings of the trial, which are of all recordings."""
    storage, chain = heads[name]
    shutil.copytree(storage.root, tmp_path / "out")
    own, said = Storage.parse(str(tmp_path / "out")), list[str]()
    (trial,) = SweepRecords(own.at("s")).load_trials()
    found = recording_finder(own, None, str(tmp_path / "cache")).find(store(own).record(chain[1].stage_id))
    assert find_refit(store(own), trial, found) is None
    done = refit(own, "s", None, None, str(tmp_path / "cache"), said.append)
    record = store(own).record(done.stage_id)
    assert find_refit(store(own), trial, found) == record
    assert record.metrics == {} and record.identity["stage"] == chain[1].identity["stage"]
    assert record.identity["embeddings"] == chain[0].stage_id and record.stage_id != chain[1].stage_id
    assert said[0].startswith("head: epoch 1/15, loss ")
    rows = load_detector(done.stage_id, storage=own.root).predict(tone_data.dataset.root / "train_audio" / "top", top=1)
    assert len(rows) == 6 and (name == "timm" or set(rows["species"]) == {"top"}), "a random timm encoder tells little apart"


def test_a_student_of_a_head_is_made_of_everything_too(taught, tmp_path):
    """The predictions are those of the new head, with the encoder that made the embeddings of the trial."""
    storage, chain = taught
    shutil.copytree(storage.root, tmp_path / "out")
    own, said = Storage.parse(str(tmp_path / "out")), list[str]()
    done = refit(own, "s", None, None, str(tmp_path / "cache"), said.append)
    stages = store(own)
    labels = stages.record(stages.record(done.stage_id).identity["teacher"])
    head = stages.record(labels.parent_id)
    first = stages.record(head.parent_id)
    assert [record.stage for record in (labels, head, first)] == ["labels", "head", "head_all"]
    new = {done.stage_id, labels.stage_id, head.stage_id, first.stage_id}
    assert len(new) == 4 and not new & {task.stage_id for task in chain}
    assert first.identity["embeddings"] == head.identity["embeddings"] == chain[0].stage_id
