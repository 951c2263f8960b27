"""The page of a sweep."""

from dataclasses import replace

import pytest
from made_up_sweep import made_up_sweep, write_sweep
from pages import HOSTILE, Page

from birdclef_core.store.storage import Storage
from birdclef_core.store.summary import Spread
from sweeps.cli.birdclef import birdclef
from sweeps.plan.plan import Amount
from sweeps.plan.planner import PlanFigures
from sweeps.report.page.page import report_page
from sweeps.report.page.shown import ShownSweep
from sweeps.report.page.writing import make_report
from sweeps.wording import format_duration


def page_of(tmp_path, *sweeps) -> Page:
    for record, trials in sweeps:
        write_sweep(tmp_path, record, trials)
    names = [record.name for record, _ in sweeps]
    source = report_page([ShownSweep.load(Storage.parse(str(tmp_path)), name) for name in names], tmp_path / "s/result")
    return Page(source).check()


def test_the_page_of_a_sweep_says_what_was_found_and_what_stopped(tmp_path):
    record, trials = made_up_sweep(30)
    page = page_of(tmp_path, (record, trials))
    finished = [trial for trial in trials if trial.score is not None]
    best = max(finished, key=lambda trial: trial.score)
    assert f"The best trial is {best.trial} ({best.recipe}) with val/cmap {best.score:.3f} ± 0.020" in page.text
    assert f"It was chosen among {len(finished)} finished trials by the same data that it is scored on." in page.text
    assert "birdclef predict my.wav --model s -o birds/" in page.text
    assert "among the lower half of 8 stages" in page.text and "failed: loss is nan in epoch 1" in page.text
    assert page.sections == [
        "found",
        "best",
        "matters",
        "parameters",
        "cost",
        "soundscapes",
        "stopped",
        "stages",
        "trials",
        "origin",
    ]
    values = page.values
    assert values["trials"]["score"] == [trial.score and pytest.approx(trial.score, rel=1e-5) for trial in trials]
    stopped = next(number for number, trial in enumerate(trials) if trial.status == "pruned")
    assert values["trials"]["last_score"][stopped] == pytest.approx(trials[stopped].stopped.score, rel=1e-5)
    assert values["trials"]["last_stage"][stopped] == trials[stopped].stopped.rung.stage
    assert values["trials"]["reason"][stopped] == trials[stopped].reason
    (sweep,) = values["sweeps"]
    assert sweep["ended"] == list(range(30)) and sweep["hours"][:2] == pytest.approx([5 / 60, 10 / 60], rel=1e-5)
    assert sweep["device_hours"][-1] == pytest.approx(sum(trial.cost_s for trial in trials) / 3600, rel=1e-5)
    assert sweep["importances"]["all recipes"]["parameters"][0][0] in ("train_ce.learning_rate", "recipe")


def test_parameters_that_a_trial_lacks_are_no_numbers_and_choices_are_counted(tmp_path):
    record, trials = made_up_sweep(30)
    params = {param["name"]: param for param in page_of(tmp_path, (record, trials)).values["params"]}
    lacking = params["train.mixing.wave_double_prob"]["column"]
    assert [value is None for value in lacking] == ["train.mixing.wave_double_prob" not in trial.params for trial in trials]
    clip = params["train.clip_s"]
    assert clip["values"] == ["5", "10", "15"]
    assert [float(clip["values"][number]) for number in clip["column"]] == [trial.params["train.clip_s"] for trial in trials]
    assert params["train_ce.learning_rate"]["log"] and not params["model.drop_rate"]["log"]


@pytest.mark.parametrize("number", [0, 1])
def test_a_sweep_of_no_or_one_trial_has_a_page(tmp_path, number):
    page = page_of(tmp_path, made_up_sweep(number))
    assert "No parameter differs between the trials." in page.text and "matters" not in page.sections
    assert ("No trial has finished." in page.text) == (number == 0)


def test_a_running_sweep_without_a_finished_trial_says_so(tmp_path):
    record, trials = made_up_sweep(12)
    unfinished = [trial for trial in trials if trial.score is None]
    for number, trial in enumerate(unfinished):
        trial.trial = f"t{number:04d}"
    page = page_of(tmp_path, (replace(record, state="running"), unfinished))
    assert "No trial has finished yet." in page.text and "s is running" in page.text


def test_a_sweep_with_a_cost_shows_it_and_says_what_is_compared(tmp_path):
    page = page_of(tmp_path, made_up_sweep(20, objective="val/cmap, cost/cpu_seconds_10min"))
    assert page.values["costs"] == ["cost/device_hours", "cost/cpu_seconds_10min"]
    assert page.values["objective"] == "val/cmap" and "Trials are compared by cost/cpu_seconds_10min too" in page.text


def test_the_plan_stands_beside_what_the_sweep_took(tmp_path):
    record, trials = made_up_sweep(8)
    amount = Amount(epochs=40.0, worker_hours=Spread(low=1.0, middle=2.0, high=3.0), wall_hours=None)
    planned = PlanFigures(trials=9, stages_asked=45, stages_new=30, alone=amount, shared=amount, pruned=amount)
    write_sweep(tmp_path, record, trials).storage.write_json("plan.json", planned)
    page = page_of(tmp_path, (record, []))
    spent = format_duration(sum(trial.cost_s for trial in trials))
    assert f"worker time 2 h 00 min (1 h 00 min to 3 h 00 min) 2 h 00 min (1 h 00 min to 3 h 00 min) {spent}" in page.text
    assert f"stages trained 30 {sum(len(trial.trained_ids) for trial in trials)}" in page.text and "trials 9 8" in page.text


def test_several_sweeps_are_compared(tmp_path):
    other = made_up_sweep(5, name="other", seed=3)
    page = page_of(tmp_path, made_up_sweep(12), (replace(other[0], data_fingerprint="e" * 64), other[1]))
    assert page.values["trials"]["sweep"] == [0] * 12 + [1] * 5
    assert "a higher score may come from easier data alone" in page.text and "different objectives" not in page.text
    assert "data: dddddddddddd against eeeeeeeeeeee" in page.text and "s: The best trial is" in page.text


def test_nothing_in_a_record_can_become_part_of_the_page(tmp_path):
    record, trials = made_up_sweep(6)
    for trial in trials:
        trial.reason = HOSTILE
    page = page_of(tmp_path, (replace(record, options=replace(record.options, note=HOSTILE, tags={"a": HOSTILE})), trials))
    assert HOSTILE in page.values["trials"]["reason"] and f"a={HOSTILE}" in page.text


def test_the_command_makes_the_page_of_the_newest_sweep_where_the_sweep_is(tmp_path, capsys, monkeypatch):
    record, trials = made_up_sweep(3, name="new")
    write_sweep(tmp_path, replace(record, started_at="2026-11-25T12:00:00+00:00"), trials)
    write_sweep(tmp_path, *made_up_sweep(3, name="old"))
    assert birdclef(["report", "--storage", str(tmp_path)]) == 0
    assert (tmp_path / "new/result/report.html").exists()
    assert f"Report: {tmp_path}/new/result/report.html" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    assert make_report(Storage.parse(str(tmp_path)), ["old", "new"], None) == tmp_path / "report.html"
    assert birdclef(["report", "none", "--storage", str(tmp_path)]) == 2
    assert "those that exist: new, old" in capsys.readouterr().err
