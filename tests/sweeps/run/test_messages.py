"""What a driver says of the number of trials, of limits and of what was spent."""

import pytest
from made_up_sweep import made_up_sweep

from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from sweeps.budget import Budget, Limits
from sweeps.options import storage_flag
from sweeps.plan.simulate import SimulatedClock
from sweeps.report.results import sweep_result
from sweeps.run.messages import how_many, limit_lines, next_lines, shown_path


@pytest.mark.parametrize(
    ("samples", "limits", "known", "text"),
    [
        (6, Limits(), 0, "6 trials"),
        (6, Limits(), 4, "2 more trials after 4"),
        (6, Limits(gpu_hours=10), 0, "6 trials within --max-gpu-hours 10"),
        (None, Limits(hours=2, cost=3.5, price_per_hour=1), 0, "as many trials as possible within --max-hours 2 --max-cost 3.5"),
        (None, Limits(gpu_hours=10), 4, "as many more trials as possible after 4 within --max-gpu-hours 10"),
    ],
)
def test_how_many_trials_there_are_to_be(samples, limits, known, text):
    assert how_many(samples, limits, known=known) == text


def test_the_last_lines_say_what_was_spent_and_how_to_go_on_from_a_limit():
    budget = Budget(Limits(gpu_hours=10, price_per_hour=2.0), gpus_per_worker=1.0, clock=SimulatedClock())
    budget.spend(9.5 * 3600)
    assert limit_lines(budget, "--max-gpu-hours 10", "s", " --storage x") == [
        "Spent: 9.50 of 10 GPU hours, 19.0 in money, ran for 0.0 s.",
        "The sweep ended at --max-gpu-hours 10: nothing that is left could end within it. Go on with: "
        "python tune_main.py --resume s --storage x --max-gpu-hours MORE",
    ]
    assert len(limit_lines(budget, "", "s", "")) == 1
    assert limit_lines(Budget(), "", "s", "") == [], "no limit and no price: nothing to say"


def test_a_storage_is_quoted_as_a_shell_needs_it():
    uri = "s3://bucket/sweeps?endpoint_override=http://host:9000&region=us-east-1"
    assert storage_flag(uri) == f" --storage '{uri}'"
    assert storage_flag("/data/sweeps") == " --storage /data/sweeps"
    assert storage_flag("sweeps-output") == ""


def test_the_last_lines_name_the_pages_and_the_command_that_uses_the_best_trial(tmp_path):
    store = StageStore(Storage.parse(str(tmp_path)))
    result = sweep_result(*made_up_sweep(6), store, interrupted=False)
    assert next_lines(result, "s/result/report.html", "s/card.html", " --storage x") == [
        "Look at the sweep: s/result/report.html",
        "Look at the best model: s/card.html",
        "Find birds in a recording: birdclef predict my.wav --model s -o birds/ --storage x",
    ]
    result.best.stages[-1] += "@fold2"
    assert next_lines(result, "s/result/report.html", None, "")[-1] == (
        "This is its model of fold2 alone. One of all recordings, without a score of its own: birdclef refit s"
    )
    nothing = sweep_result(*made_up_sweep(0), store, interrupted=True)
    assert next_lines(nothing, "report.html", None, "") == ["Look at the sweep: report.html"]


def test_a_path_is_shown_from_the_working_directory_and_an_address_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path, shown in ((f"{tmp_path}/a/b.html", "a/b.html"), ("/etc/b.html", "/etc/b.html"), ("s3://x/b", "s3://x/b")):
        assert shown_path(path) == shown
