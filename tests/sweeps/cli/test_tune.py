"""The command line says what is wrong in one message, and reads settings as they are meant."""

import shlex
import subprocess
import sys
from dataclasses import fields

import pytest

from birdclef_core.data.splits import NUM_FOLDS
from birdclef_core.errors import InputError
from sweeps.cli.birdclef import birdclef
from sweeps.cli.common import parse_settings
from sweeps.cli.tune import _given, _parse, tune_main
from sweeps.options import MAX_FOLDS, PLACEMENT, SweepOptions


def test_settings_are_python_literals_or_text():
    pairs = [
        "epochs=2",
        "learning_rate=1e-3",
        "head_transfer=drop",
        "deltas=true",
        "encoder=resnet10t.c3_in1k",
        "micro_batch_size=none",
    ]
    assert parse_settings(pairs) == {
        "epochs": 2,
        "learning_rate": 1e-3,
        "head_transfer": "drop",
        "deltas": True,
        "encoder": "resnet10t.c3_in1k",
        "micro_batch_size": None,
    }
    with pytest.raises(InputError, match="KEY=VALUE"):
        parse_settings(["epochs"])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--search", "sed", "--resume", "x"],
        ["--resume", "x", "--extend", "x"],
        ["--search", "sed", "--budget", "huge"],
        ["--extend", "x", "--drop-extension"],
        ["--search", "sed", "--retry-failed"],
    ],
)
def test_contradictions_are_refused_by_the_parser(arguments, capsys):
    with pytest.raises(SystemExit) as exit_info:
        tune_main(arguments)
    assert exit_info.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--resume", "s", "--samples", "3", "--set", "epochs=1"],
            "but got --samples, --set. Change them with --extend once the sweep has ended",
        ),
        (["--resume", "s", "--seed", "0"], "but got --seed"),
        (["--search", "sed", "--max-cost", "5"], "--max-cost only with --price-per-hour must hold, but got 5.0"),
        (["--search", "sed", "--max-gpu-hours", "0"], "--max-gpu-hours > 0 must hold, but got 0.0"),
        (["--search", "sed", "--max-hours", "nan"], "--max-hours > 0 must hold, but got nan"),
        (["--resume", "s", "--plan"], "--plan is for a new sweep"),
        (["--extend", "s", "--name", "x"], "--extend s keeps that name, but got --name x"),
        (["--resume", "s", "--objective", "val/cmap"], "but got --objective"),
        (["--search", "sed", "--objective", "val/cmpa", "--plan"], "Perhaps 'val/cmap' is meant"),
        (["--search", "sed", "--objective", "val/cmap,cpu_seconds"], "Perhaps 'cost/cpu_seconds_10min' is meant"),
        (["--search", "sed", "--objective", "cost/device_hours"], "is a cost alone"),
    ],
)
def test_flags_that_would_be_passed_over_are_refused(arguments, message, capsys):
    assert tune_main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--search", "nowhere"], "no search 'nowhere'; those that exist: all, cnn, heads, noisy_student, sed"),
        (["--search", "sed", "--data", "nowhere"], "nowhere"),
        (["--search", "sed", "--set", "epoch=3"], "Perhaps 'every.epochs' is meant"),
        (["--search", "sed", "--set", "epochs"], "KEY=VALUE"),
        (["--search", "sed", "--samples", "0"], "--samples >= 1 must hold, but got 0"),
        (["--search", "sed", "--folds", "1"], "2 <= --folds <= 5 must hold, but got 1"),
        (["--search", "sed", "--folds", "6"], "2 <= --folds <= 5 must hold, but got 6"),
        (
            ["--search", "sed", "--folds", "3", "--fold", "1"],
            "--folds without --fold (the folds are 0 to N-1) must hold, but got '--fold 1'",
        ),
        (
            ["--search", "sed", "--folds", "3", "--repeats", "2"],
            "--folds without --repeats must hold, but got '--folds 3 and --repeats 2'",
        ),
        (["--search", "sed", "--repeats", "1"], "--repeats >= 2 must hold, but got 1"),
        (["--search", "sed", "--name", "a/b"], "--name made of letters"),
        (["--resume", "nowhere"], "no sweep 'nowhere'"),
        (["--search", "sed", "--storage", "ftp2://x"], "a folder or a URI"),
    ],
)
def test_wrong_input_is_one_message_and_leaves_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert tune_main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("Error: ") and message in said.err
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_given_is_not_taken_for_given():
    """A default in the parser would replace what an extended sweep was started with; defaults are those of SweepOptions."""
    assert _given(_parse(["--resume", "s"])) == {}
    assert _given(_parse(["--resume", "s", "--max-cost", "5", "--price-per-hour", "2"])) == {"max_cost": 5, "price_per_hour": 2}


def test_there_are_as_many_folds_as_recordings_are_divided_into():
    """The options do not import what divides them."""
    assert MAX_FOLDS == NUM_FOLDS


def test_where_a_sweep_goes_on_are_options_that_it_has():
    assert set(PLACEMENT) < {item.name for item in fields(SweepOptions)}


def test_help_shows_examples_and_every_flag(capsys):
    with pytest.raises(SystemExit):
        tune_main(["--help"])
    text = capsys.readouterr().out
    for flag in (
        "--search",
        "--samples",
        "--budget",
        "--seed",
        "--objective",
        "--name",
        "--storage",
        "--address",
        "--set",
        "--gpus-per-trial",
        "--extend",
        "--from-stage",
        "SCORE[,COST]",
        "cost/cpu_seconds_10min",
        "cost/device_hours",
    ):
        assert flag in text
    assert "python tune_main.py --search sed " in text


def test_syncing_a_folder_without_records_is_an_input_error(tmp_path, capsys):
    assert birdclef(["track", "sync", str(tmp_path)]) == 2
    assert "has no tracking events" in capsys.readouterr().err


def test_a_reader_that_has_read_enough_is_no_error(tmp_path):
    """`birdclef store ls | head -1` printed a traceback."""
    script = "import sys; from sweeps.cli.tune import guarded; sys.exit(guarded(lambda: print('x\\n' * 100_000) or 0))"
    run = subprocess.run(
        f"{sys.executable} -c {shlex.quote(script)} | head -1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.stdout == "x\n" and run.stderr == ""
