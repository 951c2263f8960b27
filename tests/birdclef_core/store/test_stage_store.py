"""The store returns exactly what was published, or nothing, and sets damaged entries aside with a message."""

import json
import shutil
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path
from typing import Any

import made_up_stages
import pytest
import torch
from damage import damages
from safetensors.torch import save_file

from birdclef_core.config import ModelConfig, StageConfig
from birdclef_core.errors import FileContentError
from birdclef_core.identity import fingerprint, restore
from birdclef_core.json_files import from_json, from_values, to_json
from birdclef_core.store.stage_store import WEIGHTS, Pointer, StageRecord, StageStore
from birdclef_core.store.storage import Storage
from birdclef_core.store.summary import Spread

RECORDS = Path(__file__).parents[2] / "data" / "records"


def record(stage_id: str = "id") -> StageRecord:
    return StageRecord(
        stage_id=stage_id,
        parent_id=None,
        recipe="tiny",
        stage="train_ce",
        identity={"a": 1},
        species=["x"],
        metrics={"cmap": 0.5},
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


def test_reports_are_copied_without_weights_and_predictions(store, tmp_path):
    publish(store)
    store.copy_reports("id", tmp_path / "reports")
    assert sorted(path.name for path in (tmp_path / "reports").iterdir()) == ["species.csv", "stage.json"]
    entry = store.open("id")
    with store.publish(lambda: entry.record, "labels") as folder:
        (folder / "predictions.safetensors").write_bytes(b"many")
    store.copy_reports("labels", tmp_path / "of_labels")
    assert [path.name for path in (tmp_path / "of_labels").iterdir()] == ["stage.json"]


def test_a_summary_says_at_a_glance_what_a_stage_is(store):
    history = [{"clips_per_s": rate, "evaluate_s": 2.0} for rate in (1.0, 10.0, 12.0, 14.0)]
    known = made_up_stages.publish(store, "a", parent_id="p", history=history, num_floats=1000)
    made_up_stages.publish(store, "b")
    summaries = store.summaries()
    assert sorted(summaries) == ["a", "b"]
    summary = summaries["a"]
    assert summary == store.summary("a") and store.summary("c") is None
    assert (summary.parent_id, summary.cost_s, summary.epochs, summary.metrics) == ("p", known.cost_s, 4, {"cmap": 0.5})
    assert summary.num_bytes > 4000
    assert summary.clips_per_s == Spread(low=10.0, middle=12.0, high=14.0), "without the first epoch, which warms up"


def test_a_summary_of_another_version_of_the_code_is_made_anew(store, damage):
    known = made_up_stages.publish(store, "a", num_floats=1000)
    pointer = store.storage.read_json(dict[str, Any], "stages/a/published.json")
    now = store.summary("a")
    for changes in ({"warmth": 3}, {"metrics": None}, {"metrics": "high"}):
        old = {name: value for name, value in {**pointer["summary"], **changes}.items() if value is not None}
        store.storage.write_json("stages/a/published.json", {**pointer, "summary": old})
        again = store.summary("a")
        assert (again.metrics, again.cost_s) == (now.metrics, known.cost_s) and again.num_bytes >= now.num_bytes
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
    other.publish_copy(store.open("id"))
    assert other.check("id") == "" and other.open("id").weights()["w"].item() == 1.0


def test_a_removed_stage_is_gone(store):
    made_up_stages.publish(store, "a")
    store.remove("a")
    assert store.open("a") is None and store.summaries() == {}
    made_up_stages.publish(store, "a")
    assert store.open("a") is not None


def read_epoch(folder: Path) -> str:
    return (folder / "epoch.txt").read_text()


def save_epochs(store: StageStore, stage_id: str) -> None:
    for epoch in (1, 2, 3):
        with store.save_epoch_checkpoint(stage_id, epoch) as folder:
            (folder / "epoch.txt").write_text(str(epoch))


def test_the_newest_epoch_is_where_a_stage_goes_on(store):
    save_epochs(store, "id")
    assert store.latest_epoch_checkpoint("id", read_epoch) == "3"
    assert store.storage.at("unfinished", "id").names() == ["e0002", "e0003"]
    publish(store)
    assert store.latest_epoch_checkpoint("id", read_epoch) is None


def test_of_a_damaged_epoch_checkpoint_the_user_is_told_and_the_one_before_is_used(store, damage):
    save_epochs(store, "id")
    store.storage.write_text("unfinished/id/e0003/epoch.txt", "9")
    assert store.latest_epoch_checkpoint("id", read_epoch) == "2"
    assert len(damage) == 1 and "An epoch checkpoint of stage id is damaged and was removed" in damage[0]


def test_an_epoch_checkpoint_that_its_reader_refuses_is_damaged_too(store, damage):
    save_epochs(store, "id")
    assert (
        store.latest_epoch_checkpoint("id", lambda folder: from_json(Spread, (folder / "epoch.txt").read_bytes(), file="x"))
        is None
    )
    assert len(damage) == 2 and "x cannot be read: it must be an object, but is 3" in damage[0]
    assert store.unfinished() == {}


WHOLE = record()
MAY_BE_MISSING = {f"{item.name} is missing" for item in fields(StageRecord) if item.default is not MISSING}
"""Earlier versions wrote records without these fields."""
DAMAGED_RECORDS = [damage for damage in damages(StageRecord, to_json(WHOLE)) if damage.what not in MAY_BE_MISSING]


@pytest.mark.parametrize("damage", DAMAGED_RECORDS, ids=lambda damage: damage.what)
def test_a_damaged_record_is_set_aside_by_every_reader(tmp_path, damage):
    for number, read in enumerate((StageStore.open, StageStore.record)):
        said = []
        store = StageStore(Storage.parse(str(tmp_path / str(number))), said.append)
        publish(store)
        place = store.location("id").rpartition("/")[0]
        (Path(place) / "stage.json").write_bytes(damage.content)
        seal(Path(place))
        assert read(store, "id") is None
        assert len(said) == 1 and "will be trained again" in said[0] and "stage.json cannot be read" in said[0]
        assert damage.place in said[0]
        assert not store.is_published("id") and store.summaries() == {}
        publish(store, 2.0)
        assert store.record("id") == WHOLE


def seal(folder: Path) -> None:
    """Writes the manifest of a bundle again, as if its files were what was written."""
    (folder / "bundle.json").unlink()
    place, _, name = str(folder).rpartition("/")
    with Storage.parse(place).write_bundle(name):
        pass


@pytest.mark.parametrize(
    "damage", list(damages(Pointer, to_json(Pointer(attempt="x", summary=None)))), ids=lambda damage: damage.what
)
@pytest.mark.parametrize(
    "read", [StageStore.open, StageStore.record, StageStore.summary, StageStore.is_published, StageStore.check]
)
def test_a_damaged_pointer_is_set_aside_by_every_reader(tmp_path, damage, read):
    said = []
    store = StageStore(Storage.parse(str(tmp_path)), said.append)
    publish(store)
    (tmp_path / "stages/id/published.json").write_bytes(damage.content)
    assert read(store, "id") in (None, False, "it is not published")
    assert len(said) == 1 and "published.json cannot be read" in said[0] and damage.place in said[0]
    assert store.summaries() == {}


def test_damage_is_said_where_nobody_asked_for_it(tmp_path, caplog):
    store = StageStore(Storage.parse(str(tmp_path)))
    publish(store)
    store.storage.write_text("stages/id/published.json", "")
    assert store.open("id") is None
    assert "Store entry id is damaged and will be trained again" in caplog.text


@pytest.mark.parametrize("changes", [{"stage": {"clip_s": "x"}}, {"stage": {"epochs": float("nan")}}])
def test_a_record_that_gives_no_summary_is_set_aside(store, damage, changes):
    publish(store)
    place = weights_file(store).replace(WEIGHTS, "stage.json")
    store.storage.write_json(place, replace(WHOLE, identity=changes))
    store.storage.write_json("stages/id/published.json", Pointer(attempt=place.split("/")[2], summary={}))
    assert store.summary("id") is None
    assert len(damage) == 1 and not store.is_published("id")


@pytest.mark.parametrize("part", ["model", "stage", "label_space", "data", "parent", "code"])
def test_a_record_whose_identity_is_of_no_use_is_damaged(part):
    with pytest.raises(FileContentError, match=rf"f cannot be read: identity\.{part} must be (an object|text), but is 5\."):
        from_values(StageRecord, {**asdict(WHOLE), "identity": {part: 5}}, file="f")


def test_a_store_that_an_earlier_version_wrote_is_read(tmp_path, damage):
    """tests/data/records/README.md says how it was written. Users have such stores: what is trained must stay usable, as a start stage
    for one. It cannot be trained again, because its settings of augmentation are no more."""
    shutil.copytree(RECORDS / "store", tmp_path / "store")
    store = StageStore(Storage.parse(str(tmp_path / "store")), damage.append)
    (stage_id,) = store.known_ids()
    entry = store.open(stage_id)
    assert entry is not None and not damage
    assert store.check(stage_id) == "" and store.record(stage_id) == entry.record
    assert fingerprint(entry.record.identity) == stage_id
    pointer = json.loads((tmp_path / "store/stages" / stage_id / "published.json").read_text())
    before, now = pointer["summary"], asdict(store.summary(stage_id))
    assert now["metrics"]["cmap_pad5"] == before.pop("score") and now["label_space_name"] == "target"
    assert now["num_bytes"] >= before.pop("num_bytes") and now["work"] != before.pop("work"), "dropout has counted as work"
    assert {name: now[name] for name in before} == before
    restore(ModelConfig, entry.record.identity["model"])
    with pytest.raises(FileContentError, match=r"augment\.gaussian_noise_prob is not a field of this version"):
        restore(StageConfig, entry.record.identity["stage"])
