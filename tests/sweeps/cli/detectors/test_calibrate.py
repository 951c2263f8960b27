"""`birdclef calibrate`: what is printed and written, and that predicting uses it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up_detector import publish_random, tiny_config
from made_up_labels import write_labelled
from made_up_store import store

from birdclef_core.errors import DataError
from birdclef_core.identity import canonical
from birdclef_core.inference.results.calibration import read_calibration
from birdclef_core.inference.run.labels import read_labels
from birdclef_core.inference.run.predictor import Predictor
from birdclef_core.store.recordings_table import write_recordings
from birdclef_core.store.storage import Storage
from sweeps.cli.birdclef import birdclef
from sweeps.deploy import load_detector
from sweeps.execution.recordings_list import RecordingsList, list_soundscapes

STAGE = "ab" * 32


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with labelled soundscapes in `data/` and a storage with a stage."""
    monkeypatch.chdir(tmp_path)
    publish_random(store(Storage.parse("sweeps-output")), STAGE)
    write_labelled(tmp_path / "data")
    return tmp_path


def calibrate(*arguments: str) -> int:
    return birdclef(["calibrate", STAGE[:8], "--labels", "data", "-o", "out", *arguments])


def test_calibrate_writes_what_predict_uses(place, capsys):
    assert calibrate("--choose-postprocessing") == 0
    said = capsys.readouterr()
    assert "3 species; 24 labelled rows of 3 files." in said.out and "Post-processing adds " in said.out
    assert "after (cross-fitted)" in said.out and "Thresholds for f1: 2 species have their own; the other 1" in said.out
    assert said.err == ""
    command = ["predict", "data/test_soundscapes", "--model", STAGE[:8], "-o", "found"]
    assert birdclef([*command, "--calibration", "out/calibration.json", "--thresholds", "out/thresholds.csv"]) == 0
    rows = pd.read_csv("found/detections.csv")
    assert len(rows) and rows["calibrated"].between(0, 1).all() and (rows["calibrated"] != rows["score"]).all()
    thresholds = pd.read_csv("out/thresholds.csv").set_index("species")["threshold"]
    np.testing.assert_allclose(rows["threshold"], rows["species"].map(thresholds))


def test_recordings_of_a_data_folder_warn(place, capsys, tone_data):
    publish_random(store(Storage.parse("sweeps-output")), "cd" * 32, species=("low", "mid"))
    assert birdclef(["calibrate", "cdcd", "--labels", str(tone_data.dataset.root), "-o", "out"]) == 0
    said = capsys.readouterr().err
    assert "Warning: Fitted on recordings that were each made of one species" in said
    assert "Warning: It is not known which recordings trained the model" in said


def test_recordings_that_trained_the_model_calibrate_nothing(place, capsys, tone_data):
    """With its own fold it is another matter."""
    stages, dataset = store(Storage.parse("sweeps-output")), tone_data.dataset
    RecordingsList(stages.storage, dataset, dataset.fingerprint).keep()
    identity = {"model": canonical(tiny_config("sed")), "stage": {"name": "train_bce"}, "data": dataset.fingerprint}
    publish_random(stages, "cd" * 32, species=("low", "mid"), identity=identity)
    command = ["calibrate", "cdcd", "--labels", str(dataset.root), "-o", "out"]
    assert birdclef([*command, "--fold", "1"]) == 2
    assert (
        "trained stage cdcdcdcdcdcd, so its scores of them are too good" in capsys.readouterr().err and not Path("out").exists()
    )
    assert birdclef([*command, "--fold", "0"]) == 0
    assert "not known" not in capsys.readouterr().err


def test_soundscapes_that_trained_the_model_calibrate_nothing(place, capsys):
    stages, soundscapes = store(Storage.parse("sweeps-output")), read_labels(Path("data"))
    config = {"name": "train_bce", "soundscape_share": 0.3}
    identity = {"model": canonical(tiny_config("sed")), "stage": config, "data": "e" * 64}
    publish_random(stages, "cd" * 32, identity=identity)
    command = ["calibrate", "cdcd", "--labels", "data", "-o", "out"]
    write_recordings(stages.storage, "e" * 64, list_soundscapes(soundscapes)[:1])
    assert birdclef(command) == 0
    said = capsys.readouterr().out
    assert "1 labelled soundscape left out, as the model learned from it." in said and "16 labelled rows of 2 files" in said
    write_recordings(stages.storage, "e" * 64, list_soundscapes(soundscapes))
    assert birdclef(command) == 2
    assert "must not have trained it, but all of these did" in capsys.readouterr().err


def test_labels_without_audio_are_said_and_one_file_is_apparent(place, capsys):
    write_labelled(place / "data", num_files=2)
    (place / "data" / "test_soundscapes" / "s1.wav").write_bytes(b"no audio")
    assert calibrate("--target", "precision=.9") == 0
    said = capsys.readouterr()
    assert "APPARENT, too good: all labels are of one file" in said.out and "8 labelled rows of 1 file." in said.out
    assert "8 labelled windows of soundscapes have no audio" in said.err


def test_a_file_that_cannot_be_decoded_exits_1(place, capsys, monkeypatch):
    original = Predictor.hear

    def hear(self, audio, **others):
        if audio.path.name == "s1.wav":
            raise DataError("s1.wav cannot be decoded.")
        return original(self, audio, **others)

    monkeypatch.setattr(Predictor, "hear", hear)
    assert calibrate() == 1
    said = capsys.readouterr()
    assert "8 labelled rows left out" in said.out and "1 file could not be read:\n  s1.wav: s1.wav cannot be decoded." in said.err
    assert Path("out/calibration.json").is_file()


def test_a_bundle_gets_its_calibration(place, capsys):
    assert birdclef(["export", STAGE[:8], "--to", "bundle", "--force"]) == 0
    assert birdclef(["calibrate", "bundle", "--labels", "data", "-o", "out"]) == 0
    assert "The bundle bundle has the calibration now" in capsys.readouterr().out
    rows = load_detector("bundle").predict("data/test_soundscapes", threshold=0.0)
    assert load_detector("bundle").detector.calibration == read_calibration(Path("out/calibration.json"))
    assert rows["calibrated"].notna().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "best"], "--target must be f1 or a precision"),
        (["--labels", "gone.csv"], "must be named: --soundscapes DIR"),
        (["--labels", "data/test_soundscapes"], "train.csv"),
        (
            ["--labels", "labels.csv", "--soundscapes", "data/test_soundscapes"],
            "At least one window of labels.csv must have audio",
        ),
        (["--labels", "labels.csv", "--on", "recordings"], "takes a data folder"),
    ],
)
def test_wrong_input_exits_2_before_anything_is_written(place, capsys, arguments, message):
    Path("labels.csv").write_text("row_id,labels\nzz_5,alpha\n")
    assert calibrate(*arguments) == 2
    assert message in capsys.readouterr().err
    assert not Path("out").exists()
