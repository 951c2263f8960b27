"""What a sweep leaves when it ends."""

import json
from dataclasses import replace

from made_up_records import sweep_record
from pages import Page

from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from sweeps.report.results import sweep_result, write_result
from sweeps.run.messages import outcome_lines
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
    assert str(result.objective) == "val/cmap"


def test_the_last_lines_name_the_objective_with_its_standard_error_and_both_kinds_of_cmap(tmp_path):
    part = sweep_record().parts[0]
    sweep = sweep_record(parts=(replace(part, search=replace(part.search, objective="val_soundscapes/auroc")),))
    best = replace(record("t0000", 0.75, "p"), stages=["train_ce"])
    best.metrics = {"val_soundscapes/auroc": 0.75, "val_soundscapes/auroc_se": 0.05}
    best.metrics |= {"val/cmap": 0.4, "val/cmap_chance": 0.1, "val/cmap_pad5": 0.9}
    result = sweep_result(sweep, [best], StageStore(Storage.parse(str(tmp_path))), interrupted=False)
    assert outcome_lines(result, 1)[:2] == [
        "Best: t0000 (tiny), val_soundscapes/auroc 0.750 ± 0.050.",
        "Its unpadded val/cmap is 0.400, 4.0 times chance (0.100); padded (cmap_pad5) it is 0.900.",
    ]


def test_a_sweep_in_which_no_trial_finished_has_no_best(tmp_path):
    store = StageStore(Storage.parse(str(tmp_path)))
    result = sweep_result(sweep_record(), [record("t0000", None, "p")], store, interrupted=True)
    assert result.best is None and result.best_checkpoint is None and result.interrupted


def test_a_pareto_front_is_said_and_kept_and_the_best_is_still_by_the_score(tmp_path):
    part = sweep_record().parts[0]
    search = replace(part.search, objective="val/cmap, cost/cpu_seconds_10min")
    trials = [record("t0000", 0.9, "p", "a"), record("t0001", 0.5, "p", "b"), record("t0002", 0.4, "p", "c")]
    for item, seconds in zip(trials, (16.0, 2.5, 2.5), strict=True):
        item.cpu_seconds, item.stages, item.metrics = (
            seconds,
            ["train_ce", "finetune"],
            {"val/cmap": item.score, "val/cmap_se": 0.01},
        )
    store = StageStore(Storage.parse(str(tmp_path / "store")))
    result = sweep_result(sweep_record(parts=(replace(part, search=search),)), trials, store, interrupted=False)
    assert result.best is trials[0] and result.front == trials[:2]
    lines = outcome_lines(result, 3)
    assert lines[0] == "Best: t0000 (tiny), val/cmap 0.900 ± 0.010."
    assert "2 trials, t0000 (0.900 ± 0.010, 16.0), t0001 (0.500 ± 0.010, 2.50)." in lines[-2]
    assert lines[-1] == "The best is still by the score alone, also where s stands for a checkpoint. Others: s/TRIAL."

    write_result(tmp_path / "result", result, store)
    kept = json.loads((tmp_path / "result/pareto_front.json").read_text())
    assert kept["objective"] == "val/cmap, cost/cpu_seconds_10min"
    assert [(item["trial"], item["score"], item["error"], item["cost"]) for item in kept["trials"]] == [
        ("t0000", 0.9, 0.01, 16.0),
        ("t0001", 0.5, 0.01, 2.5),
    ]
    page = Page((tmp_path / "result/tree.html").read_text()).check()
    assert "The Pareto front has the trials that no other beats" in page.text
    assert "3 marks, of which 2 are on the Pareto front; the table below has the front" in page.labels

    alone = sweep_result(sweep_record(), trials, store, interrupted=False)
    write_result(tmp_path / "alone", alone, store)
    assert not (tmp_path / "alone/pareto_front.json").exists() and alone.front == []
    assert "Pareto" not in (tmp_path / "alone/tree.html").read_text() + "".join(outcome_lines(alone, 3))
