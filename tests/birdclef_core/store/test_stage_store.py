"""The store gives back what was published, whole or not at all, and sets damage aside aloud."""

import json

import made_up_stages
import pytest
import torch
from safetensors.torch import save_file

from birdclef_core.store.stage_store import WEIGHTS, StageRecord, StageStore
from birdclef_core.store.storage import Storage
from birdclef_core.store.summary import Spread


def record(stage_id: str = "id") -> StageRecord:
    return StageRecord(
        stage_id=stage_id,
        parent_id=None,
        recipe="tiny",
        stage="train_ce",
        identity={"a": 1},
        species=["x"],
        metrics={"cmap_pad5": 0.5},
        history=[],
        cost_s=2.0,
        surgery="",
        environment={},
        finished_at="now",
    )


@pytest.fixture
def damage():
    return []


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def store(request, tmp_path, damage):
    place = str(tmp_path / "store") if request.param == "local" else request.getfixturevalue("s3_uri")
    return StageStore(Storage.parse(place), damage.append)


def publish(store: StageStore, value: float = 1.0) -> None:
    with store.publish(record, "id") as folder:
        save_file({"w": torch.tensor([value])}, folder / WEIGHTS)
        (folder / "species.csv").write_text("species\n")


def weights_file(store: StageStore) -> str:
    return store.location("id").removeprefix(store.storage.root + "/")


def test_what_was_published_comes_back(store):
    assert store.open("id") is None
    publish(store)
    entry = store.open("id")
    assert entry is not None
    assert entry.weights()["w"].item() == 1.0
    assert entry.record == store.record("id") == record()
    assert store.is_published("id")


def test_a_writer_that_fails_publishes_nothing(store):
    with pytest.raises(RuntimeError), store.publish(record, "id"):
        raise RuntimeError
    assert store.open("id") is None


def test_of_two_writers_the_last_counts(store):
    publish(store, 1.0)
    publish(store, 2.0)
    assert store.open("id").weights()["w"].item() == 2.0


@pytest.mark.parametrize("file", ["weights", "record", "pointer"])
def test_a_damaged_entry_is_set_aside_aloud_and_can_be_published_again(store, damage, file):
    publish(store)
    weights = weights_file(store)
    name = {"weights": weights, "record": weights.replace(WEIGHTS, "stage.json"), "pointer": "stages/id/published.json"}[file]
    store.storage.write_text(name, "rubbish")
    assert store.open("id") is None
    assert not store.is_published("id")
    assert len(damage) == 1 and "will be trained again" in damage[0]
    publish(store, 3.0)
    assert store.open("id").weights()["w"].item() == 3.0


def test_reports_are_copied_without_the_weights(store, tmp_path):
    publish(store)
    store.copy_reports("id", tmp_path / "reports")
    assert sorted(path.name for path in (tmp_path / "reports").iterdir()) == ["species.csv", "stage.json"]


def test_a_summary_says_at_a_glance_what_a_stage_is(store):
    history = [{"clips_per_s": rate, "evaluate_s": 2.0} for rate in (1.0, 10.0, 12.0, 14.0)]
    known = made_up_stages.publish(store, "a", parent_id="p", history=history, num_floats=1000)
    made_up_stages.publish(store, "b")
    summaries = store.summaries()
    assert sorted(summaries) == ["a", "b"]
    summary = summaries["a"]
    assert summary == store.summary("a") and store.summary("c") is None
    assert (summary.parent_id, summary.cost_s, summary.epochs, summary.score) == ("p", known.cost_s, 4, 0.5)
    assert summary.num_bytes > 4000
    assert summary.clips_per_s == Spread(low=10.0, middle=12.0, high=14.0), "without the first epoch, which warms up"


def test_a_summary_of_another_version_of_the_code_is_made_anew(store, damage):
    known = made_up_stages.publish(store, "a", num_floats=1000)
    pointer = json.loads(store.storage.read_text("stages/a/published.json"))
    now = store.summary("a")
    for changes in ({"warmth": 3}, {"score": None}):
        old = {name: value for name, value in {**pointer["summary"], **changes}.items() if value is not None}
        store.storage.write_text("stages/a/published.json", json.dumps({**pointer, "summary": old}))
        again = store.summary("a")
        assert (again.score, again.cost_s) == (now.score, known.cost_s) and again.num_bytes >= now.num_bytes
    assert store.open("a") is not None and not damage


def test_looking_at_a_stage_says_what_is_wrong_and_changes_nothing(store, damage):
    publish(store)
    assert store.check("id") == ""
    store.storage.write_text(weights_file(store), "rubbish")
    assert "sha256 differs" in store.check("id") and "not published" in store.check("nothing")
    assert store.is_published("id") and not damage


def test_a_stage_of_another_store_is_taken_over_whole(store, tmp_path):
    publish(store)
    other = StageStore(Storage.parse(str(tmp_path / "other")))
    other.adopt(store.open("id"))
    assert other.check("id") == "" and other.open("id").weights()["w"].item() == 1.0


def test_a_removed_stage_is_gone(store):
    made_up_stages.publish(store, "a")
    store.remove("a")
    assert store.open("a") is None and store.summaries() == {}
    made_up_stages.publish(store, "a")
    assert store.open("a") is not None


def save_epochs(store: StageStore, stage_id: str) -> None:
    for epoch in (1, 2, 3):
        with store.save_progress(stage_id, epoch) as folder:
            (folder / "epoch.txt").write_text(str(epoch))


def test_the_newest_epoch_is_where_a_stage_goes_on(store):
    save_epochs(store, "id")
    assert (store.latest_progress("id") / "epoch.txt").read_text() == "3"
    assert store.storage.at("unfinished", "id").names() == ["e0002", "e0003"]
    publish(store)
    assert store.latest_progress("id") is None


def test_a_damaged_epoch_is_left_out_aloud_for_the_one_before(store, damage):
    save_epochs(store, "id")
    store.storage.write_text("unfinished/id/e0003/epoch.txt", "9")
    assert (store.latest_progress("id") / "epoch.txt").read_text() == "2"
    assert "Epoch checkpoint left out" in damage[0]
