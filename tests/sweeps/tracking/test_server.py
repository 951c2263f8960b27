"""The real local server: started, shared, killed, left behind, looked at in a browser."""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import sweeps
from sweeps.tracking.connect import _import_mlflow_sink, make_tracker, open_ui, sync
from sweeps.tracking.events import (
    CheckpointUsed,
    DeliveryStatus,
    EpochFinished,
    StageFinished,
    StageStarted,
    SweepFinished,
    SweepStarted,
    TrialFinished,
    TrialStarted,
)
from sweeps.tracking.server import run_local

pytestmark = pytest.mark.slow

ROOT = Path(sweeps.__file__).parent.parent
STAGES = ("pretrain_ce", "train_bce", "finetune")
EPOCHS = 3


def sweep_events(name, trials=4, search="sed", artifacts=None):
    """A plausible sweep: all trials share their first stage, which the first of them trains."""
    yield SweepStarted(sweep=name, search=search, note=f"{trials} trials")
    shared = hashlib.sha256(name.encode()).hexdigest()
    for number in range(trials):
        trial = f"{name}-{number}"
        yield TrialStarted(trial=trial, params={"recipe": "sed_b3ns", "lr": 10.0 ** -(number + 1), "clip_s": 5 + number})
        parent = None
        for index, stage in enumerate(STAGES):
            stage_id = shared if index == 0 else hashlib.sha256(f"{trial}/{stage}".encode()).hexdigest()
            if index == 0 and number > 0:
                yield CheckpointUsed(trial=trial, stage_id=stage_id, stage=stage)
            else:
                yield from _execution(trial, stage, index, stage_id, parent, score=0.1 * (number + 1))
            parent = stage_id
        yield TrialFinished(trial=trial, status="finished", metrics={"objective": 0.1 * (number + 1)})
    yield SweepFinished(status="finished", table_markdown="| rank | trial |\n|---|---|\n| 1 | best |", artifacts=artifacts)


def _execution(trial, stage, index, stage_id, parent, score):
    execution = f"{trial}/{stage}"
    yield StageStarted(trial=trial, execution=execution, stage=stage, params={"epochs": EPOCHS}, starts_from=parent)
    for epoch in range(1, EPOCHS + 1):
        metrics = {"val/cmap_pad5": 0.4 + score * epoch / EPOCHS, "val/cmap": score * epoch / EPOCHS, "train/loss": 1.0 / epoch}
        at = EPOCHS * index + epoch
        yield EpochFinished(
            trial=trial, execution=execution, epoch=epoch, trial_epoch=at, metrics=metrics, time_s=1_700_000_000.0 + at
        )
    yield StageFinished(
        trial=trial, execution=execution, stage_id=stage_id, status="finished", checkpoint_uri=f"s3://b/{stage_id}"
    )


def client(url):
    return _import_mlflow_sink().MlflowClient(url)


def runs_of(url, sweep):
    found = client(url).search_runs(
        [client(url).get_experiment_by_name("birdclef/sed").experiment_id], f"tags.`birdclef.sweep` = '{sweep}'", max_results=1000
    )
    return {run.data.tags.get("birdclef.execution", run.info.run_name): run for run in found}


def assert_whole(url, sweep, trials=4):
    """All of a sweep is there, once."""
    runs = runs_of(url, sweep)
    assert len(runs) == trials + trials * 2 + 1
    for number in range(trials):
        trial = runs[f"{sweep}-{number}"]
        assert trial.info.status == "FINISHED"
        assert trial.data.metrics["objective"] == pytest.approx(0.1 * (number + 1))
        history = client(url).get_metric_history(trial.info.run_id, "val/cmap")
        assert [point.step for point in history] == list(range(1 if number == 0 else EPOCHS + 1, 3 * EPOCHS + 1))
        for stage in STAGES[1:]:
            assert runs[f"{sweep}-{number}/{stage}"].data.tags["mlflow.parentRunId"] == trial.info.run_id
    (output,) = runs[f"{sweep}-0/pretrain_ce"].outputs.model_outputs
    for name in [f"{sweep}-{number}" for number in range(trials)] + [f"{sweep}-{number}/train_bce" for number in range(trials)]:
        inputs = client(url).get_run(runs[name].info.run_id).inputs.model_inputs
        assert output.model_id in {item.model_id for item in inputs}, name


def server_pid(store):
    """The server's process, told by the file that it holds open and locked."""
    inode = (store / "server.json").stat().st_ino
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.stat().st_ino == inode and "server_process.py" in (link.parent.parent / "cmdline").read_text():
                return int(link.parent.parent.name)
        except OSError:
            continue
    return None


