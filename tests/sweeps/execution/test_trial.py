"""A trial trains what the store lacks, reuses what it has, and mends what is damaged."""

import math
from contextlib import nullcontext
from dataclasses import replace

import pandas as pd
import pytest
import torch
from made_up import chains_on
from made_up_heads import head_chain, write_encoder
from made_up_stage import ExecutionLog, MadeUpStage

from birdclef_core.reports.stage_report import PREDICTIONS
from birdclef_core.stages.interruption import StageInterrupted
from birdclef_core.store.leases import Holder, Leases, NoLease, alone
from birdclef_core.store.stage_store import WEIGHTS, StageStore
from birdclef_core.store.storage import Storage
from sweeps.execution import trial
from sweeps.execution.trial import run_trial
from sweeps.objective import Objective
from sweeps.replicates import Replicate
from sweeps.schedule.update import EpochPoint, TrialUpdate

CPU = torch.device("cpu")


@pytest.fixture
def notes():
    return []


@pytest.fixture
def store(tmp_path, notes):
    return StageStore(Storage.parse(str(tmp_path / "store")), notes.append)


@pytest.fixture
def chain(tiny_recipe, tone_data):
    recipe = replace(tiny_recipe, stages=tuple(replace(stage, epochs=1) for stage in tiny_recipe.stages))
    return chains_on(recipe, tone_data).chain("tiny", {})


def updates(chain, tone_data, store, notes) -> list[TrialUpdate]:
    return list(run_trial(chain, tone_data, store, CPU, notes))


def test_a_trial_reports_every_epoch_and_scores_under_the_label_spaces_name(chain, tone_data, store, notes):
    got = updates(chain, tone_data, store, notes)
    assert [(update.kind, update.stage, update.done) for update in got] == [
        ("epoch", "pretrain_ce", False),
        ("epoch", "train_bce", False),
        ("epoch", "finetune", True),
    ]
    assert "val_all/cmap" in got[0].metrics and "val/cmap" not in got[0].metrics
    assert got[0].score == got[0].metrics["val_all/cmap"] and got[2].score == got[2].metrics["val/cmap"]
    assert all(update.stage_done for update in got)


def test_soundscapes_are_scored_where_trials_are_compared_by_them(chain, tone_data, store, notes, monkeypatch, tmp_path):
    """In the middle of a long stage, too; at its end they are scored anyway."""
    asked: dict[str, list[int]] = {}
    train = MadeUpStage(ExecutionLog(tmp_path / "log"), epoch_s=0.0)

    def spy(task, *arguments, soundscapes_at, **options):
        asked[task.config.name] = list(soundscapes_at)
        return train(task, *arguments, soundscapes_at=soundscapes_at, **options)

    monkeypatch.setattr(trial, "train_stage", spy)
    long = tuple(replace(task, config=replace(task.config, epochs=10)) for task in chain)
    by_recordings = list(run_trial(long[:1], tone_data, store, CPU, notes, objective=Objective.of("2*val/lrap")))
    assert asked == {"pretrain_ce": []}
    assert [update.score for update in by_recordings] == [2 * update.metrics["val_all/lrap"] for update in by_recordings]
    got = list(run_trial(long[:2], tone_data, store, CPU, notes, objective=Objective.of("val_soundscapes/auroc")))
    assert asked == {"pretrain_ce": [], "train_bce": [5]}
    assert got[0].kind == "reused" and got[0].score == got[0].metrics["val_all/auroc"], "all have another label space"
    assert all(math.isnan(update.score) for update in got[1:]), "these epochs have no scores on soundscapes"


def test_a_second_run_reuses_all_and_says_what_that_saved(chain, tone_data, store, notes):
    first = updates(chain, tone_data, store, notes)
    second = updates(chain, tone_data, store, notes)
    assert [update.kind for update in second] == ["reused"] * 3
    assert [update.score for update in second] == [update.score for update in first]
    assert [update.cost_s for update in second] == [update.cost_s for update in first]
    assert second[-1].done


