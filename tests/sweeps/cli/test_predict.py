"""`birdclef predict`: what is printed, what is written, exit codes, and a kill that loses nothing."""

import signal
from pathlib import Path

import pandas as pd
import pytest
from forked import dies_after_three_files, exit_code_of
from made_up_detector import publish_random, write_sound
from made_up_store import store

from birdclef_core.store.storage import Storage
from sweeps.cli.birdclef import birdclef

STAGE = "ab" * 32


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with recordings in `in/` and a storage with a stage."""
    monkeypatch.chdir(tmp_path)
    publish_random(store(Storage.parse("sweeps-output")), STAGE)
    write_sound(tmp_path / "in" / "a.wav", 12.0)
    write_sound(tmp_path / "in" / "b.wav", 5.0)
    return tmp_path


def predict(*arguments: str) -> int:
    return birdclef(["predict", "in", "--model", STAGE[:8], "-o", "out", *arguments])


def rows() -> pd.DataFrame:
    return pd.read_csv("out/detections.csv")


def test_predict_writes_a_table_and_says_what_it_did(place, capsys):
    assert predict("--threshold", "0") == 0
    said = capsys.readouterr().out
    assert "Model abababababababab: 3 species; 2 files of audio." in said
    assert "2 files predicted: 17.0 s of audio in " in said and "12 detections." in said and "Results: out" in said
    assert len(rows()) == 12
    assert predict("--top", "1", "--format", "raven,audacity,parquet,kaleidoscope") == 0
    assert "2 files predicted (2 of them by an earlier run)" in capsys.readouterr().out
    assert (place / "out" / "raven" / "a.selections.txt").is_file()


def test_an_unreadable_file_exits_1_and_the_others_are_predicted(place, capsys):
    (place / "in" / "c.wav").write_bytes(b"no audio")
    assert predict("--threshold", "0") == 1
    said = capsys.readouterr()
    assert "1 file could not be read:\n  in/c.wav: " in said.err
    assert set(rows()["file"]) == {"in/a.wav", "in/b.wav"}
    assert pd.read_csv("out/files.csv")["file"].tolist() == ["in/a.wav", "in/b.wav", "in/c.wav"]


def test_damage_is_said_but_no_failure(place, capsys):
    file = place / "in" / "a.wav"
    file.write_bytes(file.read_bytes()[:-64_000])
    assert predict("--threshold", "0") == 0
    assert "1 file predicted as far as possible, because of damage:\n  in/a.wav: " in capsys.readouterr().err


def test_nothing_found_is_a_header_and_the_highest_score(place, capsys):
    assert predict("--threshold", "1") == 0
    assert "Nothing reached its threshold; the highest score was 0." in capsys.readouterr().out
    assert len(rows()) == 0


def test_thresholds_species_step_and_merging(place, capsys):
    Path("thresholds.csv").write_text("species,threshold\nalpha,0\nbeta,1\n")
    Path("species.txt").write_text("alpha\nbeta\nunicorn\n")
    assert predict("--thresholds", "thresholds.csv", "--species", "species.txt", "--step", "2.5") == 0
    assert "1 of the species in species.txt are not the model's, such as unicorn" in capsys.readouterr().out
    of_a = rows()[rows()["file"] == "in/a.wav"]
    assert set(of_a["species"]) == {"alpha"} and of_a["start_s"].tolist() == [0.0, 2.5, 5.0, 7.5]
    assert of_a["end_s"].tolist() == [5.0, 7.5, 10.0, 12.0]
    assert predict("--thresholds", "thresholds.csv", "--species", "species.txt", "--step", "2.5", "--merge") == 0
    assert rows()[["start_s", "end_s"]].to_numpy().tolist() == [[0, 12], [0, 5]]


def test_segments_and_embeddings(place, capsys):
    assert predict("--threshold", "0", "--segments", "1", "--embeddings") == 0
    assert "3 windows cut out: out/segments" in capsys.readouterr().out
    assert len(pd.read_parquet("out/embeddings.parquet")) == 4
    assert len(list(Path("out/segments").rglob("*.wav"))) == 3


def test_procedures_and_post_processing_change_scores(place):
    found = {}
    for name, options in {
        "default": [],
        "2023": ["--procedure", "2023"],
        "smooth": ["--smooth", "0.2"],
        "peak": ["--peak", "0.5"],
    }.items():
        assert birdclef(["predict", "in", "--model", STAGE[:8], "-o", name, "--threshold", "0", *options]) == 0
        found[name] = tuple(pd.read_csv(f"{name}/detections.csv")["score"])
    assert len(set(found.values())) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "xls"], "--format takes"),
        (["--threshold", "2"], "threshold must be from 0 to 1"),
        (["--top", "0"], "--top >= 1"),
        (["--step", "0"], "step_s"),
        (["--smooth", "1"], "smooth"),
        (["--segments", "-1"], "--segments >= 0"),
        (["--procedure", "1999"], "no procedure"),
        (["--species", "gone.txt"], "cannot be read"),
        (["--thresholds", "gone.csv"], "gone.csv"),
    ],
)
def test_wrong_input_exits_2_before_anything_is_written(place, capsys, arguments, message):
    assert predict(*arguments) == 2
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


def test_folders_and_models_that_do_not_exist_exit_2(place, capsys):
    (place / "empty").mkdir()
    assert birdclef(["predict", "empty", "--model", STAGE[:8], "-o", "out"]) == 2
    assert birdclef(["predict", "in", "--model", "ffff", "-o", "out"]) == 2
    assert predict() == 0
    assert predict("--procedure", "2023") == 2
    assert "holds the predictions of another run" in capsys.readouterr().err


def test_a_kill_loses_nothing_but_seconds(place, monkeypatch):
    """A run is killed with signal 9 before its fourth file is kept; the same command goes on and ends with the same bytes."""
    for number in range(4):
        write_sound(place / "in" / f"more{number}.wav", 12.0, seed=number)

    def run(out: str) -> int:
        """In a process of its own, with one thread: sums of several are added up in another order."""
        return exit_code_of(lambda: predict("--threshold", "0", "--threads", "1", "-o", out))

    assert run("whole") == 0
    with monkeypatch.context() as patch:
        dies_after_three_files(patch)
        assert run("out") == -signal.SIGKILL
    assert not Path("out/detections.csv").exists()
    done = {path: path.stat().st_mtime_ns for path in place.glob("out/journal/*.safetensors")}
    assert len(done) == 3
    assert run("out") == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done, "what was done is not done again"
    assert Path("out/detections.csv").read_bytes() == Path("whole/detections.csv").read_bytes()