def assert_ends(store, within_s=15):
    deadline = time.monotonic() + within_s
    with (store / "server.json").open() as state:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(state, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                time.sleep(0.1)
    raise AssertionError("the server outlived its last user")


def test_a_sweep_is_delivered_and_read_back(tmp_path, monkeypatch):
    """Also from a folder whose name has a space, and behind a proxy that knows nothing of this machine."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    store, report = tmp_path / "my store", tmp_path / "sweep" / "result"
    report.mkdir(parents=True)
    (report / "plan.json").write_text("{}")
    tracker = make_tracker(str(store), tmp_path / "sweep")
    for event in sweep_events("whole", artifacts="result"):
        tracker.log(event)
    assert tracker.close() == DeliveryStatus(delivered=len(list(sweep_events("whole"))), kept=0, rejected=0)
    with run_local(store) as url:
        assert_whole(url, "whole")
        experiment = client(url).get_experiment_by_name("birdclef/sweeps")
        (record,) = client(url).search_runs([experiment.experiment_id])
        assert [item.path for item in client(url).list_artifacts(record.info.run_id)] == ["plan.json"]
    assert list((store / "artifacts").rglob("plan.json"))
    assert_ends(store)


def test_a_server_by_its_address_that_comes_late(tmp_path):
    with run_local(tmp_path / "store") as url:
        pass
    assert_ends(tmp_path / "store")
    tracker = make_tracker(url, tmp_path / "sweep")
    for event in sweep_events("late"):
        tracker.log(event)
    report = tracker.close(timeout_s=1)
    assert report.kept == len(list(sweep_events("late")))
    assert "refused" in report.problem
    with run_local(tmp_path / "store") as url:
        assert sync(tmp_path / "sweep", url).kept == 0
        assert_whole(url, "late")


def test_two_sweeps_share_one_server_and_the_last_ends_it(tmp_path):
    store = tmp_path / "store"
    trackers = {name: make_tracker(str(store), tmp_path / name) for name in ("one", "two")}
    for name, tracker in trackers.items():
        for event in sweep_events(name):
            tracker.log(event)
    assert trackers["one"].close().kept == 0
    first = server_pid(store)
    time.sleep(2.5)
    assert server_pid(store) == first, "it serves as long as one of them is there"
    assert trackers["two"].close().kept == 0
    with run_local(store) as url:
        assert_whole(url, "one")
        assert_whole(url, "two")
    assert_ends(store)


def test_a_server_that_is_killed_is_started_again_and_nothing_is_lost_or_doubled(tmp_path):
    store = tmp_path / "store"
    tracker = make_tracker(str(store), tmp_path / "sweep")
    events = list(sweep_events("killed", trials=8))
    for event in events[:40]:
        tracker.log(event)
    while not (tmp_path / "sweep" / "tracking_state.json").exists():
        time.sleep(0.02)
    for event in events[40:]:
        tracker.log(event)
    time.sleep(0.7)
    os.kill(server_pid(store), signal.SIGKILL)
    report = tracker.close(timeout_s=90)
    assert (report.kept, report.rejected) == (0, 0)
    with run_local(store) as url:
        assert_whole(url, "killed", trials=8)


def test_a_killed_driver_leaves_its_records_and_no_server_for_long(tmp_path):
    code = f"""
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_server import sweep_events
from sweeps.tracking.connect import make_tracker
folder = Path({str(tmp_path)!r})
tracker = make_tracker(str(folder / "store"), folder / "sweep")
events = list(sweep_events("driver"))
for event in events[:30]:
    tracker.log(event)
while not (folder / "sweep" / "tracking_state.json").exists():
    time.sleep(0.05)
for event in events[30:]:
    tracker.log(event)
time.sleep(0.6)
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert process.returncode == -signal.SIGKILL
    store = tmp_path / "store"
    assert_ends(store)
    report = sync(tmp_path / "sweep")
    assert (report.kept, report.rejected) == (0, 0)
    with run_local(store) as url:
        assert_whole(url, "driver")


def test_ctrl_c_in_the_terminal_does_not_reach_the_server(tmp_path):
    with run_local(tmp_path / "store"):
        assert os.getsid(server_pid(tmp_path / "store")) != os.getsid(0)


def test_a_server_that_cannot_start_is_told_with_its_last_words(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "mlflow.db").write_bytes(b"no database" * 100)
    tracker = make_tracker(str(tmp_path / "store"), tmp_path / "sweep")
    tracker.log(SweepStarted(sweep="s", search="sed"))
    report = tracker.close(timeout_s=8)
    assert report.kept == 1
    assert "MLflow server" in report.problem


def test_the_port_stays_the_same(tmp_path):
    with run_local(tmp_path / "store") as first:
        pass
    assert_ends(tmp_path / "store")
    with run_local(tmp_path / "store") as second:
        assert second == first
        assert json.loads((tmp_path / "store" / "server.json").read_text())["port"] == int(first.rpartition(":")[2])
        assert urllib.request.urlopen(f"{second}/health", timeout=5).read() == b"OK"


def test_the_page_compares_trials_in_a_browser(tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no Chromium on this machine to look at the page with")
    store = tmp_path / "store"
    tracker = make_tracker(str(store), tmp_path / "sweep")
    for event in sweep_events("seen"):
        tracker.log(event)
    assert tracker.close().kept == 0
    with open_ui(str(store), sweep="seen") as address:
        page = rendered(chromium, address, "Parallel Coordinates", tmp_path)
    for number in range(4):
        assert f">seen-{number}<" in page
    assert "Parallel Coordinates" in page
    assert ">objective<" in page
    assert page.index(">seen-3<") < page.index(">seen-0<"), "the best trial is first"
    assert ">finetune<" not in page, "stages are not among the trials"


def rendered(chromium, address, awaited, folder):
    """The page's elements once its scripts have run. On a busy machine the browser's own clock can outrun the server."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update", "--window-size=1600,1400", "--dump-dom"]
    for attempt, budget_ms in enumerate((20_000, 60_000, 120_000)):
        patience = [f"--user-data-dir={folder / f'profile-{attempt}'}", f"--virtual-time-budget={budget_ms}"]
        command = [chromium, *flags, *patience, address]
        page = subprocess.run(command, check=True, capture_output=True, text=True, timeout=180).stdout
        if awaited in page:
            break
    return page
