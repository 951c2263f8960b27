"""Trials with several folds as candidates: all models of one together, or not at all."""

from dataclasses import replace

import made_up_stages
import pytest
from made_up_records import SEARCH, sweep_record
from made_up_store import save_trial, store

from birdclef_core.errors import InputError
from birdclef_core.store.storage import Storage
from sweeps.deploy.candidates import siblings, souped
from sweeps.deploy.folded import find_trials, has_folds, other_scores
from sweeps.options import SweepOptions
from sweeps.schedule.records import SweepRecords


def stage_id(number: int) -> str:
    return f"{number:04x}" * 16


@pytest.fixture
def storage(tmp_path):
    return Storage.parse(str(tmp_path / "out"))


def save_sweep(storage, name: str = "s", **options) -> None:
    record = sweep_record(SweepOptions(search="sed", name=name, **options), name=name)
    part = replace(record.parts[0], search=replace(SEARCH, objective="val/cmap"))
    SweepRecords(storage.at(name)).save_sweep(replace(record, parts=(part,)))


def publish(storage, number: int, *, score: float = 0.5, stage: str = "train_bce", label_space: str = "target", **values) -> str:
    identity = {"model": {"encoder": "tiny"}, "stage": {"name": stage, "label_space": label_space}, "data": "d" * 64}
    metrics = {"cmap": score, "cmap_se": 0.1}
    known = {"identity": identity, "stage": stage, "metrics": metrics, "trained_by": "s/t0000", "species": ["a", "b"]}
    made_up_stages.publish(store(storage), stage_id(number), **{**known, **values})
    return stage_id(number)


def save_folds(storage, trial: int, scores, *, sweep: str = "s", first: int = 100, told: float = 0.5, **values) -> None:
    """A finished trial with three stages for each fold, the last two on target species; the last ones have ids from `first` + 100 * trial."""
    names, ids = [], []
    for offset, stage, space in ((50, "pretrain_ce", "all"), (25, "train_ce", "target"), (0, "train_bce", "target")):
        for fold, score in enumerate(scores):
            names.append(f"{stage}@fold{fold}")
            ids.append(
                publish(storage, first + 100 * trial + offset + fold, score=score, stage=stage, label_space=space, **values)
            )
    save_trial(storage, f"t{trial:04d}", ids, sweep=sweep, stages=names, kinds=["x"] * len(names), score=told)


def ids(candidates) -> list[tuple[str, ...]]:
    return [item.stage_ids for item in candidates.found]


def test_a_trial_is_a_candidate_with_the_model_of_each_fold_and_the_mean_of_their_scores(storage):
    save_sweep(storage, folds=3)
    save_folds(storage, 0, (0.4, 0.5, 0.6))
    found = find_trials(storage, ["s"])
    assert ids(found) == [tuple(stage_id(100 + fold) for fold in range(3))] and found.folds == (0, 1, 2)
    (item,) = found.found
    assert item.score.value == pytest.approx(0.5) and item.score.error == pytest.approx(0.1 / 3**0.5)
    assert item.title == "tiny train_bce s/t0000" and item.hearing == item.networks
    assert not other_scores(found)


def test_the_best_six_trials_of_a_recipe_take_part_and_those_that_are_named(storage):
    save_sweep(storage, folds=2)
    for trial in range(8):
        save_folds(storage, trial, (trial / 10, trial / 10))
    found = find_trials(storage, ["s", "s/t0000"])
    assert [item.of_trial.record.trial for item in found.found] == ["t0000", *(f"t000{trial}" for trial in range(7, 1, -1))]
    assert found.num_left_out == 1
    assert [item.of_trial.reference for item in find_trials(storage, ["s/t0004"]).found] == ["s/t0004"]


def test_a_trial_without_the_model_of_a_fold_is_left_out(storage):
    """An earlier stage of that fold does not stand for it."""
    save_sweep(storage, folds=2)
    save_folds(storage, 0, (0.4, 0.4))
    save_folds(storage, 1, (0.5, 0.5))
    store(storage).remove(stage_id(201))
    found = find_trials(storage, ["s"])
    assert ids(found) == [(stage_id(100), stage_id(101))] and found.gone == ("s/t0001",)
    store(storage).remove(stage_id(100))
    with pytest.raises(
        InputError, match="a model for every fold in the store to be a candidate, but of the finished trials of s none has"
    ):
        find_trials(storage, ["s"])


def test_only_trials_of_the_same_folds_can_be_compared(storage):
    save_sweep(storage, folds=2)
    save_folds(storage, 0, (0.4, 0.4))
    save_sweep(storage, "three", folds=3)
    save_folds(storage, 0, (0.4, 0.4, 0.4), sweep="three", first=500)
    save_sweep(storage, "plain")
    save_trial(storage, "t0000", [publish(storage, 900)], sweep="plain", stages=["train_bce"], score=0.5)
    with pytest.raises(
        InputError, match=r"s has 2 folds and three has 3\. Ways out: name these alone, or give --select-on soundscapes"
    ):
        find_trials(storage, ["s", "three"])
    for other in ("plain", "plain/t0000", stage_id(900)[:8], "s/t0000/train_bce@fold0"):
        with pytest.raises(InputError, match=f"but {other} is none: it has a model of one fold alone"):
            find_trials(storage, ["s", other])
    save_trial(storage, "t0001", [stage_id(100)], status="running")
    with pytest.raises(InputError, match="A trial must have finished to be a candidate, but s/t0001 has not"):
        find_trials(storage, ["s/t0001"])


def test_what_names_trials_with_folds(storage):
    save_sweep(storage, folds=2)
    save_folds(storage, 0, (0.4, 0.4))
    assert has_folds(storage, ["s"]) and has_folds(storage, ["s/t0000"]) and has_folds(storage, [])
    assert not has_folds(storage, ["s/t0000/train_bce@fold0"]) and not has_folds(storage, [stage_id(100)[:8]])


def test_scores_that_the_sweep_was_not_told_are_said(storage):
    save_sweep(storage, folds=2)
    save_folds(storage, 0, (0.4, 0.4), told=0.45)
    (text,) = other_scores(find_trials(storage, ["s"]))
    assert text.startswith("s/t0000 scored 0.4500 in its sweep, but its stages in the store say 0.4000")


def test_trials_are_siblings_where_they_are_so_in_each_fold(storage):
    """The mean of their weights is taken in each fold, never over folds."""
    save_sweep(storage, folds=2)
    for trial, parents in enumerate([(9, 10), (9, 10), (9, 11)]):
        for fold, parent in enumerate(parents):
            publish(storage, 100 * trial + fold, score=trial / 10, parent_id=stage_id(parent))
        trial_ids = [stage_id(100 * trial + fold) for fold in range(2)]
        save_trial(storage, f"t{trial:04d}", trial_ids, stages=["train_bce@fold0", "train_bce@fold1"], kinds=["x"] * 2, score=0.5)
    (family,) = siblings(find_trials(storage, ["s"]).found)
    soup = souped(family)
    assert [network.stage_ids for network in soup.networks] == [(stage_id(100), stage_id(0)), (stage_id(101), stage_id(1))]
    assert soup.title == "tiny train_bce s/t0001 and 1 more"
