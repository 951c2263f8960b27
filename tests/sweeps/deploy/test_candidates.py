"""What an ensemble is chosen from: the last stages of finished trials, and single stages."""

from dataclasses import replace

import made_up_stages
import pytest
from made_up_records import SEARCH, sweep_record
from made_up_store import save_trial, store

from birdclef_core.errors import InputError
from birdclef_core.store.storage import Storage
from sweeps.deploy.candidates import find_candidates, siblings, souped
from sweeps.options import SweepOptions
from sweeps.schedule.records import SweepRecords


def stage_id(number: int) -> str:
    return f"{number:04x}" * 16


@pytest.fixture
def storage(tmp_path):
    return Storage.parse(str(tmp_path / "out"))


def publish(storage, number: int, *, score: float = 0.5, label_space: str = "target", stage: str = "train_bce", **values) -> str:
    """A stage with a score, trained by the sweep `s` unless `values` say otherwise."""
    identity = {"model": {"encoder": "tiny"}, "stage": {"name": stage, "label_space": label_space}, "data": "d" * 64}
    known = {"identity": identity, "stage": stage, "metrics": {"cmap": score}, "trained_by": "s/t0000", "species": ["a", "b"]}
    made_up_stages.publish(store(storage), stage_id(number), **{**known, **values})
    return stage_id(number)


def save_sweep(storage, name: str = "s", objective: str | None = None, started_at: str = "2026-11-22T12:00:00+0000") -> None:
    record = sweep_record(SweepOptions(search="sed", name=name), name=name, started_at=started_at)
    part = replace(record.parts[0], search=replace(SEARCH, objective=objective))
    SweepRecords(storage.at(name)).save_sweep(replace(record, parts=(part,)))


def ids(candidates) -> list[str]:
    return [item.record.stage_id for item in candidates.found]


def test_the_best_six_of_each_recipe_take_part(storage):
    save_sweep(storage)
    for number in range(9):
        publish(storage, number, score=number / 10, recipe="one" if number < 8 else "two")
        save_trial(storage, f"t{number:04d}", [stage_id(number)], score=number / 10)
    found = find_candidates(storage, ["s"])
    assert set(ids(found)) == {stage_id(number) for number in (2, 3, 4, 5, 6, 7, 8)}
    assert found.num_left_out == 2 and not found.gone and found.species == ("a", "b")


def test_a_trial_gives_its_last_stage_on_target_species_once(storage):
    save_sweep(storage)
    publish(storage, 1, label_space="all", stage="pretrain_ce")
    publish(storage, 2, parent_id=stage_id(1))
    publish(storage, 3, label_space="all", stage="finetune")
    save_trial(storage, "t0000", [stage_id(1), stage_id(2), stage_id(3)], score=0.5)
    save_trial(storage, "t0001", [stage_id(1), stage_id(2)], score=0.5)
    save_trial(storage, "t0002", [stage_id(1)], status="failed")
    assert ids(find_candidates(storage, ["s"])) == [stage_id(2)]


@pytest.mark.parametrize("part", ["fold", "repeat"])
def test_a_trial_of_several_replicates_gives_the_last_stage_of_each(storage, part):
    SweepRecords(storage.at("s")).save_sweep(sweep_record(SweepOptions(search="sed", name="s", **{f"{part}s": 2})))
    names = ["labels", *(f"{stage}@{part}{number}" for stage in ("train_ce", "train_bce") for number in range(2))]
    for number, name in enumerate(names):
        publish(storage, number, stage=name.partition("@")[0])
    save_trial(storage, "t0000", [stage_id(number) for number in range(5)], stages=names, kinds=["target ce"] * 5, score=0.5)
    found = find_candidates(storage, ["s"])
    assert ids(found) == [stage_id(3), stage_id(4)]


def test_named_stages_take_part_whatever_their_score(storage):
    save_sweep(storage)
    for number in range(8):
        publish(storage, number, score=number / 10)
        save_trial(storage, f"t{number:04d}", [stage_id(number)], score=number / 10)
    found = find_candidates(storage, ["s", stage_id(0)[:8]])
    assert set(ids(found)) == {stage_id(number) for number in (0, 2, 3, 4, 5, 6, 7)}
    assert ids(find_candidates(storage, ["s/t0003", stage_id(1)[:8]])) == [stage_id(3), stage_id(1)]


def test_without_a_reference_it_is_the_newest_sweep(storage):
    save_sweep(storage, "old", started_at="2026-11-20T12:00:00+0000")
    save_sweep(storage, "new", started_at="2026-11-21T12:00:00+0000")
    publish(storage, 1, trained_by="new/t0000")
    save_trial(storage, "t0000", [stage_id(1)], sweep="new", score=0.5)
    assert find_candidates(storage, []).sweep.name == "new"


