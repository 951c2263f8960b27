"""Events, where they go, and what is said when they cannot."""

import math
import sys
import types
from pathlib import Path

import pytest

import sweeps
from birdclef_core.errors import InputError
from sweeps.tracking import events as tracking
from sweeps.tracking.events import (
    CheckpointUsed,
    EpochFinished,
    NullTracker,
    StageFinished,
    StageStarted,
    SweepFinished,
    SweepStarted,
    TrialFinished,
    TrialStarted,
    from_json,
    make_tracker,
    open_ui,
    parse_destination,
    sync,
    to_json,
)

EVENTS = [
    SweepStarted(sweep="s", search="sed", tags={"a": "b"}, note="# ü"),
    TrialStarted(trial="t", params={"recipe": "sed_b3ns", "clip_s": 10, "lr": 3e-4}, tags={}),
    StageStarted(trial="t", execution="t/train_ce", stage="train_ce", params={}, tags={"x": "y"}, starts_from="abc"),
    EpochFinished(trial="t", execution="t/train_ce", epoch=3, trial_epoch=7, metrics={"val/cmap": 0.25}, time_s=1.5),
    StageFinished(
        trial="t", execution="t/train_ce", stage_id="def", status="finished", checkpoint_uri="s3://b/def", artifacts="r"
    ),
    CheckpointUsed(trial="t", stage_id="abc", stage="pretrain_ce"),
    TrialFinished(trial="t", status="pruned", metrics={"objective": 0.5}, reason='below "the" median\nof the rung'),
    SweepFinished(status="finished", table_markdown="| a |\n|---|"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_is_one_line_and_comes_back_the_same(event):
    line = to_json(event, 1234)
    assert "\n" not in line
    assert from_json(line) == (event, 1234)


def test_every_event_of_the_union_is_tested():
    assert {type(event) for event in EVENTS} == set(tracking.Event.__args__)


def test_numbers_that_are_not_finite_survive():
    event = EpochFinished(trial="t", execution="e", epoch=1, trial_epoch=1, metrics={"loss": math.nan, "top": math.inf}, time_s=0)
    metrics = from_json(to_json(event, 0))[0].metrics
    assert math.isnan(metrics["loss"])
    assert metrics["top"] == math.inf


@pytest.mark.parametrize("line", ["", "{", "[]", "{}", '{"event":"Other","time_ms":1}', '{"event":"TrialStarted","time_ms":1}'])
def test_any_other_line_is_a_value_error(line):
    with pytest.raises(ValueError):
        from_json(line)


def test_the_default_is_the_folder_of_the_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(tracking, "_REPOSITORY", tmp_path)
    (tmp_path / "tune_main.py").touch()
    assert parse_destination(None) == parse_destination("local") == tmp_path / "mlflow"


def test_without_a_checkout_it_is_the_current_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(tracking, "_REPOSITORY", tmp_path / "site-packages")
    monkeypatch.chdir(tmp_path)
    assert parse_destination(None) == tmp_path / "mlflow"


def test_folders_and_urls_are_told_apart(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert parse_destination("runs") == tmp_path / "runs"
    assert parse_destination("http://host:5000/") == "http://host:5000"
    assert parse_destination("off") is None


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "postgresql://host/db", "file:///runs"])
def test_a_database_is_refused_with_the_way_out(uri):
    with pytest.raises(InputError, match="name a folder"):
        parse_destination(uri)


def test_off_keeps_nothing(tmp_path):
    tracker = make_tracker("off", tmp_path)
    assert isinstance(tracker, NullTracker)
    tracker.record(EVENTS[0])
    assert tracker.close().delivered == 0
    assert list(tmp_path.iterdir()) == []


def test_a_missing_mlflow_is_said(monkeypatch, tmp_path):
    """The repository's own folder named mlflow passes for an empty package where the library is not installed."""
    monkeypatch.setitem(sys.modules, "mlflow", types.ModuleType("mlflow"))
    monkeypatch.delitem(sys.modules, "sweeps.tracking.mlflow_sink", raising=False)
    monkeypatch.delattr(sweeps, "tracking_mlflow", raising=False)
    with pytest.raises(InputError, match="MLflow is not installed"):
        make_tracker(str(tmp_path / "store"), tmp_path)


def test_sync_names_what_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"tracking\.jsonl is not there"):
        sync(tmp_path, "http://host:1")
    with pytest.raises(InputError, match="off"):
        sync(tmp_path, "off")


def test_there_is_no_page_without_a_server():
    with pytest.raises(InputError, match="off"), open_ui("off"):
        pass


def test_tracking_is_imported_without_mlflow():
    """`--tracking-uri off` works without it, and no worker pays for it."""
    code = "import sys; from sweeps.tracking.events import make_tracker; make_tracker('off', '.'); assert 'mlflow' not in sys.modules"
    import subprocess

    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(sweeps.__file__).parent.parent)