def test_a_stage_of_its_own_is_known_but_not_one_that_was_adopted_from_it(chain, tone_data, store, notes):
    """The trial was charged for it under the id that it had before."""
    first, name = chain[0], "s/t0000"
    list(run_trial((first,), tone_data, store, CPU, notes, name=name))
    record = store.record(first.stage_id)
    store.publish_again(first.stage_id, replace(record, stage_id="a" * 64, adopted_from=first.stage_id))
    adopted = replace(first, stage_id="a" * 64)
    got = [update for task in (first, adopted) for update in run_trial((task,), tone_data, store, CPU, notes, name=name)]
    assert [(update.kind, update.is_own) for update in got] == [("reused", True), ("reused", False)]


@pytest.mark.slow
def test_a_damaged_stage_is_trained_again_and_said_aloud(chain, tone_data, store, notes):
    first = updates(chain, tone_data, store, notes)
    place = store.location(chain[2].stage_id).removeprefix(store.storage.root + "/")
    assert place.endswith(WEIGHTS)
    store.storage.write_text(place, "rubbish")
    second = updates(chain, tone_data, store, notes)
    assert [update.kind for update in second] == ["reused", "reused", "epoch"]
    assert "is damaged and will be trained again" in second[0].message
    assert second[-1].score == first[-1].score


def test_a_failure_ends_the_trial_with_its_reason(chain, tone_data, store, notes):
    bad = replace(chain[1], config=replace(chain[1].config, learning_rate=1e30))
    got = updates((chain[0], bad, chain[2]), tone_data, store, notes)
    assert [update.kind for update in got] == ["epoch", "failed"]
    assert got[1].done and "must be finite" in got[1].message


@pytest.mark.slow
def test_a_stage_that_another_sweep_trains_is_held_and_reused_once_it_is_there(chain, tone_data, store, notes):
    leases = Leases(store.storage)
    mine, other = (Holder(sweep=name, run="1", trial="t0") for name in ("mine", "other"))

    def run() -> list[TrialUpdate]:
        return list(run_trial(chain, tone_data, store, CPU, notes, hold=lambda stage_id: leases.hold(stage_id, mine)))

    with leases.hold(chain[0].stage_id, other):
        got = run()
        assert [(update.kind, update.stage, update.stage_done) for update in got] == [("held", "pretrain_ce", False)]
        list(run_trial(chain[:1], tone_data, store, CPU, notes))
    assert [update.kind for update in run()] == ["reused", "epoch", "epoch"]
    assert leases.entries() == []


def test_a_stage_published_while_its_lease_was_waited_for_is_reused(chain, tone_data, store, notes):
    def hold(stage_id: str):
        list(run_trial(chain[:1], tone_data, store, CPU, notes))
        return alone(stage_id)

    got = list(run_trial(chain[:1], tone_data, store, CPU, notes, hold=hold))
    assert [update.kind for update in got] == ["reused"]


def test_a_trial_whose_lease_was_taken_over_stops_and_is_held(chain, tone_data, store, notes):
    class Lost(NoLease):
        lost = True

        def reason_to_stop(self) -> str:
            return "lost"

    got = list(run_trial(chain, tone_data, store, CPU, notes, hold=lambda stage_id: nullcontext(Lost())))
    assert [update.kind for update in got] == ["held"]
    assert store.record(chain[0].stage_id) is None


def test_sigterm_while_the_lease_is_lost_still_interrupts(chain, tone_data, store, notes):
    """The worker is about to be killed: it must not start another trial because its lease was taken over as well."""

    class Lost(NoLease):
        lost = True

        def reason_to_stop(self) -> str:
            return "lost"

    with pytest.raises(StageInterrupted):
        list(
            run_trial(
                chain,
                tone_data,
                store,
                CPU,
                notes,
                stop=lambda: "SIGTERM was received",
                hold=lambda stage_id: nullcontext(Lost()),
            )
        )


