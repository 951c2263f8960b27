"""Keeps other people out of Ray, which runs any code that it is sent: a local Ray listens on this machine's loopback alone, and asks
for a token that only its own processes have; the token of a cluster is in a file that only its owner may read."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray._private.ray_constants as ray_constants
from ray.tune.execution import class_cache

TOKEN_FILE = "~/.ray/auth_token"
_TOKEN = secrets.token_hex(32)
"""Ray reads its token once in a process, so that every local Ray of this process has the same."""
_LOOPBACK = "127.0.0.1"


@contextmanager
def private_ray() -> Iterator[dict[str, Any]]:
    """Yield arguments for `ray.init` that start a local Ray which only this user's processes on this machine can reach."""
    before = {name: os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    # On macOS and Windows, Ray binds a local cluster to the loopback; on Linux it replaces that address by the machine's own, and has
    # no setting to leave it.
    clusters = ray_constants.ENABLE_RAY_CLUSTER
    os.environ.pop("RAY_AUTH_MODE", None)  # without it, Ray asks for a token wherever it starts a local cluster
    os.environ["RAY_AUTH_TOKEN"] = _TOKEN
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield {"_node_ip_address": _LOOPBACK}
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = clusters
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def keep_keys_off_runtime_environments() -> None:
    """Keep Tune from sending the driver's AWS keys to the workers: Ray writes what it sends into a log on every machine.

    Workers find keys where every process of their machine does; those of a local Ray have the driver's environment.
    """
    class_cache.ENV_VARS_TO_PROPAGATE -= {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}


def close_token_file() -> str:
    """Let nobody but its owner read the file with the cluster's token. Return what to tell the user if others could, else nothing.

    `ray get-auth-token --generate` makes the file so that every user of the machine may read it.
    """
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", TOKEN_FILE)).expanduser()
    if not path.is_file() or not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) or path.stat().st_uid != os.getuid():
        return ""
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    return (
        f"Other users of this machine could read the cluster's token in {path} until now. If there are any, stop the cluster, remove the "
        "file, and make another (sweeps/cluster/README.md)."
    )