def test_what_gives_no_candidate_is_refused(storage):
    with pytest.raises(InputError, match="must have a sweep to choose an ensemble from"):
        find_candidates(storage, [])
    save_sweep(storage)
    save_trial(storage, "t0000", [stage_id(1)], status="running")
    with pytest.raises(InputError, match="s has none yet"):
        find_candidates(storage, ["s"])
    save_trial(storage, "t0001", [stage_id(1)], score=0.5)
    with pytest.raises(InputError, match="of the 1 finished trials of s the store has none"):
        find_candidates(storage, ["s"])
    publish(storage, 1, label_space="all")
    with pytest.raises(InputError, match="must be a stage on the target species"):
        find_candidates(storage, [stage_id(1)[:8]])
    with pytest.raises(InputError, match="no such stage or sweep"):
        find_candidates(storage, ["other"])


def test_stages_of_different_species_are_refused(storage):
    publish(storage, 1)
    publish(storage, 2, species=["b", "c", "d"])
    with pytest.raises(InputError, match=r"knows 2 and 000200020002 knows 3, of which 1 are the same"):
        find_candidates(storage, [stage_id(1)[:8], stage_id(2)[:8]])


@pytest.mark.parametrize(
    ("objective", "touched"),
    [
        ("val/cmap", {"val"}),
        ("val_soundscapes/auroc", {"val_soundscapes"}),
        ("val/cmap + val_soundscapes/auroc", {"val", "val_soundscapes"}),
    ],
)
def test_an_objective_touches_the_data_that_it_scores(storage, objective, touched):
    save_sweep(storage, objective=objective)
    publish(storage, 1)
    save_trial(storage, "t0000", [stage_id(1)], score=0.5)
    found = find_candidates(storage, ["s"])
    assert set(found.touched) == touched
    assert all("is the objective of s" in reason for reason in found.touched.values())


def test_other_influences_touch_data_too(storage):
    save_sweep(storage, objective="val_soundscapes/auroc")
    early = {"name": "train_bce", "label_space": "target", "early_stop_epochs": 3}
    publish(storage, 1, identity={"model": {}, "stage": early, "data": "d"})
    assert "ended the training" in find_candidates(storage, [stage_id(1)[:8]]).touched["val"]
    publish(storage, 2, label_space="all", stage="pretrain_ce")
    publish(storage, 3, parent_id=stage_id(2))
    assert "compared by validation recordings" in find_candidates(storage, [stage_id(3)[:8]]).touched["val"]
    publish(storage, 4, trained_by="")
    assert set(find_candidates(storage, [stage_id(4)[:8]]).touched) == {"val", "val_soundscapes"}
    save_sweep(storage, "before", objective="val/cmap")
    publish(storage, 5, trained_by="before/t0000")
    publish(storage, 6, parent_id=stage_id(5))
    assert "is the objective of before" in find_candidates(storage, [stage_id(6)[:8]]).touched["val"]


def test_weights_of_recipes_are_those_of_the_search(storage):
    record = sweep_record(SweepOptions(search="sed", name="s"))
    own = replace(SEARCH.recipes[0], name="own", ensemble_weight=0.3)
    part = replace(record.parts[0], search=replace(SEARCH, recipes=(own,)))
    SweepRecords(storage.at("s")).save_sweep(replace(record, parts=(part,)))
    publish(storage, 1, recipe="own")
    publish(storage, 2, recipe="sed_v2s")
    publish(storage, 3, recipe="unheard")
    references = [stage_id(number)[:8] for number in (1, 2, 3)]
    assert [item.recipe_weight for item in find_candidates(storage, references).found] == [0.3, 0.25, None]


def test_siblings_have_one_parent_and_one_model(storage):
    publish(storage, 9)
    for number, score in ((1, 0.3), (2, 0.6), (3, 0.5)):
        publish(storage, number, score=score, parent_id=stage_id(9))
    other = {"model": {"encoder": "other"}, "stage": {"name": "train_bce"}, "data": "d"}
    publish(storage, 4, parent_id=stage_id(9), identity=other)
    found = find_candidates(storage, [stage_id(number)[:8] for number in (9, 1, 2, 3, 4)])
    (family,) = siblings(found.found)
    assert [item.record.stage_id for item in family] == [stage_id(2), stage_id(3), stage_id(1)]
    assert souped(family).stage_ids == (stage_id(2), stage_id(3), stage_id(1))
