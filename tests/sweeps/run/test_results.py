"""What a sweep leaves when it ends."""

from made_up_records import sweep_record

from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from sweeps.run.results import sweep_result
from sweeps.schedule.records import TrialRecord


def record(trial: str, score: float | None, *stage_ids: str) -> TrialRecord:
    status = "pruned" if score is None else "finished"
    return TrialRecord(trial=trial, recipe="tiny", params={}, stage_ids=list(stage_ids), status=status, score=score)


def test_the_best_checkpoint_is_the_last_stage_of_the_trial_with_the_best_score(tmp_path):
    store = StageStore(Storage.parse(str(tmp_path)))
    trials = [record("t0000", None, "p", "a"), record("t0001", 0.5, "p", "b"), record("t0002", 0.9, "p", "c")]
    result = sweep_result(sweep_record(), trials, store, interrupted=False)
    assert result.best is trials[2]
    assert result.best_checkpoint == store.location("c")
    assert result.trials == trials and not result.leaks


def test_a_sweep_in_which_no_trial_finished_has_no_best(tmp_path):
    store = StageStore(Storage.parse(str(tmp_path)))
    result = sweep_result(sweep_record(), [record("t0000", None, "p")], store, interrupted=True)
    assert result.best is None and result.best_checkpoint is None and result.interrupted
