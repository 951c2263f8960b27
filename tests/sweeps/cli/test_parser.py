"""What every command takes: options from a file, how much is said, and what a shell completes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.cli.birdclef import _parser as birdclef_parser
from sweeps.cli.birdclef import birdclef
from sweeps.cli.detectors.progress import shown_progress
from sweeps.cli.tune import _given, _parse, tune_main

ROOT = Path(__file__).parents[3]
TABLES = """
search = "sed"
samples = 64
gpus-per-trial = 0.5
max_hours = 2
retry-failed = false
allow-leaked-scores = true
note = "two ponds"
tag = ["site=pond"]
[set]
epochs = 2
train_ce.weight_decay = 0.0
head_transfer = "drop"
"""


@pytest.fixture
def options(tmp_path, monkeypatch):
    """Writes a file of options and returns its name in the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(text):
        Path("o.toml").write_text(text, encoding="utf-8")
        return "o.toml"

    return write


def test_options_of_a_file_are_those_of_the_command_line(options):
    same = ["--search", "sed", "--samples", "64", "--gpus-per-trial", "0.5", "--max-hours", "2", "--allow-leaked-scores"]
    same += ["--note", "two ponds", "--tag", "site=pond"]
    same += ["--set", "epochs=2", "--set", "train_ce.weight_decay=0.0", "--set", "head_transfer=drop"]
    assert _given(_parse(["--options", options(TABLES)])) == _given(_parse(same))


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("flag", ["--options=o.toml", "--opt=o.toml"])
def test_the_command_line_goes_before_a_file_wherever_it_names_it(options, place, flag):
    options(TABLES)
    words = [["--samples=3", "--set", "epochs=1", "--tag", "year=2026"], [flag]]
    given = _given(_parse([word for part in (words[place], words[1 - place]) for word in part]))
    assert (given["samples"], given["settings"]["epochs"], given["settings"]["head_transfer"]) == (3, 1, "drop")
    assert given["tags"] == {"site": "pond", "year": "2026"}


def test_a_command_of_birdclef_takes_its_options_from_a_file_too(options):
    file = options('model = "first"\nout = "found"\ntop = 3\nmerge = true')
    parsed = birdclef_parser().parse_args(["predict", "a.wav", "b.wav", "--options", file])
    assert (parsed.audio, parsed.model, parsed.top, parsed.merge) == ([Path("a.wav"), Path("b.wav")], "first", 3, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('samples = "many"', "o.toml: samples = 'many': invalid int value"),
        ("samples = [1]", "o.toml: samples must be one value, but got [1]."),
        ("sampels = 3", "o.toml: this command has no option 'sampels'. Perhaps 'samples' is meant."),
        ("plan = 3", "o.toml: plan must be true or false, but got 3."),
        ('budget = "huge"', "o.toml: budget = 'huge': invalid choice: 'huge'"),
        ("set = 3", "o.toml: set must be a list or a table, but got 3."),
        ("samples = ", "--options o.toml is not TOML: Invalid value"),
        ('options = "o.toml"', "o.toml: this command has no option 'options'."),
        ('search = "sed"\nresume = "s"', "--resume continues with the sweep's own search"),
    ],
)
def test_what_a_file_cannot_say_is_refused_by_its_name_and_key(options, text, message, capsys):
    with pytest.raises(SystemExit) as ended:
        tune_main(["--options", options(text)])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_file_that_is_not_there_or_not_named_is_refused(options, capsys):
    for words, message in ((["--options", "none.toml"], "none.toml cannot be read"), (["--options"], "expected one argument")):
        with pytest.raises(SystemExit):
            tune_main(words)
        assert message in capsys.readouterr().err


def test_a_password_in_a_file_goes_where_those_of_the_command_line_go(options, monkeypatch):
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")
    file = options('search = "sed"\ntracking-uri = "https://me:secret@host"')
    assert _given(_parse(["--options", file]))["tracking_uri"] == "https://host"
    assert (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]) == ("me", "secret")


def test_verbose_shows_where_an_error_happened(capsys):
    for run, words in ((birdclef, ["fields", "nowhere"]), (tune_main, ["--search", "sed", "--samples", "0"])):
        assert run(words) == 2
        short = capsys.readouterr().err
        assert run([*words, "-v"]) == 2
        long = capsys.readouterr().err
        assert "Traceback" not in short and long.startswith("Traceback") and long.endswith(short)


def test_quiet_shows_no_progress(capfd):
    shown = []
    for quiet in (True, False):
        with shown_progress(quiet=quiet) as progress:
            progress(0, 2, 0.0, 60.0)
            shown.append(type(progress).__name__)
    assert shown == ["function", "_Lines"] and capfd.readouterr().err == ""
    assert all(birdclef_parser().parse_args(words.split()).quiet for words in ("data pack a b -q", "predict a --model m -o o -q"))


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("birdclef pre", {"predict"}),
        ("birdclef tune --max-h", {"--max-hours"}),
        ("birdclef tune --options none.toml --resume ", {"s"}),
        ("birdclef report --storage store ", {"other"}),
        ("birdclef tune --search c", {"cnn"}),
        ("birdclef tune --pruning ", {"worth", "halving", "off"}),
    ],
)
def test_what_a_shell_completes(tmp_path, typed, expected):
    for place, name in (("sweeps-output", "s"), ("store", "other")):
        (tmp_path / place / name).mkdir(parents=True)
        (tmp_path / place / name / "sweep.json").touch()
    answer = tmp_path / "answer"
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "COMP_LINE": typed, "COMP_POINT": str(len(typed))}
    code = "import sys; from sweeps.cli.birdclef import birdclef; birdclef()"
    environment = {**os.environ, **asked, "COMP_TYPE": "9", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert expected <= set(answer.read_text().replace(" ", "").split("\013"))


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_code_for_a_shell_can_be_run(shell, capsys):
    assert birdclef(["completion", shell]) == 0
    code = capsys.readouterr().out
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    script = (
        f"{code}\ncomplete -p birdclef"
        if shell == "bash"
        else f"autoload -U compinit; compinit -D\n{code}\nprint ${{_comps[birdclef]}}"
    )
    done = subprocess.run([shell, "-c", script], capture_output=True, text=True, check=True)
    assert "argcomplete" in done.stdout


def test_tune_main_says_its_version(capsys):
    with pytest.raises(SystemExit) as ended:
        tune_main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out.startswith("birdclef-sweeps ")