def test_the_lease_is_given_back_with_the_stages_end_not_with_the_next_call(chain, tone_data, store, notes):
    leases = Leases(store.storage)
    holder = Holder(sweep="mine", run="1", trial="t0")
    updates = run_trial(chain[:1], tone_data, store, CPU, notes, hold=lambda stage_id: leases.hold(stage_id, holder))
    assert next(updates).done
    assert leases.entries() == []


def test_a_stage_that_stops_early_is_done_and_the_next_one_follows(chain, tone_data, store, notes, monkeypatch):
    monkeypatch.setattr("birdclef_core.stages.training.summarise", lambda truth, score: {"cmap": 0.5})
    early = replace(chain[0], config=replace(chain[0].config, epochs=9, early_stop_epochs=1))
    got = updates((early, chain[1]), tone_data, store, notes)
    assert [(update.stage, update.epoch, update.stage_done, update.done) for update in got] == [
        ("pretrain_ce", 1, False, False),
        ("pretrain_ce", 2, True, False),
        ("train_bce", 1, True, True),
    ]


def test_a_stop_ends_a_trial_without_a_report_and_it_goes_on_where_it_was(chain, tone_data, store, notes):
    calls = iter(("", "", "enough"))
    with pytest.raises(StageInterrupted, match="enough"):
        list(run_trial(chain, tone_data, store, CPU, notes, stop=lambda: next(calls)))
    got = updates(chain, tone_data, store, notes)
    assert [update.kind for update in got] == ["epoch"] * 3


def test_epochs_that_a_driver_may_not_have_heard_of_come_with_the_next_update(chain, tone_data, store, notes):
    """The worker was lost after each of them, or its driver was: the stage goes on from them, or has ended."""
    task = replace(chain[0], config=replace(chain[0].config, epochs=3))

    def run():
        return run_trial((task,), tone_data, store, CPU, notes, name="s/t0000")

    lost = run()
    first = next(lost)
    lost.close()
    second, third = run()
    points = [EpochPoint(epoch=update.epoch, metrics=update.metrics, time_s=update.time_s) for update in (first, second, third)]
    assert (first.earlier, second.earlier, third.earlier) == ([], points[:1], [])
    (reused,) = run()
    assert reused.is_own and reused.earlier == points
    (by_another,) = run_trial((task,), tone_data, store, CPU, notes, name="s/t0001")
    assert by_another.kind == "reused" and not by_another.earlier


def test_what_an_epoch_cost_is_tracked(chain, tone_data, store, notes):
    metrics = updates(chain[:1], tone_data, store, notes)[0].metrics
    assert {"train/loss", "train/learning_rate", "train/clips_per_s", "train/waited_s"} <= metrics.keys()
    assert 0 < metrics["train/device_s"] + metrics["train/evaluate_s"] < metrics["train/epoch_s"]
    assert metrics["train/memory_gib"] > 0.05


def test_reports_survive_tunes_flattening():
    update = TrialUpdate(
        kind="epoch", stage="train_ce", stage_index=0, stage_id="x", epoch=1, epochs=2, score=0.5, metrics={"val/cmap": 0.25}
    )
    update.earlier = [EpochPoint(epoch=1, metrics={"val/cmap": 0.125}, time_s=2.0)]
    flat = {key: value for key, value in update.to_result().items() if key != "metrics"}
    flat |= {"metrics/val/cmap": 0.25, "training_iteration": 3}
    assert TrialUpdate.from_result(flat) == update


