"""A password in the URL of a tracking server goes to the environment and is nowhere else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.cli.credentials import PASSWORD, USER, without_credentials

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("given", "hidden", "credentials"),
    [
        (
            ["--tracking-uri", "http://ann:p%40ss@host:5000"],
            ["--tracking-uri", "http://host:5000"],
            {USER: "ann", PASSWORD: "p@ss"},
        ),
        (["--tracking-uri=https://ann:p/s@s@host/x"], ["--tracking-uri=https://host/x"], {USER: "ann", PASSWORD: "p/s@s"}),
        (["--track", "http://ann@host"], ["--track", "http://host"], {USER: "ann"}),
        (["--tracking-uri", "http://host", "--storage", "s3://b?x=1@2"], None, {}),
        (["--set", "name=a@b", "off"], None, {}),
    ],
)
def test_user_and_password_go_where_mlflow_looks(given, hidden, credentials):
    environment: dict[str, str] = {}
    assert without_credentials(given, environment) == (hidden or given)
    assert environment == credentials


def test_the_process_starts_again_without_them(tmp_path):
    """The list of processes shows the arguments of everybody, and Ray keeps those of a driver."""
    script = tmp_path / "script.py"
    script.write_text(
        "import json, os, sys\n"
        "from sweeps.cli.credentials import command_line\n"
        "arguments = command_line(None)\n"
        "seen = open('/proc/self/cmdline').read()\n"
        "print(json.dumps([arguments, 'secret' in seen, os.environ['MLFLOW_TRACKING_PASSWORD'], sys.flags.safe_path]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", script, "--resume", "s", "--tracking-uri", "http://ann:secret@host"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [["--resume", "s", "--tracking-uri", "http://host"], False, "secret", True]
