"""Where events go, and what is said when they cannot get there."""

import json
import subprocess
import sys
import threading
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import sweeps
from birdclef_core.errors import InputError
from sweeps import tracking
from sweeps.tracking import connect
from sweeps.tracking.connect import check_access, make_tracker, open_ui, parse_destination, sync
from sweeps.tracking.events import NullTracker, SweepStarted


def test_the_default_is_the_folder_of_the_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(connect, "_REPOSITORY", tmp_path)
    (tmp_path / "tune_main.py").touch()
    assert parse_destination(None) == parse_destination("local") == tmp_path / "mlflow"


def test_without_a_checkout_it_is_the_current_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(connect, "_REPOSITORY", tmp_path / "site-packages")
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


@pytest.mark.parametrize("uri", ["http://ann:secret@host", "https://ann:sec/ret@host", "postgresql://ann:secret@host/db"])
def test_a_url_with_a_password_is_refused_without_showing_it(uri):
    with pytest.raises(InputError) as error:
        parse_destination(uri)
    assert "sec" not in str(error.value) and "ann" not in str(error.value) and "host" in str(error.value)


def test_off_keeps_nothing(tmp_path):
    tracker = make_tracker("off", tmp_path)
    assert isinstance(tracker, NullTracker)
    tracker.log(SweepStarted(sweep="s", search="sed"))
    assert tracker.close().delivered == 0
    assert list(tmp_path.iterdir()) == []


def test_a_missing_mlflow_is_said(monkeypatch, tmp_path):
    """The repository's own folder named mlflow passes for an empty package where the library is not installed."""
    monkeypatch.setitem(sys.modules, "mlflow", types.ModuleType("mlflow"))
    monkeypatch.delitem(sys.modules, "sweeps.tracking.mlflow_sink", raising=False)
    monkeypatch.delattr(tracking, "mlflow_sink", raising=False)
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
    code = "import sys; from sweeps.tracking.connect import make_tracker; make_tracker('off', '.'); assert 'mlflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(sweeps.__file__).parent.parent)


class Refusing(BaseHTTPRequestHandler):
    """A server with users that answers as MLflow's does: in words, and not as JSON."""

    status, only_writes = 401, False

    def do_GET(self) -> None:
        allowed = self.only_writes and self.command == "GET"
        found = {"experiment": {"experiment_id": "7", "name": "birdclef/sed", "lifecycle_stage": "active"}}
        body = json.dumps(found).encode() if allowed else b"Permission denied"
        self.send_response(200 if allowed else self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_wrong_password_is_said_before_anything_runs(refusing):
    with pytest.raises(InputError, match=r"user 'ann' or the password is wrong \(401\)") as error:
        check_access(refusing, search="sed", sweep="s")
    assert "secret" not in str(error.value)
    with pytest.raises(InputError, match=r"does not show its sweeps: user 'ann' or the password is wrong"), open_ui(refusing):
        pass


def test_a_second_user_hears_which_right_is_missing(refusing, monkeypatch):
    """The first user's experiment can be read and not changed: every event would be refused."""
    monkeypatch.setattr(Refusing, "status", 403)
    monkeypatch.setattr(Refusing, "only_writes", True)
    with pytest.raises(InputError, match=r"'ann' needs the right EDIT on the experiment 'birdclef/sed' \(403\).*README"):
        check_access(refusing, search="sed", sweep="s")


def test_a_server_that_is_away_or_local_refuses_nobody(tmp_path):
    check_access("http://127.0.0.1:9", search="sed", sweep="s")
    check_access(str(tmp_path), search="sed", sweep="s")
    check_access("off", search="sed", sweep="s")
