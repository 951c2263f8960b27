"""What nothing will read again is found; what somebody may still be writing, or will go on from, is not."""

import time

import made_up_stages
import pytest

from birdclef_core.store.leftovers import find_leftovers
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage

DAY_S = 86_400.0


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def store(request, tmp_path):
    return StageStore(Storage.parse(str(tmp_path / "store") if request.param == "local" else request.getfixturevalue("s3_uri")))


def save_epochs(store: StageStore, stage_id: str) -> None:
    with store.save_epoch_checkpoint(stage_id, 1) as folder:
        (folder / "state").write_text("12345")


def found(store: StageStore, *keep: str, days: float) -> list[str]:
    return sorted(item.place for item in find_leftovers(store, set(keep), time.time() + days * DAY_S))


def test_a_store_in_order_has_none(store):
    assert found(store, days=100) == []
    made_up_stages.publish(store, "a")
    assert found(store, days=100) == []


def test_attempts_that_do_not_count_are_left_over_after_a_day(store):
    made_up_stages.publish(store, "a")
    earlier = store.published_attempt("a")
    made_up_stages.publish(store, "a")
    store.storage.write_text("stages/b/cut-off/weights", "12345")
    assert found(store, days=0.5) == [], "it may be a writer at work"
    assert found(store, days=2) == [f"stages/a/{earlier}", "stages/b/cut-off"]
    sizes = {item.place: item.num_bytes for item in find_leftovers(store, set(), time.time() + 2 * DAY_S)}
    assert sizes["stages/b/cut-off"] == 5


def test_a_damaged_stage_that_was_set_aside_is_left_over(store):
    made_up_stages.publish(store, "a")
    attempt = store.published_attempt("a")
    store.storage.write_text(f"stages/a/{attempt}/weights.safetensors", "rubbish")
    assert store.open("a") is None
    places = found(store, days=2)
    assert places[0] == f"stages/a/{attempt}" and places[1].startswith("stages/a/set-aside-") and len(places) == 2


def test_epoch_checkpoints_stay_while_somebody_may_go_on_from_them(store):
    save_epochs(store, "a")
    assert found(store, days=13) == []
    assert found(store, "a", days=100) == []
    assert found(store, days=15) == ["unfinished/a"]


def test_epoch_checkpoints_of_a_published_stage_are_left_over(store):
    made_up_stages.publish(store, "a")
    save_epochs(store, "a")
    assert found(store, "a", days=0) == ["unfinished/a"]
