"""Trials that are trained on several folds, or several times: one score, one verdict, every stage once."""

import statistics
from dataclasses import replace

import pytest
from made_up import MadeUpWorkers, make_chain_builder, make_coordinator, make_search, make_students, view_of

from sweeps.plan.simulate import SimulatedStore
from sweeps.replicates import Replicate, levels

FOLDS = tuple(Replicate.of_fold(fold, f"data of fold {fold}") for fold in range(3))


def chains_in_folds(search=None, **changes):
    return make_chain_builder(search, replicates=FOLDS, **changes)


def run(folder, chains, **options) -> MadeUpWorkers:
    workers = MadeUpWorkers(make_coordinator(folder, chains, **options))
    workers.run()
    return workers


def test_every_stage_of_every_fold_is_trained_once_and_the_score_is_the_mean(tmp_path):
    workers = run(tmp_path, chains_in_folds(), samples=12)
    assert len(workers.executed) == len(set(workers.executed))
    finished = [record for record in workers.coordinator.trials.values() if record.status == "finished"]
    assert finished
    for record in finished:
        ends = [record.stage_scores[f"{record.stage.partition('@')[0]}@fold{fold}"] for fold in range(3)]
        assert record.score == pytest.approx(statistics.fmean(ends))
        assert record.metrics["val/cmap"] == pytest.approx(record.score)
        assert record.metrics["val/cmap_se"] == pytest.approx(statistics.stdev(ends) / 3**0.5)


def test_stages_are_stopped_by_the_mean_of_their_folds(tmp_path):
    workers = run(tmp_path, chains_in_folds(), samples=30, max_running=1)
    stopped = [record for record in workers.coordinator.trials.values() if record.stopped and not record.stopped.rung.epoch]
    assert stopped
    for record in stopped:
        level = next(level for level in levels(record.stages) if record.stages[level[0]] == f"{record.stopped.rung.stage}@fold0")
        scores = [record.stage_scores[record.stages[index]] for index in level]
        assert record.stopped.score == pytest.approx(statistics.fmean(scores))
        assert record.stopped.stage_id == record.stage_ids[level[-1]]
        assert record.reached_ids() == record.stage_ids[: level[-1] + 1]


@pytest.mark.parametrize("sampler", ["tpe", "stage"])
@pytest.mark.parametrize("kill_after", [2, 9, 40, 90, 200])
def test_a_driver_killed_at_any_moment_is_taken_up_by_the_next(tmp_path, kill_after, sampler):
    chains = chains_in_folds(replace(make_search(), sampler=sampler))
    first = MadeUpWorkers(make_coordinator(tmp_path, chains, samples=8, stops_by_worth=sampler == "stage"))
    for _ in range(kill_after):
        first.step()
    store = view_of(first.coordinator).store
    second = MadeUpWorkers(
        make_coordinator(tmp_path, chains, samples=8, store=store, stops_by_worth=sampler == "stage"),
    )
    second.run()
    executed = first.executed + second.executed
    assert len(executed) == len(set(executed))
    assert len(second.coordinator.trials) == 8
    assert all(record.ended for record in second.coordinator.trials.values())


def test_the_stage_aware_sampler_knows_a_trial_by_its_means_and_departs_from_complete_levels(tmp_path):
    chains = chains_in_folds(replace(make_search(pools={}), sampler="stage"))
    workers = MadeUpWorkers(make_coordinator(tmp_path, chains, samples=10, max_running=1, stops_by_worth=True))
    workers.run()
    records = list(workers.coordinator.trials.values())
    facts = {trial.trial: trial for trial in workers.coordinator._source._facts().trials}
    for record in records:
        own = facts[record.trial]
        assert len(own.stage_ids) == len(own.spent_s) == len(record.stages) / 3
        for depth, score in enumerate(own.scores):
            ends = [record.stage_scores[record.stages[3 * depth + fold]] for fold in range(3)]
            assert score == pytest.approx(statistics.fmean(ends))
        assert sum(own.spent_s) == pytest.approx(record.cost_s)
    shared = [record for record in records if record.reused_s]
    assert shared, "trials depart from stages of others"
    assert all(len(record.reused_s) % 3 == 0 for record in shared), "of complete levels only"


def test_a_stage_that_failed_in_one_fold_closes_the_configuration(tmp_path):
    chains = chains_in_folds(make_students(), unlabelled_fingerprint="unlabelled")
    workers = MadeUpWorkers(make_coordinator(tmp_path, chains, samples=8, prunes=False))
    workers.fail_stage = "train@fold1"
    workers.run()
    records = list(workers.coordinator.trials.values())
    assert {record.status for record in records} == {"failed"}
    assert len(records) == 2, "one for each teacher: what needs the failed stage is not drawn"


def test_students_of_all_folds_have_the_teacher_of_their_own_fold(tmp_path):
    workers = run(tmp_path, chains_in_folds(make_students(), unlabelled_fingerprint="unlabelled"), samples=8, prunes=False)
    assert sum("labels" in stage for record in workers.coordinator.trials.values() for stage in record.spent_s) == 2 * 3
    for record in workers.coordinator.trials.values():
        by_name = dict(zip(record.stages, record.stage_ids, strict=True))
        assert len({by_name[f"labels@fold{fold}"] for fold in range(3)}) == 3


def test_a_sweep_with_folds_reuses_what_a_sweep_of_one_fold_has_trained(tmp_path):
    search, store = make_search(), SimulatedStore()
    alone = MadeUpWorkers(
        make_coordinator(
            tmp_path, make_chain_builder(search, data_fingerprint="data of fold 0"), store=store, samples=4, prunes=False
        )
    )
    alone.run()
    together = MadeUpWorkers(
        make_coordinator(tmp_path, chains_in_folds(search), store=store, sweep="folds", samples=4, prunes=False)
    )
    together.run()
    assert alone.executed and not set(alone.executed) & set(together.executed)
    assert len(together.executed) == 2 * len(alone.executed)
