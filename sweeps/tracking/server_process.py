"""The local MLflow server as a process of its own: `python -P server_process.py FOLDER PORT`.

It runs for as long as a process holds the lock on `server.users`, so it ends within seconds of a sweep that is killed. It is
started by path and imports nothing of this project, so that it starts from any folder and needs no more memory than MLflow.
"""

import fcntl
import os
import signal
import sys
import threading
import time
from pathlib import Path

import uvicorn

_LOOK_FOR_USERS_EVERY_S = 1.0


def serve(folder: Path, port: int) -> None:
    """Serve `folder` on 127.0.0.1 until no process uses it."""
    # These are the settings that `mlflow server` makes for its worker process (mlflow/server/constants.py). That command would also
    # start a second process of the same size, which only waits, and eight processes for jobs of generative AI.
    os.environ["_MLFLOW_SERVER_FILE_STORE"] = f"sqlite:///{folder / 'mlflow.db'}"
    os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = "mlflow-artifacts:/"
    os.environ["_MLFLOW_SERVER_ARTIFACT_DESTINATION"] = (folder / "artifacts").as_uri()
    os.environ["_MLFLOW_SERVER_SERVE_ARTIFACTS"] = "true"
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    threading.Thread(target=_stop_without_users, args=(folder / "server.users",), daemon=True).start()
    uvicorn.run(
        "mlflow.server.fastapi_app:app",
        host="127.0.0.1",
        port=port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
    )


def _stop_without_users(path: Path) -> None:
    """End the process once it can lock `path` for itself: every user shares that lock, so nobody is left.

    A new user then waits for the lock until this process has ended.
    """
    with path.open("rb") as file:
        while True:
            time.sleep(_LOOK_FOR_USERS_EVERY_S)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            signal.raise_signal(signal.SIGTERM)
            threading.Event().wait()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
