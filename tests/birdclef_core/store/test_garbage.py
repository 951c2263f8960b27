"""Garbage: the least worth keeping goes first, no lineage is torn, nothing goes that must stay, and no more than needed."""

from dataclasses import replace
from datetime import UTC, datetime

import made_up_stages
import pytest

from birdclef_core.store.garbage import ancestry, choose_garbage, collect, worth
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from birdclef_core.store.summary import IMPORTED, StageSummary

NOW = datetime(2026, 11, 22, tzinfo=UTC)
MIB = 2**20


def summary(stage_id: str, parent: str | None = None, *, cost_s=100.0, mib=10, days=0) -> StageSummary:
    return StageSummary(
        stage_id=stage_id,
        parent_id=parent,
        recipe="r",
        stage="train_ce",
        metrics={"cmap": 0.5},
        epochs=1,
        cost_s=cost_s,
        num_bytes=mib * MIB,
        device="cpu",
        finished_at=datetime.fromtimestamp(NOW.timestamp() - 86_400 * days, UTC).isoformat(),
        work="w",
        clip_s=5.0,
        config="c",
        label_space="l",
        label_space_name="target",
        data="d",
        code="code",
        start="" if parent else "random",
        clips_per_s=None,
        evaluate_s=None,
    )


def store(*items: StageSummary) -> dict[str, StageSummary]:
    return {item.stage_id: item for item in items}


TREE = store(summary("P", cost_s=1000.0), summary("Q", "P"), summary("a", "Q"), summary("b", "Q"), summary("c", "P"))
USES = {"P": 3, "Q": 2, "a": 1, "b": 1, "c": 1}


def gone(budget_mib: float, keep=(), stages=None, uses=USES, **options) -> list[str]:
    plan = choose_garbage(stages or TREE, uses, keep, budget_bytes=int(budget_mib * MIB), now=NOW, **options)
    return [removal.summary.stage_id for removal in plan.removals]


def test_nothing_goes_while_there_is_room():
    assert gone(50) == []
    assert gone(49.9) == ["a"]
    assert gone(60, other_bytes=11 * MIB) == ["a"]


def test_children_go_before_what_they_were_trained_from():
    assert gone(0) == ["a", "b", "c", "Q", "P"]


def test_what_is_kept_keeps_all_that_it_was_trained_from():
    assert gone(0, keep=["b"]) == ["a", "c"]
    plan = choose_garbage(TREE, USES, ["b"], budget_bytes=0, now=NOW)
    assert not plan.fits and plan.bytes_before == 50 * MIB and plan.bytes_after == 30 * MIB


@pytest.mark.parametrize("changes", [{"cost_s": 50.0}, {"num_bytes": 20 * MIB}, {"finished_at": "2026-01-01T00:00:00+00:00"}])
def test_what_is_cheap_large_or_old_goes_first(changes):
    stages = TREE | {"b": replace(TREE["b"], **changes)}
    assert gone(45, stages=stages)[0] == "b"


def test_what_is_used_more_stays_longer():
    assert gone(45, uses={**USES, "a": 5, "b": 2}) == ["c"]


def test_a_stage_of_thirty_days_is_worth_half():
    new, old = summary("x"), summary("x", days=30)
    assert worth(old, 3, NOW) == pytest.approx(worth(new, 3, NOW) / 2)
    assert worth(replace(new, finished_at="?"), 3, NOW) == worth(new, 3, NOW)


def test_an_ancestry_ends_where_the_store_does():
    assert ancestry(["a"], TREE) == {"a", "Q", "P"}
    assert ancestry(["a", "gone"], {"a": TREE["a"]}) == {"a"}


def test_what_was_trained_on_all_recordings_stays_with_its_parents():
    refit = replace(summary("refit", cost_s=0.0), metrics={}, parent_id="before")
    stages = TREE | {"refit": refit, "before": replace(summary("before", cost_s=0.0), metrics={})}
    removed = {item.summary.stage_id for item in choose_garbage(stages, {}, (), budget_bytes=0).removals}
    assert removed == set(TREE)


def test_an_imported_stage_stays_because_nothing_could_make_it_again():
    stages = TREE | {"own": replace(summary("own", cost_s=0.0), code=IMPORTED)}
    assert gone(0, stages=stages) == ["a", "b", "c", "Q", "P"]


