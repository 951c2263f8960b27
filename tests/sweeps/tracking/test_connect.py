"""Where events go, and what is said when they cannot get there."""

import json
import sqlite3
import subprocess
import sys
import threading
import types
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import sweeps
from birdclef_core.errors import InputError
from sweeps import tracking
from sweeps.tracking import connect, server
from sweeps.tracking.connect import check_access, make_tracker, open_ui, parse_destination, sync
from sweeps.tracking.events import NullTracker, SweepStarted
from sweeps.tracking.server import run_local


def test_the_default_is_the_folder_of_the_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(connect, "_REPOSITORY", tmp_path)
    (tmp_path / "tune_main.py").touch()
    assert parse_destination(None) == parse_destination("local") == tmp_path / "mlflow"


def database_of(folder: Path, revision: str) -> Path:
    """A folder with a database that has a schema."""
    folder.mkdir()
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
        database.commit()
    return folder


def test_a_database_of_another_mlflow_is_refused_before_anything_changes_it(tmp_path):
    """The installed MLflow would upgrade an older one at once, without a copy, and then no older MLflow could read it any more."""
    *known, newest = server._known_revisions()
    assert len(known) > 50 and "0584bdc529eb" in known, "that of MLflow 2.22"
    older, newer = database_of(tmp_path / "old er", "0584bdc529eb"), database_of(tmp_path / "newer", "ffffffffffff")
    before = (older / "mlflow.db").read_bytes()
    with pytest.raises(InputError) as error, run_local(older):
        pass
    path = older / "mlflow.db"
    assert f"cp '{path}' '{path}.0584bdc529eb' && mlflow db upgrade 'sqlite:///{path}'." in str(error.value)
    with pytest.raises(InputError, match="is of an older one"):
        check_access(str(older), search="sed", sweep="s")
    assert (older / "mlflow.db").read_bytes() == before and [file.name for file in older.iterdir()] == ["mlflow.db"]
    with pytest.raises(InputError, match="is of a newer one"):
        check_access(str(newer), search="sed", sweep="s")
    check_access(str(database_of(tmp_path / "same", newest)), search="sed", sweep="s")
    check_access(str(tmp_path / "none"), search="sed", sweep="s")


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
