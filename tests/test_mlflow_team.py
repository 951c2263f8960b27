"""The tracking server for a team, run: PostgreSQL, artifacts in an object store, users, two sweeps at once, a migration, a backup."""

import json
import re
import time
from typing import Any

import pytest
from mlflow_team import FOLDER, Compose, Postgres, Server, copy_bucket, free_port, results, start_as, why_not

from birdclef_core.errors import InputError
from sweeps.tracking.connect import check_access, open_ui

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")]

README = (FOLDER / "README.md").read_text()
PASSWORDS = {"ann": "password-of-ann", "bob": "password-of-bob"}

SWEEP = """
import sys, time
from pathlib import Path
from sweeps.tracking.connect import make_tracker
from sweeps.tracking.events import *

url, name, folder, start_at = sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4])
(folder / "figures").mkdir(parents=True)
(folder / "figures" / "page.html").write_text(f"<p>{name}")
tracker = make_tracker(url, folder)
time.sleep(max(0.0, start_at - time.time()))
tracker.log(SweepStarted(sweep=name, search="sed", note=f"The sweep {name}."))
tracker.log(TrialStarted(trial="t1", params={"clip_s": 5.0}))
tracker.log(StageStarted(trial="t1", execution="t1/train_ce", stage="train_ce"))
tracker.log(EpochFinished(trial="t1", execution="t1/train_ce", epoch=1, trial_epoch=1, metrics={"val/cmap": 1 / 7}, time_s=1.0))
stage_id = name.encode().hex().ljust(64, "0")
tracker.log(StageFinished(trial="t1", execution="t1/train_ce", stage_id=stage_id, status="finished", artifacts="figures"))
tracker.log(TrialFinished(trial="t1", status="finished", metrics={"objective": 1 / 7}))
tracker.log(SweepFinished(status="finished", table_markdown="| a |"))
status = tracker.close(90)
assert (status.kept, status.rejected) == (0, 0), status
print(status.delivered)
"""


def named_flags(pattern: str) -> list[str]:
    """The flags of a command of mlflow/README.md, without those that name a user or a database."""
    words = re.search(pattern, README)[0].split()
    return [word for word in words if word.startswith("--") and not word.startswith(("--username", "--dbname"))]


def make_older_schema(postgres: Postgres) -> str:
    """Make the tables of an older release, with an experiment in them. Returns the revision of their schema."""
    from alembic import command
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import URL, create_engine, text

    password = postgres.environment["PGPASSWORD"]
    url = URL.create("postgresql+psycopg2", postgres.user, password, "127.0.0.1", postgres.port, postgres.database)
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    config = _get_alembic_config(url.render_as_string(hide_password=False))
    older = list(ScriptDirectory.from_config(config).walk_revisions())[20].revision
    command.upgrade(config, older)
    columns, values = "name, artifact_location, lifecycle_stage", "'old', 's3://mlflow/artifacts/1', 'active'"
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO experiments ({columns}) VALUES ({values})"))
    engine.dispose()
    return older


