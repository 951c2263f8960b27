"""Turns the value of `--tracking-uri` into a tracker, a delivery or a page.

The only module that starts servers and imports the MLflow sink, both as late as possible.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from birdclef_core.errors import InputError
from birdclef_core.store.storage import Storage
from sweeps.tracking.events import DeliveryStatus, NullTracker, Tracker

if TYPE_CHECKING:
    from sweeps.tracking.delivery import Connect, Sink

# MLflow reads these when it is imported or called; settings of the user have priority.
_MLFLOW_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the delivery thread retries itself, and can be stopped while it waits
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
_REQUESTS_AT_ONCE = 8
"""How many requests a server of a team may have to answer at the same time. A local one has the CPUs of the trials, and one database file."""
_log = logging.getLogger(__name__)
_REPOSITORY = Path(__file__).resolve().parents[2]


def make_tracker(
    tracking: str | None, sweep_dir: Path, storage: Storage | None = None, say: Callable[[str], None] = _log.warning
) -> Tracker:
    """Return the tracker for a value of `--tracking-uri`; its journal is kept in `sweep_dir`, a folder on a local disk.

    `storage`: where a copy of the journal is kept for drivers on other machines; None where `sweep_dir` is in the storage itself.
    `say` is told once when the server is behind the sweep.

    The value is None or "local" for a local server on the repository's `mlflow/` folder, a folder for a local server there,
    http(s)://... for that server, or "off" for no tracking. The function returns before a server is started or contacted.
    Raises InputError for any other value or when MLflow is not installed, StoreError when another process is delivering this journal.
    """
    destination = parse_destination(tracking)
    if destination is None:
        return NullTracker()
    from sweeps.tracking.delivery import JournalTracker

    return JournalTracker(sweep_dir, str(destination), _connector(destination, sweep_dir), storage, say)


def check_state(tracking: str | None, sweep_dir: Path) -> None:
    """Raise InputError when `make_tracker` would, because it cannot read how much of the journal has been delivered."""
    from sweeps.tracking.journal import last_state

    if parse_destination(tracking) is not None:
        last_state(sweep_dir)


def check_access(tracking: str | None, *, search: str, sweep: str) -> None:
    """Raise InputError when a running server refuses the user, or lacks a right that the user needs for this sweep.

    A server that is away refuses nobody. A local one must have a database of the MLflow that is installed.
    """
    destination = parse_destination(tracking)
    if isinstance(destination, Path):
        from sweeps.tracking.server import check_database

        check_database(destination)
    if not isinstance(destination, str):
        return
    mlflow_sink = _import_mlflow_sink()
    from sweeps.tracking.delivery import Denied

    try:
        mlflow_sink.check_access(destination, search, sweep)
    except Denied as error:
        raise InputError(
            f"The tracking server {destination} refuses this sweep: {error}. Or run without it: --tracking-uri off."
        ) from None


def sync(sweep_dir: Path, tracking: str | None = None, *, patience_s: float = 60.0) -> DeliveryStatus:
    """Deliver the events of a sweep's journal that are still waiting; give up after `patience_s` seconds without progress.

    `tracking` is a value of `--tracking-uri`; None means the server of the last delivery. Another server gets the complete journal.
    Raises InputError when there is no journal, and the errors of `make_tracker`.
    """
    from sweeps.tracking.delivery import JournalTracker
    from sweeps.tracking.journal import JOURNAL_NAME, last_state

    last = last_state(sweep_dir)
    destination = parse_destination(tracking or (last.destination if last else None))
    if destination is None:
        raise InputError("There is no server to deliver to: --tracking-uri must name one, but is 'off'.")
    if not (sweep_dir / JOURNAL_NAME).exists():
        raise InputError(
            f"{sweep_dir} has no tracking events: {JOURNAL_NAME} is not there. Name the local folder of a tracked sweep."
        )
    tracker = JournalTracker(sweep_dir, str(destination), _connector(destination, sweep_dir))
    tracker.wait(patience_s)
    return tracker.close(timeout_s=0)


@contextmanager
def open_ui(tracking: str | None = None, *, sweep: str | None = None, search: str | None = None) -> Iterator[str]:
    """Yield the address of the page that compares a sweep's trials; a local server runs until the context ends.

    Without `sweep` it is the newest sweep (of `search`, if that is given), or MLflow's front page when there is none.
    Raises InputError for a sweep that the server does not know or a server that does not answer, and the errors of `make_tracker`.
    """
    destination = parse_destination(tracking)
    if destination is None:
        raise InputError("There is no server to open: --tracking-uri must name one, but is 'off'.")
    from sweeps.tracking.mlflow_views import find_page

    mlflow_sink = _import_mlflow_sink()
    from sweeps.tracking.to_mlflow.refusals import describe

    with _server(destination) as url:
        try:
            page = find_page(mlflow_sink.MlflowClient(url), sweep=sweep, search=search)
        except mlflow_sink.MlflowException as error:
            raise InputError(f"The tracking server {url} does not show its sweeps: {describe(error)}.") from None
        yield f"{url}/{page}"


def parse_destination(tracking: str | None) -> Path | str | None:
    """Return a folder for a local server, the URL of a running one, or None for "off".

    Raises InputError for anything else, also for a URL with a user or a password: what is returned is written into records.
    """
    if tracking is None or tracking == "local":
        home = _REPOSITORY if (_REPOSITORY / "tune_main.py").exists() else Path.cwd()
        return home / "mlflow"
    if tracking == "off":
        return None
    if tracking.startswith(("http://", "https://")):
        if "@" in tracking:
            raise InputError(
                "A tracking server's URL must have no user and password, because it is written into records, but that of "
                f"{_without_user_info(tracking)} has. Give --tracking-uri without them, and MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD in the environment."
            )
        return tracking.rstrip("/")
    if "://" in tracking:
        raise InputError(
            f"--tracking-uri must be local, off, a folder or http(s)://..., but is {_without_user_info(tracking)!r}. Only a server opens a database: "
            "name a folder, in which a local server keeps its own, or the URL of a server that uses that database."
        )
    return Path(tracking).expanduser().resolve()


def _without_user_info(uri: str) -> str:
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _connector(destination: Path | str, sweep_dir: Path) -> "Connect":
    """Return the function by which the delivery thread connects; MLflow is imported now, in the caller's thread."""
    mlflow_sink = _import_mlflow_sink()
    threads = 1 if isinstance(destination, Path) else _REQUESTS_AT_ONCE

    @contextmanager
    def connect(memory: dict[str, str]) -> "Iterator[Sink]":
        with _server(destination) as url:
            yield mlflow_sink.MlflowSink(url, memory, sweep_dir, threads)

    return connect


def _server(destination: Path | str) -> AbstractContextManager[str]:
    from sweeps.tracking.server import run_local

    return run_local(destination) if isinstance(destination, Path) else nullcontext(destination)


def _import_mlflow_sink() -> ModuleType:
    """Return the module with the sink. Raises InputError when MLflow is not installed.

    Where the library is missing, the repository's folder mlflow/ imports as an empty package; it has no MlflowClient.
    """
    for name, value in _MLFLOW_SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        from sweeps.tracking import mlflow_sink
    except ImportError as error:
        raise InputError(f"MLflow is not installed ({error}). Install the project again, or give --tracking-uri off.") from error
    return mlflow_sink
