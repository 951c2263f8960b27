"""Every StoreView keeps the same contract: one suite, run over the real driver's view and the simulated one."""

from pathlib import Path
from typing import Protocol
from unittest.mock import Mock

import made_up_stages
import pytest

from birdclef_core.store.leases import FOLDER, Holder, LeaseEntry, Leases
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from sweeps.plan.simulate import SimulatedStore, SimulatedView
from sweeps.schedule import store_view
from sweeps.schedule.store_view import DriverStoreView, StoreView

SWEEP = "mine"


class Place(Protocol):
    """A store of one kind, and what other processes do to it."""

    def view(self) -> StoreView: ...

    def publish(self, stage_id: str) -> None: ...

    def damage(self, stage_id: str) -> None:
        """The stage is not published any more."""

    def lease(self, stage_id: str, sweep: str) -> None: ...

    def release(self, stage_id: str, sweep: str) -> None: ...


class SimulatedPlace:
    def __init__(self, folder: Path) -> None:
        self.store = SimulatedStore()

    def view(self) -> StoreView:
        return SimulatedView(self.store, SWEEP)

    def publish(self, stage_id: str) -> None:
        self.store.published.add(stage_id)

    def damage(self, stage_id: str) -> None:
        self.store.published.discard(stage_id)

    def lease(self, stage_id: str, sweep: str) -> None:
        self.store.trained_by[stage_id] = sweep

    def release(self, stage_id: str, sweep: str) -> None:
        del self.store.trained_by[stage_id]


class RealPlace:
    def __init__(self, folder: Path) -> None:
        self.store = StageStore(Storage.parse(str(folder)))
        self.leases = Leases(self.store.storage)

    def view(self) -> StoreView:
        return DriverStoreView(self.store, self.leases, sweep=SWEEP)

    def publish(self, stage_id: str) -> None:
        made_up_stages.publish(self.store, stage_id)

    def damage(self, stage_id: str) -> None:
        self.store.unpublish(stage_id)

    def lease(self, stage_id: str, sweep: str) -> None:
        self.leases.storage.write_text(f"{FOLDER}/{self._entry(stage_id, sweep)}", "{}")

    def release(self, stage_id: str, sweep: str) -> None:
        self.leases.storage.delete(f"{FOLDER}/{self._entry(stage_id, sweep)}")

    def _entry(self, stage_id: str, sweep: str) -> str:
        return LeaseEntry(stage_id=stage_id, holder=Holder(sweep=sweep, run="1", trial="t"), token="x", beat_at_s=0.0).name


@pytest.fixture(params=[SimulatedPlace, RealPlace])
def place(request, tmp_path) -> Place:
    return request.param(tmp_path)


@pytest.fixture
def always_fresh(monkeypatch):
    """Leases are read again at every question."""
    monkeypatch.setattr(store_view, "REFRESH_S", 0.0)


@pytest.fixture
def never_fresh(monkeypatch):
    """Leases are read once, when they are first asked for."""
    monkeypatch.setattr(store_view, "REFRESH_S", 3600.0)


def test_a_stage_that_nobody_has_touched_is_neither_published_nor_leased(place):
    view = place.view()
    assert not view.is_published("a") and not view.is_leased("a")


def test_what_was_published_before_the_view_was_made_is_seen(place):
    place.publish("a")
    view = place.view()
    assert view.is_published("a") and not view.is_published("b")


def test_marks_count_at_once_and_for_their_stage_alone(place):
    view = place.view()
    view.mark_published("a")
    assert view.is_published("a") and not view.is_published("b")
    view.mark_missing("a")
    assert not view.is_published("a")
    view.mark_published("a")
    assert view.is_published("a")
    assert not view.is_leased("a"), "publishing says nothing of leases"


def test_a_mark_counts_though_the_stage_was_never_asked_for_before(place):
    place.publish("a")
    view = place.view()
    view.mark_missing("a")
    assert not view.is_published("a")


def test_a_damaged_stage_that_is_trained_again_is_published(place):
    place.publish("a")
    view = place.view()
    assert view.is_published("a")
    place.damage("a")
    view.mark_missing("a")
    assert not view.is_published("a")
    place.publish("a")
    view.mark_published("a")
    assert view.is_published("a")


def test_marking_twice_is_marking_once(place):
    view = place.view()
    for _ in range(2):
        view.mark_missing("a")
    assert not view.is_published("a")
    for _ in range(2):
        view.mark_published("a")
    assert view.is_published("a")


def test_a_lease_of_another_sweep_is_seen_and_ones_own_is_not(place):
    place.lease("theirs", "other")
    place.lease("ours", SWEEP)
    view = place.view()
    assert view.is_leased("theirs") and not view.is_leased("ours")
    assert not view.is_published("theirs"), "a stage in training is not published"


def test_a_lease_that_the_driver_is_told_of_counts_at_once(place, never_fresh):
    view = place.view()
    assert not view.is_leased("a")
    place.lease("a", "other")
    view.mark_leased("a")
    assert view.is_leased("a") and not view.is_leased("b")


def test_a_stage_that_another_sweep_has_finished_is_published(place, always_fresh):
    view = place.view()
    assert not view.is_published("a")
    place.lease("a", "other")
    assert view.is_leased("a") and not view.is_published("a")
    place.publish("a")
    place.release("a", "other")
    assert not view.is_leased("a")
    assert view.is_published("a")


def test_a_stage_that_another_sweep_has_given_up_is_neither(place, always_fresh):
    view = place.view()
    place.lease("a", "other")
    assert view.is_leased("a")
    place.release("a", "other")
    assert not view.is_leased("a") and not view.is_published("a")


def test_asking_changes_nothing(place, always_fresh):
    place.publish("a")
    place.lease("b", "other")
    view = place.view()
    answers = [(view.is_published(name), view.is_leased(name)) for name in ("a", "b", "c")]
    assert answers == [(True, False), (False, True), (False, False)]
    assert answers == [(view.is_published(name), view.is_leased(name)) for name in ("a", "b", "c")]
    assert place.view().is_published("a"), "the store itself is as it was"


def test_the_driver_does_not_wait_for_a_storage_that_is_away(tmp_path, always_fresh, monkeypatch):
    """What was known of leases stays known, and is read again when the storage is back."""
    place = RealPlace(tmp_path)
    place.lease("a", "other")
    view = place.view()
    assert view.is_leased("a")
    place.release("a", "other")
    with monkeypatch.context() as outage:
        outage.setattr(Storage, "is_local", False)
        outage.setattr(Leases, "entries", Mock(side_effect=OSError("AWS Error NETWORK_CONNECTION")))
        place.store.storage.patience.limit_s = 900.0
        assert view.is_leased("a")
    assert not view.is_leased("a")
