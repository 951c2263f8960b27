"""The local MLflow server: one process owns the database of a folder, everybody else speaks HTTP to it.

Locks, which end with the process that holds them however it ends, say who is there: every user shares `server.users`, the
server holds `server.json` (its port), and whoever starts it holds `server.start` meanwhile.
"""

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from birdclef_core.errors import BirdclefError

_PROGRAM = Path(__file__).with_name("server_process.py")
_HOST = "127.0.0.1"
_START_TIMEOUT_S = 120.0
_ASK_TIMEOUT_S = 30.0


@contextmanager
def run_local(folder: Path) -> Iterator[str]:
    """The URL of the server on a folder, started unless it runs.

    It is shared by all who are inside this context, in any process, and ends soon after the last has left. Raises
    BirdclefError if it cannot be started.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _bypass_proxies()
    with (folder / "server.users").open("ab") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        yield _running_server(folder)


def _running_server(folder: Path) -> str:
    with (folder / "server.start").open("ab") as start:
        fcntl.flock(start, fcntl.LOCK_EX)
        state = os.open(folder / "server.json", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _try_lock(state):
                url = f"http://{_HOST}:{_last_port(state)}"
                _ask(url)
                return url
            return _start(folder, state)
        finally:
            os.close(state)


def _start(folder: Path, state: int) -> str:
    """Starts a server that inherits the lock on its state file. Its port is the last one if that is free: links stay good."""
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
            raise BirdclefError(f"The local MLflow server on {folder} did not start. {_last_words(folder)}")
        time.sleep(0.1)
    _ask(url)
    return url


def _environment() -> dict[str, str]:
    """Ours without what would configure another MLflow server."""
    kept = {name: value for name, value in os.environ.items() if not name.lstrip("_").startswith("MLFLOW_")}
    return {**kept, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}


def _bypass_proxies() -> None:
    """A proxy that the user has set for the world outside is not asked for this machine."""
    for name in ("no_proxy", "NO_PROXY"):
        hosts = os.environ.get(name, "")
        if _HOST not in hosts:
            os.environ[name] = f"{hosts},{_HOST}".lstrip(",")


def _ask(url: str) -> None:
    """A first question, at which the server opens its database, or creates it. Raises BirdclefError if it cannot."""
    question = f"{url}/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
    try:
        with urllib.request.urlopen(question, timeout=_ASK_TIMEOUT_S):
            pass
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise BirdclefError(
                f"The local MLflow server at {url} fails: {error.read().decode(errors='replace')[:500]}"
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
    """0 if there was none."""
    content = os.pread(state, 100, 0)
    return int(json.loads(content)["port"]) if content else 0


def _free_port(wanted: int) -> int:
    """`wanted` if it is free, any other that is otherwise."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise BirdclefError(f"No free port on {_HOST} for the local MLflow server.")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((_HOST, port)) == 0


def _last_words(folder: Path) -> str:
    lines = (folder / "server.log").read_text(errors="replace").strip().splitlines()
    return f"{lines[-1] if lines else 'It said nothing.'} (see {folder / 'server.log'})"