def test_epoch_checkpoints_go_first_but_for_those_that_are_needed():
    plan = choose_garbage(TREE, USES, ["b"], budget_bytes=55 * MIB, unfinished={"b": 9 * MIB, "x": MIB, "y": 3 * MIB}, now=NOW)
    assert plan.bytes_before == 63 * MIB
    assert plan.abandoned == {"y": 3 * MIB, "x": MIB}, "the largest first"
    assert [removal.summary.stage_id for removal in plan.removals] == ["a"] and plan.fits
    assert not choose_garbage(TREE, USES, [], budget_bytes=100 * MIB, unfinished={"x": MIB}, now=NOW).abandoned


def test_collecting_removes_what_was_planned_and_nothing_else(tmp_path):
    store = StageStore(Storage.parse(str(tmp_path)))
    for stage_id, parent in (("p", None), ("a", "p"), ("b", "p")):
        made_up_stages.publish(store, stage_id, parent_id=parent)
    for stage_id in ("a", "x"):
        with store.save_epoch_checkpoint(stage_id, 1) as folder:
            (folder / "state").write_text("12345")
    plan = choose_garbage(store.summaries(), {}, ["b"], budget_bytes=0, unfinished=store.unfinished())
    collect(store, plan)
    assert sorted(store.summaries()) == ["b", "p"] and store.open("b") is not None
    assert store.unfinished() == {} and store.known_ids() == ["b", "p"]


def test_a_collection_that_is_cut_off_tears_no_lineage(tmp_path, monkeypatch):
    store = StageStore(Storage.parse(str(tmp_path)))
    for stage_id, parent in (("p", None), ("a", "p"), ("b", "a")):
        made_up_stages.publish(store, stage_id, parent_id=parent)
    taken = []

    def cut_off_at_the_second(self, stage_id):
        if taken:
            raise OSError
        taken.append(stage_id)
        self.storage.delete(f"stages/{stage_id}/published.json")

    monkeypatch.setattr(StageStore, "unpublish", cut_off_at_the_second)
    with pytest.raises(OSError):
        collect(store, choose_garbage(store.summaries(), {}, [], budget_bytes=0))
    assert sorted(store.summaries()) == ["a", "p"], "the last of the chain went first"


def adopted(stage_id: str, original: str, parent: str | None = None, *, is_linked=True, **values) -> StageSummary:
    return replace(summary(stage_id, parent, **values), adopted_from=original, is_linked=is_linked)


LINKED = store(summary("P"), summary("a", "P"), adopted("P2", "P"), adopted("a2", "a", "P2"), summary("b", "P2"))


def test_files_that_stages_share_count_once_and_are_freed_with_the_last():
    assert gone(30, stages=LINKED, uses={}) == []
    assert gone(20, stages=LINKED, uses={"a": 9}) == ["b"]
    assert sorted(gone(20, stages=LINKED, uses={"b": 9})) == ["a", "a2"], "one of them alone would free nothing, and so would P"
    assert len(gone(0, stages=LINKED, uses={})) == 5


def test_a_stage_whose_files_something_kept_shares_stays_too():
    assert gone(0, keep=["a"], stages=LINKED, uses={}) == ["b"]
    assert gone(0, keep=["a2"], stages=LINKED, uses={}) == ["b"]


@pytest.mark.parametrize("used", ["a", "a2"])
def test_an_adopted_stage_and_the_one_it_was_adopted_from_have_the_uses_of_both(used):
    copied = store(summary("a"), adopted("a2", "a", is_linked=False), summary("b"))
    assert gone(25, stages=copied, uses={used: 9, "b": 3}) == ["b"]
    assert len(gone(15, stages=copied, uses={used: 9, "b": 3})) == 2, "each copy takes room of its own"


def test_the_one_use_by_the_trial_that_trained_a_stage_promises_no_other():
    stages = TREE | {"a": replace(TREE["a"], cost_s=500.0)}
    assert gone(45, stages=stages, uses={**USES, "a": 1, "b": 2, "c": 2}) == ["a"]
    assert worth(TREE["a"], 1, NOW) == worth(TREE["a"], 0, NOW) > 0


def test_what_a_student_learned_from_stays_as_long_as_it_does():
    labels = replace(summary("L", "Q"), is_predictions=True)
    student = replace(summary("s", "P"), learned_from=["L"])
    stages = store(summary("P", cost_s=1000.0), summary("Q", "P"), labels, student)
    assert ancestry(["s"], stages) == {"s", "P", "L", "Q"}
    assert gone(30, keep=["s"], stages=stages, uses={}) == []
    order = gone(0, stages=stages, uses={})
    assert set(order) == set(stages)
    assert order.index("s") < order.index("L") < order.index("Q") < order.index("P")
