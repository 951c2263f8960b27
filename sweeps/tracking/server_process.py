"""The local MLflow server as a process of its own: `python -P tracking_server_process.py FOLDER PORT`.

It serves for as long as somebody holds the lock on `server.users`, so it outlives a sweep that is killed by seconds only.
Run by path, with nothing of this project imported: it must start from any folder and weigh nothing but MLflow.
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
    """Serves `folder` on 127.0.0.1 until nobody uses it."""
    # What `mlflow server` sets for its worker process (mlflow/server/constants.py). Started by that command there would be
    # a second process that only waits, of the same size, and eight for jobs of generative AI.
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
    """Users share the lock. Once it is ours alone nobody is left, and whoever comes waits until this process has ended."""
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