def upgrade(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the README's line for a new version, with the server's environment."""
    from click.testing import CliRunner
    from mlflow.cli import cli

    command, uri = re.search(r"mlflow (db upgrade) (postgresql\S+)", README).groups()
    monkeypatch.setenv("PGPASSWORD", server.environment["PGPASSWORD"])
    done = CliRunner().invoke(cli, [*command.split(), server.put_here(uri)], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def pages(url: str) -> dict[str, Any]:
    """All that the server shows: experiments with their views, runs with their metrics and tags, the files of stages."""
    from mlflow import MlflowClient

    client = MlflowClient(url)
    shown: dict[str, Any] = {}
    for experiment in client.search_experiments():
        shown[experiment.name] = dict(experiment)
        for run in client.search_runs([experiment.experiment_id]):
            is_stage = "mlflow.parentRunId" in run.data.tags
            files = client.list_artifacts(run.info.run_id) if is_stage else []
            content = {"files": {item.path: item.file_size for item in files}, **run.to_dictionary()}
            shown[f"{experiment.name}/{run.info.run_id}"] = json.loads(json.dumps(content, default=str))
    return shown


def comparison(url: str) -> str:
    """The page that compares the trials of a sweep. Opening it keeps a view in the experiment."""
    with open_ui(url, sweep="of-ann") as page:
        return page.removeprefix(url)


def log_in(monkeypatch: pytest.MonkeyPatch, user: str, password: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)


def test_two_users_a_migration_and_a_backup(tmp_path, s3_endpoint, monkeypatch):
    """Everything at once, because starting a server takes seconds.

    The tables begin with an older schema, which the README's line migrates. Ann's sweep makes the experiments, and Bob is refused until
    the grant of the README; then both sweep at once. Restored elsewhere from a dump and a copy of the bucket, every page reads the same.
    """
    import boto3

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    s3 = boto3.client("s3", endpoint_url=f"http://{s3_endpoint}", region_name="us-east-1")
    bucket, copy = (f"{kind}-{time.time_ns()}" for kind in ("mlflow", "copy"))
    s3.create_bucket(Bucket=bucket)
    ports = free_port(), free_port()
    compose = Compose(ports[0], MLFLOW_WORKERS="1")
    restored = Compose(ports[1], **{name: value for name, value in compose.settings.items() if "ALLOWED" not in name})
    postgres = Postgres(compose)
    place = {"postgres": postgres, "s3": s3_endpoint, "folder": tmp_path}
    try:
        older = make_older_schema(postgres)
        server = Server(compose, port=ports[0], database=postgres.database, bucket=bucket, **place)
        upgrade(server, monkeypatch)
        assert postgres.query("SELECT version_num FROM alembic_version") not in ([], [older])
        with server:
            admit_both(compose, postgres, server.url, monkeypatch)
            arguments = {name: (f"of-{name}", str(tmp_path / name), str(time.time() + 4)) for name in PASSWORDS}
            both = [start_as(name, PASSWORDS[name], SWEEP, server.url, *given) for name, given in arguments.items()]
            assert results(both) == ["7\n", "7\n"]
            place_of_page = comparison(server.url)
            before = pages(server.url)
            dump = postgres.run("pg_dump", *postgres.at, *named_flags(r"pg_dump .* mlflow >"), postgres.database)
        copied = copy_bucket(s3, bucket, copy)
        postgres.create_database("restored")
        flags = [*postgres.at, *named_flags(r"pg_restore .* < mlflow"), "--dbname=restored"]
        postgres.run("pg_restore", *flags, content=dump)
        with Server(restored, port=ports[1], database="restored", bucket=copy, **place) as again:
            after = pages(again.url)
            assert comparison(again.url) == place_of_page
    finally:
        postgres.stop()
    assert after == before
    assert {"old", "birdclef/sed", "birdclef/sweeps"} <= set(before)
    runs = {name: run for name, run in before.items() if name.rpartition("/")[0] in ("birdclef/sed", "birdclef/sweeps")}
    assert len(runs) == 6
    assert all(run["info"]["status"] == "FINISHED" for run in runs.values())
    sizes = [run["files"]["page.html"] for run in runs.values() if "page.html" in run["files"]]
    assert sizes == [len("<p>of-ann")] * 2
    assert set(sizes) <= set(copied.values())


def admit_both(compose: Compose, postgres: Postgres, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add both users as the README says; Bob needs the grant of the README for the experiments that Ann's sweep has made."""
    import mlflow.server

    admin = compose.settings["MLFLOW_ADMIN_USERNAME"], compose.settings["MLFLOW_ADMIN_PASSWORD"]
    log_in(monkeypatch, *admin)
    client = mlflow.server.get_app_client("basic-auth", url)
    for user, password in PASSWORDS.items():
        client.create_user(user, password)
    log_in(monkeypatch, "ann", PASSWORDS["ann"])
    check_access(url, search="sed", sweep="of-ann")
    log_in(monkeypatch, "bob", PASSWORDS["bob"])
    with pytest.raises(InputError, match="'bob' needs the right EDIT on the experiment 'birdclef/sed'"):
        check_access(url, search="sed", sweep="of-bob")
    log_in(monkeypatch, *admin)
    given = re.search(r'client\.(\w+)\("(bob)", "(\w+)", "EXPERIMENT_ID", "(\w+)"\)', README)
    for number in postgres.query("SELECT experiment_id FROM experiments WHERE name LIKE 'birdclef/%'"):
        getattr(client, given[1])(given[2], given[3], number, given[4])
    log_in(monkeypatch, "bob", PASSWORDS["bob"])
    check_access(url, search="sed", sweep="of-bob")
