"""The list of sweeps."""

import subprocess
import sys
from dataclasses import replace

from made_up_sweep import made_up_sweep, write_sweep

from birdclef_core.store.storage import Storage
from sweeps.report.listing import list_sweeps


def test_sweeps_are_listed_from_the_newest_and_one_that_cannot_be_read_is_named(tmp_path):
    record, trials = made_up_sweep(8, name="old")
    options = replace(record.options, tags={"site": "pond"}, note="second try")
    write_sweep(tmp_path, record, trials)
    write_sweep(tmp_path, replace(record, name="new", state="running", options=options, started_at="2026-11-25T09:00:00"), ())
    write_sweep(tmp_path, replace(record, name="broken"), trials)
    for file in (tmp_path / "broken/trials").iterdir():
        file.write_text("{")
    head, first, second, last = list_sweeps(Storage.parse(str(tmp_path)))
    assert head.split() == [
        "sweep",
        "state",
        "trials",
        "best",
        "compared",
        "by",
        "device",
        "time",
        "started",
        "tags",
        "and",
        "note",
    ]
    assert first.split()[:2] == ["new", "running"] and first.endswith("2026-11-25 09:00   site=pond second try")
    best = max((trial for trial in trials if trial.score is not None), key=lambda trial: trial.score)
    finished = sum(trial.score is not None for trial in trials)
    assert second.startswith("old") and f"8 trials, {finished} finished" in second
    assert f"{best.score:.3f} ± 0.020 ({best.trial})" in second and "2026-11-22 12:00" in second
    assert last.startswith("broken: ") and "cannot be read" in last


def test_a_storage_without_sweeps_says_so(tmp_path):
    (tmp_path / "store").mkdir()
    assert list_sweeps(Storage.parse(str(tmp_path))) == [f"There is no sweep in {tmp_path} yet."]


def test_listing_imports_nothing_that_takes_seconds():
    code = "import sys, sweeps.checkpoints.references, sweeps.report.listing; print({'torch', 'timm', 'ray', 'mlflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
