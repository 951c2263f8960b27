"""The stack of `mlflow/compose.yaml` without containers: PostgreSQL of the system, MLflow's server with the settings of the file, and
moto in place of its object store. What the file says is taken from the file: commands, environment, users, names and configuration.
"""

import os
import pwd
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "mlflow"
SERVER_START_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def why_not() -> str:
    """Why the stack cannot run here; empty when it can."""
    if _postgres_folder() is None:
        return "PostgreSQL is not installed: apt install postgresql"
    if os.geteuid() == 0 and not _has_user("postgres"):
        return "PostgreSQL does not run as root, and there is no user postgres"
    return ""


class Compose:
    """The settings of the compose file and of .env, with what differs here in their place."""

    def __init__(self, port: int, **settings: str) -> None:
        text = (FOLDER / ".env.example").read_text()
        defaults = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
        generated = {name: secrets.token_hex(32) for name, value in defaults.items() if not value}
        here = {
            "MLFLOW_ALLOWED_HOSTS": f"127.0.0.1:{port}",
            "MLFLOW_ALLOWED_ORIGINS": f"http://127.0.0.1:{port}",
        }
        self.settings = defaults | generated | here | settings
        filled = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: self.settings[found[1]], (FOLDER / "compose.yaml").read_text())
        self._content: dict[str, Any] = yaml.safe_load(filled)

    def command(self, service: str) -> list[str]:
        return [str(part) for part in self._content["services"][service]["command"]]

    def environment(self, service: str) -> dict[str, str]:
        return {name: str(value) for name, value in self._content["services"][service].get("environment", {}).items()}

    def config(self, name: str) -> str:
        return str(self._content["configs"][name]["content"])


class Postgres:
    """A database server with the user and the database that the compose file gives to its image."""

    def __init__(self, compose: Compose) -> None:
        own = compose.environment("postgres")
        self.user, self.database, self._password = own["POSTGRES_USER"], own["POSTGRES_DB"], own["POSTGRES_PASSWORD"]
        self.port = free_port()
        self._account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="team-pg-"))
        password = self.folder / "password"
        password.write_text(self._password)
        if self._account:
            for path in (self.folder, password):
                os.chown(path, self._account.pw_uid, self._account.pw_gid)
        self.run(
            *("initdb", "--pgdata", self._data, "--username", self.user, f"--pwfile={password}", "--auth=scram-sha-256"),
            *("--encoding=UTF8", "--no-sync"),
        )
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self.run("pg_ctl", "--pgdata", self._data, "--log", str(self.folder / "log"), "--options", options, "--wait", "start")
        self.create_database(self.database)

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def create_database(self, name: str) -> None:
        self.run("createdb", *self.at, name)

    def query(self, sql: str) -> list[str]:
        """Return the lines that a query gives."""
        flags = (f"--dbname={self.database}", "--tuples-only", "--no-align", f"--command={sql}")
        return self.run("psql", *self.at, *flags).decode().split()

    @property
    def at(self) -> tuple[str, ...]:
        """The flags by which a client reaches the server."""
        return ("--host=127.0.0.1", f"--port={self.port}", f"--username={self.user}")

    @property
    def environment(self) -> dict[str, str]:
        return {"PGPASSWORD": self._password}

    def run(self, program: str, *arguments: str, content: bytes | None = None) -> bytes:
        """Run a program of PostgreSQL as its own Unix user; return what it prints."""
        folder = _postgres_folder()
        assert folder is not None
        identity: dict[str, Any] = {}
        if self._account:
            identity = {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}
        with tempfile.TemporaryFile() as printed:  # a pipe would be kept open by the server that pg_ctl starts
            done = subprocess.run(
                [str(folder / program), *arguments],
                input=content,
                stdout=printed,
                stderr=subprocess.STDOUT if program != "pg_dump" else subprocess.PIPE,
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **self.environment},
                timeout=60,
                **identity,
            )
            printed.seek(0)
            output = printed.read()
        assert done.returncode == 0, (program, arguments, output.decode(errors="replace"), done.stderr)
        return output

    def stop(self) -> None:
        try:
            self.run("pg_ctl", "--pgdata", self._data, "--mode=immediate", "stop")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


class Server:
    """MLflow's server as the compose file starts it, on a database and a bucket. A context manager."""

    def __init__(
        self, compose: Compose, postgres: Postgres, port: int, s3: str, folder: Path, *, database: str, bucket: str
    ) -> None:
        """`s3`: HOST:PORT of the object store."""
        self.url = f"http://127.0.0.1:{port}"
        self._here = {
            f"{postgres.user}@postgres:5432/{postgres.database}": f"{postgres.user}@127.0.0.1:{postgres.port}/{database}",
            "http://object-store:8333": f"http://{s3}",
            "s3://mlflow/": f"s3://{bucket}/",
            "--host=0.0.0.0": "--host=127.0.0.1",
            "--port=5000": f"--port={port}",
        }
        config = folder / f"basic_auth-{database}.ini"
        config.write_text(self.put_here(compose.config("basic_auth")))
        own = compose.environment("mlflow") | {"MLFLOW_AUTH_CONFIG_PATH": str(config), "PYTHONWARNINGS": "ignore"}
        self.environment = {**os.environ, **{name: self.put_here(value) for name, value in own.items()}}
        self._command = [self.put_here(part) for part in compose.command("mlflow")]
        self._log, self._folder = folder / f"server-{database}.log", folder
        self._process: subprocess.Popen[bytes] | None = None

    def put_here(self, text: str) -> str:
        """Return a text of the compose file or the README with the places of this test."""
        for there, here in self._here.items():
            text = text.replace(there, here)
        return text

    def __enter__(self) -> "Server":
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self._command],
                env=self.environment,
                cwd=self._folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + SERVER_START_S
        while not self._is_healthy():
            assert self._process.poll() is None and time.monotonic() < deadline, self._log.read_text()[-2000:]
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        import signal

        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                return True
        except OSError:
            return False


def start_as(user: str, password: str, script: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start a Python script as a process of a user of the server."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def results(processes: Sequence["subprocess.Popen[str]"]) -> list[str]:
    """Wait for processes to end well, and return what each printed."""
    printed = [process.communicate(timeout=120) for process in processes]
    for process, (out, err) in zip(processes, printed, strict=True):
        assert process.returncode == 0, (out, err)
    return [out for out, _ in printed]


def copy_bucket(client: Any, source: str, target: str) -> Mapping[str, int]:
    """Copy all objects of a bucket into a new one through files' bytes, as a backup does; return their sizes."""
    client.create_bucket(Bucket=target)
    copied = {}
    for item in client.list_objects_v2(Bucket=source).get("Contents", []):
        content = client.get_object(Bucket=source, Key=item["Key"])["Body"].read()
        client.put_object(Bucket=target, Key=item["Key"], Body=content)
        copied[item["Key"]] = len(content)
    return copied


def _postgres_folder() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    program = found[-1] if found else shutil.which("initdb")
    return Path(program).parent if program else None


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
