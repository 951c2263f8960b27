"""`birdclef`: its version, `birdclef tune`, and how long it takes to say what it can do."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from sweeps.cli.birdclef import birdclef


def test_it_says_its_version(capsys):
    with pytest.raises(SystemExit) as ended:
        birdclef(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"birdclef-sweeps {version('birdclef-sweeps')}\n"


def test_birdclef_tune_is_tune_main_under_its_own_name(capsys):
    with pytest.raises(SystemExit) as ended:
        birdclef(["tune", "--samples", "3"])
    assert ended.value.code == 2
    assert "birdclef tune: error: give --search for a new sweep" in capsys.readouterr().err
    assert birdclef(["tune", "--search", "sed", "--samples", "0"]) == 2
    assert "--samples >= 1 must hold" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        birdclef(["--help"])
    assert "plan and run sweeps: the same as tune_main.py" in capsys.readouterr().out


def test_help_imports_nothing_slow():
    code = (
        "import sys\nfrom sweeps.cli.birdclef import birdclef\nfor command in ([], ['tune']):\n"
        "    try: birdclef([*command, '--help'])\n    except SystemExit: pass\n"
        "print([name for name in ('torch', 'ray', 'optuna', 'pandas', 'mlflow', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
