"""The local MLflow server: one process owns the database of a folder, and every other process talks to it over HTTP.

File locks show who is there; the system releases them however a process ends. Every user shares the lock on `server.users`, the
server holds the one on `server.json` (which has its port), and a process that is starting it holds the one on `server.start`.
"""

import fcntl
import json
import os
import re
import shlex
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path

from birdclef_core.errors import BirdclefError, InputError

_PROGRAM = Path(__file__).with_name("server_process.py")
_HOST = "127.0.0.1"
_START_TIMEOUT_S = 120.0
_REQUEST_TIMEOUT_S = 30.0
_DATABASE = "mlflow.db"
_REVISION = re.compile(r"^(down_)?revision\b[^=]*= [\"'](\w+)[\"']", re.MULTILINE)
"""A line of a migration of MLflow's database: its own name, or that of the one before it."""


@contextmanager
def run_local(folder: Path) -> Iterator[str]:
    """Yield the URL of the server on `folder`, and start the server if it is not running.

    The server is shared by all processes that are inside this context and ends about a second after the last has left it.
    Raises BirdclefError when it cannot be started, InputError as `check_database` does.
    """
    check_database(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _bypass_proxies()
    with (folder / "server.users").open("ab") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        yield _running_server(folder)


def check_database(folder: Path) -> None:
    """Raise InputError where the database of a folder is not one of the MLflow that is installed.

    MLflow itself would change an older one at once, without a copy, so that the older MLflow could not read it any more.
    """
    found, known = _revision_of(folder / _DATABASE), _known_revisions()
    if not found or not known or found == (newest := known[-1]):
        return
    if found not in known:
        raise InputError(
            f"The database of a local MLflow server must be of the MLflow that is installed, but {folder / _DATABASE} is of a newer one (schema "
            f"{found}; this one's is {newest}). Install that MLflow, or give another folder: --tracking-uri FOLDER."
        )
    path = folder / _DATABASE
    raise InputError(
        f"The database of a local MLflow server must be of the MLflow that is installed, but {path} is of an older one (schema {found}; this one's is "
        f"{newest}). Nothing has been changed. Stop what uses it, keep a copy, and upgrade it once: cp {shlex.quote(str(path))} "
        f"{shlex.quote(f'{path}.{found}')} && mlflow db upgrade {shlex.quote(f'sqlite:///{path}')}. Or give another folder: --tracking-uri FOLDER."
    )


def _revision_of(path: Path) -> str:
    """The schema that a database has; empty where there is none, or it cannot be read."""
    if not path.is_file():
        return ""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            found = database.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error:
        return ""
    return str(found[0]) if found else ""


def _known_revisions() -> list[str]:
    """The schemas that the installed MLflow knows, its own at the end; empty where that cannot be told. MLflow is not imported: it takes seconds."""
    package = find_spec("mlflow")
    if package is None or package.origin is None:
        return []
    texts = [path.read_text() for path in (Path(package.origin).parent / "store" / "db_migrations" / "versions").glob("*.py")]
    named = [{is_before: name for is_before, name in _REVISION.findall(text)} for text in texts]
    own, before = ({names[key] for names in named if key in names} for key in ("", "down_"))
    return [*(own & before), *(own - before)] if len(own - before) == 1 else []


def _running_server(folder: Path) -> str:
    with (folder / "server.start").open("ab") as start:
        fcntl.flock(start, fcntl.LOCK_EX)
        state = os.open(folder / "server.json", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _try_lock(state):
                url = f"http://{_HOST}:{_last_port(state)}"
                _send_first_request(url)
                return url
            return _start(folder, state)
        finally:
            os.close(state)


def _start(folder: Path, state: int) -> str:
    """Start a server that inherits the lock on its state file. It gets its last port again if that is free, so that links stay valid."""
    port = _free_port(_last_port(state))
    os.ftruncate(state, 0)
    os.pwrite(state, json.dumps({"port": port}).encode(), 0)
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", str(_PROGRAM), str(folder), str(port)],
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[state],
            start_new_session=True,
        )
    url = f"http://{_HOST}:{port}"
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not _listens(port):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise BirdclefError(f"The local MLflow server on {folder} did not start. {_last_log_line(folder)}")
        time.sleep(0.1)
    _send_first_request(url)
    return url


def _environment() -> dict[str, str]:
    """Return this process's environment without the settings of another MLflow server."""
    kept = {name: value for name, value in os.environ.items() if not name.lstrip("_").startswith("MLFLOW_")}
    return {**kept, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}


def _bypass_proxies() -> None:
    """Exclude this machine from the proxies that the environment sets."""
    for name in ("no_proxy", "NO_PROXY"):
        hosts = os.environ.get(name, "")
        if _HOST not in hosts:
            os.environ[name] = f"{hosts},{_HOST}".lstrip(",")


def _send_first_request(url: str) -> None:
    """Send a first request, at which the server opens or creates its database. Raises BirdclefError when that fails."""
    request_url = f"{url}/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
    try:
        with urllib.request.urlopen(request_url, timeout=_REQUEST_TIMEOUT_S):
            pass
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise BirdclefError(
                f"The local MLflow server at {url} reports an error: {error.read().decode(errors='replace')[:500]}"
            ) from error
    except OSError as error:
        raise BirdclefError(f"The local MLflow server at {url} does not answer: {error}.") from error


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _last_port(state: int) -> int:
    """Return the port in the state file, or 0 if it has none."""
    content = os.pread(state, 100, 0)
    return int(json.loads(content)["port"]) if content else 0


def _free_port(wanted: int) -> int:
    """Return `wanted` if that port is free, otherwise any free port. Raises BirdclefError when there is none."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise BirdclefError(f"There is no free port on {_HOST} for the local MLflow server.")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((_HOST, port)) == 0


def _last_log_line(folder: Path) -> str:
    lines = (folder / "server.log").read_text(errors="replace").strip().splitlines()
    return f"{lines[-1] if lines else 'Its log is empty.'} (see {folder / 'server.log'})"
