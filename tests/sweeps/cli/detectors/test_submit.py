"""`birdclef submit`: what is printed, what is written, exit codes, and a kill that loses nothing."""

import signal
from pathlib import Path

import pandas as pd
import pytest
from forked import dies_after_three_files, exit_code_of
from made_up_detector import publish_random, write_sound
from made_up_ensembles import STAGES, ensemble_record
from made_up_store import store

from birdclef_core.ensemble.record import write_record
from birdclef_core.store.storage import Storage
from sweeps.cli.birdclef import birdclef


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with soundscapes in `in/`, a storage with two stages, and an ensemble of them."""
    monkeypatch.chdir(tmp_path)
    for number, stage_id in enumerate(STAGES):
        publish_random(store(Storage.parse("sweeps-output")), stage_id, seed=number)
    write_record(ensemble_record(), Path("ensemble.json"))
    write_sound(tmp_path / "in" / "a.wav", 12.0)
    write_sound(tmp_path / "in" / "b.wav", 5.0)
    Path("sample.csv").write_text("row_id,gamma,zeta,alpha\nb_5,0,0,0\na_10,0,0,0\na_5,0,0,0\n")
    return tmp_path


def submit(*arguments: str) -> int:
    return birdclef(["submit", "--model", "ensemble.json", "--soundscapes", "in", *arguments])


def test_submit_writes_the_rows_of_the_sample_and_says_what_it_did(place, capsys):
    assert submit("--sample", "sample.csv", "--time-limit", "120m", "--threads", "1") == 0
    said = capsys.readouterr()
    assert ": 3 species, 2 networks." in said.out and "2 files heard: 17.0 s of audio in " in said.out
    assert "Submission: submission.csv, 3 rows." in said.out
    assert "the model does not know 1 of the species (zeta); their score is 0.333333 in every row" in said.err
    table = pd.read_csv("submission.csv")
    assert list(table) == ["row_id", "gamma", "zeta", "alpha"] and table["row_id"].tolist() == ["b_5", "a_10", "a_5"]
    assert submit() == 0
    assert "2 files heard (2 of them by an earlier run)" in capsys.readouterr().out
    assert pd.read_csv("submission.csv")["row_id"].tolist() == ["a_5", "a_10", "b_5"]


def test_a_file_that_cannot_be_read_exits_1_and_all_rows_are_there(place, capsys):
    (place / "in" / "b.wav").write_bytes(b"no audio")
    assert submit("--sample", "sample.csv", "-o", "new/s.csv") == 1
    said = capsys.readouterr().err
    assert "1 file could not be read:\n  in/b.wav: " in said
    assert "1 of 3 rows were not heard (b_5 to b_5); their score is the mean of a species' other rows" in said
    assert len(pd.read_csv("new/s.csv").dropna()) == 3


def test_an_empty_folder_exits_0(place, capsys):
    (place / "empty").mkdir()
    assert submit("--sample", "sample.csv", "--soundscapes", "empty") == 0
    assert "No audio was heard." in capsys.readouterr().out
    assert pd.read_csv("submission.csv").shape == (3, 4)


def test_too_little_time_exits_1(place, capsys):
    assert submit("--sample", "sample.csv", "--time-limit", "0.01s") == 1
    assert "The time was over before all was heard" in capsys.readouterr().err
    assert len(pd.read_csv("submission.csv").dropna()) == 3


def test_labels_score_the_submission(place, capsys):
    Path("labels.csv").write_text("row_id,labels\na_5,alpha\na_10,beta\nb_5,\n")
    assert submit("--labels", "labels.csv") == 0
    assert "Scored on 3 labelled windows of 2 files with 2 species: macro AUROC " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sample", "gone.csv"], "gone.csv must be a file"),
        (["--rows", "audio"], "--rows audio takes the columns from a sample"),
        (["--soundscapes", "gone"], "--soundscapes must be a folder"),
        (["--labels", "gone.csv"], "labels must exist"),
        (["--threads", "0"], "--threads >= 1"),
        (["--calibration", "gone.json"], "gone.json must be a calibration"),
    ],
)
def test_wrong_input_exits_2_before_anything_is_written(place, capsys, arguments, message):
    assert submit(*arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(place.glob("submission.csv*"))


@pytest.mark.parametrize("text", ["120", "0m", "-5m", "m", "1d", "nan", "1e3s", "infm"])
def test_a_time_limit_is_a_number_with_a_unit(place, capsys, text):
    with pytest.raises(SystemExit) as stopped:
        submit(f"--time-limit={text}")
    assert stopped.value.code == 2 and "is no time such as 120m, 2h or 90s" in capsys.readouterr().err


def test_a_kill_loses_nothing_but_seconds(place, monkeypatch):
    """A run is killed with signal 9 before its fourth file is kept; the same command goes on and ends with the same bytes."""
    for number in range(4):
        write_sound(place / "in" / f"more{number}.wav", 12.0, seed=number)
    # Each in a process of its own, with one thread: sums of several are added up in another order.
    assert exit_code_of(lambda: submit("--threads", "1", "-o", "whole.csv")) == 0
    with monkeypatch.context() as patch:
        dies_after_three_files(patch)
        assert exit_code_of(lambda: submit("--threads", "1", "-o", "cut.csv")) == -signal.SIGKILL
    assert not Path("cut.csv").exists()
    done = {path: path.stat().st_mtime_ns for path in place.glob("cut.csv.journal/*/*.safetensors")}
    assert len(done) == 3
    assert exit_code_of(lambda: submit("--threads", "1", "-o", "cut.csv")) == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done, "what was done is not done again"
    assert Path("cut.csv").read_bytes() == Path("whole.csv").read_bytes()
