"""From what `--tracking-uri` says to a tracker, a delivery or a page: the only place that starts servers and imports MLflow."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from birdclef_core.errors import InputError
from sweeps.tracking.events import DeliveryStatus, NullTracker, Tracker

if TYPE_CHECKING:
    from sweeps.tracking.delivery import Connect, Sink


_MLFLOW_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the delivery thread retries, and can be stopped meanwhile
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


_REPOSITORY = Path(__file__).resolve().parents[2]


def make_tracker(tracking: str | None, sweep_dir: Path) -> Tracker:
    """The tracker that `--tracking-uri` describes, with its journal in `sweep_dir`, a folder on a local disk.

    None or "local": a local server on the repository's `mlflow/` folder; a folder: the same there; http(s)://...: that
    server; "off": none. Returns before any server is started or asked. Raises InputError for another description or
    without MLflow, StoreError if another process is delivering this journal.
    """
    destination = parse_destination(tracking)
    if destination is None:
        return NullTracker()
    from sweeps.tracking.delivery import JournalTracker

    return JournalTracker(sweep_dir, str(destination), _connector(destination, sweep_dir))


def sync(sweep_dir: Path, tracking: str | None = None, *, patience_s: float = 60.0) -> DeliveryStatus:
    """Delivers what a sweep's journal still holds; gives up once nothing has been delivered for `patience_s`.

    None: to the server of its last delivery. A server other than that gets all of the journal. Raises InputError if there
    is no journal, and as make_tracker.
    """
    from sweeps.tracking.delivery import JournalTracker
    from sweeps.tracking.journal import JOURNAL_NAME, last_destination

    destination = parse_destination(tracking or last_destination(sweep_dir))
    if destination is None:
        raise InputError("There is no server to deliver to: --tracking-uri must name one here, but is 'off'.")
    if not (sweep_dir / JOURNAL_NAME).exists():
        raise InputError(f"{sweep_dir} holds no records: {JOURNAL_NAME} is not there. Name the folder of a tracked sweep.")
    tracker = JournalTracker(sweep_dir, str(destination), _connector(destination, sweep_dir))
    tracker.wait(patience_s)
    return tracker.close(timeout_s=0)


@contextmanager
def open_ui(tracking: str | None = None, *, sweep: str | None = None, search: str | None = None) -> Iterator[str]:
    """The address of the page that compares a sweep's trials; a local server is there as long as the context is.

    Without a name: the newest sweep, of `search` if that is given; MLflow's front page if there is none. Raises InputError
    for a sweep that the server does not know, and as make_tracker.
    """
    destination = parse_destination(tracking)
    if destination is None:
        raise InputError("There is no server to look at: --tracking-uri must name one here, but is 'off'.")
    from sweeps.tracking.mlflow_views import find_page

    mlflow = _import_mlflow()
    with _server(destination) as url:
        yield f"{url}/{find_page(mlflow.MlflowClient(url), sweep=sweep, search=search)}"


def parse_destination(tracking: str | None) -> Path | str | None:
    """A folder for a local server, the URL of a running one, or None for "off". Raises InputError for anything else."""
    if tracking is None or tracking == "local":
        home = _REPOSITORY if (_REPOSITORY / "tune_main.py").exists() else Path.cwd()
        return home / "mlflow"
    if tracking == "off":
        return None
    if tracking.startswith(("http://", "https://")):
        return tracking.rstrip("/")
    if "://" in tracking:
        raise InputError(
            f"--tracking-uri must be local, off, a folder or http(s)://..., but is {tracking!r}. Databases are never shared "
            "by file: name a folder, and one local server will own its database, or the URL of a server on that database."
        )
    return Path(tracking).expanduser().resolve()


def _connector(destination: Path | str, sweep_dir: Path) -> "Connect":
    """What the delivery thread calls to reach the server; MLflow itself is imported here, by the caller's thread."""
    mlflow = _import_mlflow()

    @contextmanager
    def connect(memory: dict[str, str]) -> "Iterator[Sink]":
        with _server(destination) as url:
            yield mlflow.MlflowSink(url, memory, sweep_dir)

    return connect


def _server(destination: Path | str) -> AbstractContextManager[str]:
    from sweeps.tracking.server import run_local

    return run_local(destination) if isinstance(destination, Path) else nullcontext(destination)


def _import_mlflow() -> ModuleType:
    """A folder named mlflow passes for an empty package where the library is missing, but has no MlflowClient to import."""
    for name, value in _MLFLOW_SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        from sweeps.tracking import mlflow_sink as tracking_mlflow
    except ImportError as error:
        raise InputError(f"MLflow is not installed ({error}). Install the project again, or use --tracking-uri off.") from error
    return tracking_mlflow