def test_only_what_the_missing_stages_need_is_trained_again(chain, tone_data, store, notes):
    """The second stage starts the third, and a fourth starts from the first: when the last two are gone, the second is not needed."""
    first, second, third = chain
    fourth = replace(second, stage_id="fourth", parent_id=first.stage_id, config=replace(second.config, name="fourth"))
    whole = (first, second, third, fourth)
    updates(whole, tone_data, store, notes)
    store.remove(fourth.stage_id)
    store.remove(second.stage_id)
    got = updates(whole, tone_data, store, notes)
    assert [(update.kind, update.stage_id) for update in got] == [
        ("reused", first.stage_id),
        ("reused", second.stage_id),
        ("reused", third.stage_id),
        ("epoch", "fourth"),
    ]
    assert not store.is_published(second.stage_id)
    store.remove(fourth.stage_id)
    store.remove(first.stage_id)
    assert [update.kind for update in updates(whole, tone_data, store, notes)] == ["epoch", "reused", "reused", "epoch"]


def test_each_fold_is_trained_and_scored_on_its_own_recordings(tiny_recipe, tone_data, store, notes):
    recipe = replace(tiny_recipe, stages=tuple(replace(stage, epochs=1) for stage in tiny_recipe.stages[:2]))
    folds = [tone_data.dataset.of_fold(fold) for fold in range(2)]
    replicates = tuple(Replicate.of_fold(fold, dataset.fingerprint) for fold, dataset in enumerate(folds))
    chain = chains_on(recipe, tone_data, replicates=replicates).chain("tiny", {})
    got = updates(chain, tone_data, store, notes)
    names = ["pretrain_ce@fold0", "pretrain_ce@fold1", "train_bce@fold0", "train_bce@fold1"]
    assert [(update.stage, update.kind, update.done) for update in got] == [(name, "epoch", name == names[-1]) for name in names]
    for fold, dataset in enumerate(folds):
        predicted = pd.read_parquet(store.open(chain[2 + fold].stage_id).folder / PREDICTIONS)
        is_scored = dataset.recordings["is_validation"] & dataset.recordings["primary_label"].isin(("low", "top"))
        assert sorted(predicted.index) == sorted(dataset.recordings["recording_id"][is_scored])


def test_heads_of_all_folds_learn_from_embeddings_that_are_made_once(tiny_recipe, tone_data, store, notes, tmp_path):
    folds = [tone_data.dataset.of_fold(fold) for fold in range(2)]
    replicates = tuple(Replicate.of_fold(fold, dataset.fingerprint) for fold, dataset in enumerate(folds))
    encoder = write_encoder(tmp_path / "tiny.onnx")
    chain = head_chain(tiny_recipe, tone_data, encoder, replicates=replicates, epochs=1)
    got = updates(chain, tone_data, store, notes)
    assert [(update.stage, update.kind) for update in got] == [
        ("embed", "epoch"),
        ("head@fold0", "epoch"),
        ("head@fold1", "epoch"),
    ]
    for task, dataset in zip(chain[1:], folds, strict=True):
        predicted = pd.read_parquet(store.open(task.stage_id).folder / PREDICTIONS)
        is_scored = dataset.recordings["is_validation"] & dataset.recordings["primary_label"].isin(("low", "top"))
        assert sorted(predicted.index) == sorted(dataset.recordings["recording_id"][is_scored])


def test_a_replicate_that_lost_its_last_stage_is_trained_again_and_the_others_are_reused(tiny_recipe, tone_data, store, notes):
    stages = tuple(replace(stage, epochs=1) for stage in tiny_recipe.stages[:2])
    replicates = tuple(Replicate.of_repeat(number, tone_data.dataset.fingerprint) for number in range(2))
    chain = chains_on(replace(tiny_recipe, stages=stages), tone_data, replicates=replicates).chain("tiny", {})
    updates(chain, tone_data, store, notes)
    store.storage.delete(f"stages/{chain[2].stage_id}/published.json")
    again = updates(chain, tone_data, store, notes)
    assert [update.kind for update in again] == ["reused", "reused", "epoch", "reused"]
    assert [update.done for update in again] == [False, False, False, True]
