"""`birdclef ensemble`: what is printed and written, exit codes, and the whole way to a prediction and to MLflow."""

import argparse
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from made_up_ensembles import make_place, save_folds
from pages import Page

from birdclef_core.ensemble.record import read_record
from sweeps.cli.birdclef import birdclef
from sweeps.cli.detectors.ensemble import _budget
from sweeps.tracking import connect


@pytest.fixture(scope="module")
def made(tone_data, tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("ensemble"), tone_data.dataset.root, trials=2)


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return made


def ensemble(place, *arguments: str) -> int:
    common = ["--storage", place.storage.root, "--cache-dir", str(place.cache), "--device", "cpu"]
    return birdclef(["ensemble", *common, *arguments])


def test_it_says_what_an_ensemble_is_worth(place, capsys):
    assert ensemble(place, "s", "-o", "out") == 0
    said = capsys.readouterr().out
    record = read_record(Path("out/ensemble.json"))
    assert f"{len(record.members)} member" in said and "of 2 candidates, selected by auroc on 12 rows of soundscapes" in said
    for name in ("ensemble", "best single", "equal weights, the best", "equal weights, all candidates", "weights of the recipes"):
        assert f"\n{name} " in said
    assert f"{record.scores.apparent.value:.4f} ±" in said
    assert "No untouched data: val/cmap is the objective of s. Labelled soundscapes that no sweep has seen can be" in said
    assert "Not tracked: --tracking-uri is off." in said
    page = Page(Path("out/ensemble.html").read_text()).check()
    assert "sed_v2s train_bce 111111111111" in page.text and "val/cmap is the objective of s" in page.text
    assert sorted(path.name for path in Path("out").iterdir()) == ["ensemble.html", "ensemble.json"]


def test_of_trials_with_folds_it_says_what_is_out_of_fold(tone_data, tmp_path, monkeypatch, capsys):
    """In the terminal, on the page and in MLflow; and such an ensemble cannot be calibrated on recordings, which trained it."""
    monkeypatch.chdir(tmp_path)
    place, events = make_place(tmp_path / "made", tone_data.dataset.root, trials=0), []
    save_folds(place)
    status = SimpleNamespace(kept=0, rejected=0)
    monkeypatch.setattr(connect, "make_tracker", lambda *_: SimpleNamespace(log=events.append, close=lambda _: status))
    assert ensemble(place, "s", "-o", "out", "--select-on", "recordings", "--tracking-uri", "server") == 0
    said, record = capsys.readouterr().out, read_record(Path("out/ensemble.json"))
    (event,), number = events, record.scores.apparent.num_rows
    assert record.folds == (0, 1) and len(record.members) in (2, 4)
    assert (
        f"({len(record.members)} models) of 2 candidates, selected by cmap out of fold on {number} recordings of 2 folds:" in said
    )
    assert "(mean of folds " in said and ", in training val/cmap 0.500" in said
    assert event.tags["birdclef.out_of_fold"] == f"{number} recordings of 2 folds"
    assert set(event.stages) == {member.stage_id for member in record.members}
    assert any(name.startswith("deployed/cmap/s/t000") for name in event.metrics)
    page = Page(Path("out/ensemble.html").read_text()).check()
    assert f"by cmap, out of fold, on {number} validation recordings of 2 folds" in page.text
    assert "deployed, mean of the folds" in page.text and "scores the one that did not learn from its fold" in " ".join(
        page.text.split()
    )
    for fold in "01":
        command = ["calibrate", "out/ensemble.json", "--labels", str(place.data), "--on", "recordings", "--fold", fold]
        assert birdclef([*command, "-o", "calibrated"]) == 2
        assert "Validation recordings that calibrate a model must not have trained it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--refit"], "--refit is for trials of sweeps with --folds"),
        (["gone"], "no such stage or sweep"),
        (["s/t0009"], "no trial"),
        (["--max-members", "0"], "--max-members >= 1 must hold"),
        (["--budget", "1ms/file"], "--budget must leave time for one candidate"),
        (["--procedure", "1999"], "no procedure"),
        (["--threads", "0"], "--threads >= 1"),
        (["--data", "gone"], "gone"),
        (["--untouched", "gone"], "gone"),
        (["--device", "tpu"], "auto, cpu or cuda"),
    ],
)
def test_wrong_input_exits_2_and_writes_no_ensemble(place, capsys, arguments, message):
    assert ensemble(place, *arguments) == 2
    assert message in capsys.readouterr().err
    assert not Path("ensemble/ensemble.json").exists()


@pytest.mark.parametrize(
    ("text", "budget"), [("36s/file", (36e3, "file")), ("2m/file", (12e4, "file")), ("1.5ms/window", (1.5, "window"))]
)
def test_a_budget_is_a_time_for_a_file_or_a_window(text, budget):
    assert _budget(text) == budget


@pytest.mark.parametrize("text", ["36", "36s", "s/file", "-3s/file", "0s/file", "36s/night", "nans/file", ""])
def test_another_budget_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="such as 36s/file"):
        _budget(text)


def test_a_command_with_a_wrong_budget_exits_2(place):
    with pytest.raises(SystemExit) as stopped:
        ensemble(place, "s", "--budget", "cheap")
    assert stopped.value.code == 2


def test_without_mlflow_it_says_so_and_goes_on(place, capsys, monkeypatch):
    def missing():
        raise connect.InputError("MLflow is not installed (x).")

    monkeypatch.setattr(connect, "_import_mlflow_sink", missing)
    assert ensemble(place, "s", "--tracking-uri", "mlruns") == 0
    assert "Not tracked: MLflow is not installed (x)." in capsys.readouterr().out
    assert Path("ensemble/ensemble.json").exists()


@pytest.mark.slow
def test_the_whole_way_to_a_prediction_and_to_mlflow(place, capsys):
    """An ensemble is chosen, tracked by a local server, and predicts what its members say together."""
    assert ensemble(place, "s", "-o", "out", "--select-on", "recordings", "--tracking-uri", "server") == 0
    said = capsys.readouterr().out
    assert "MLflow has it in the experiment birdclef/ensembles." in said
    assert "Untouched: auroc on 12 rows of soundscapes that nothing was chosen by." in said
    record = read_record(Path("out/ensemble.json"))
    audio = str(place.data / "test_soundscapes")
    assert birdclef(["predict", audio, "--model", "out/ensemble.json", "-o", "found", "--threshold", "0", "--device", "cpu"]) == 0
    found = pd.read_csv("found/detections.csv")
    assert len(found) == 4 * 3 * 2
    assert (
        birdclef(
            [
                "predict",
                audio,
                "--model",
                record.members[0].stage_id,
                "-o",
                "one",
                "--threshold",
                "0",
                "--storage",
                place.storage.root,
            ]
        )
        == 0
    )
    alone = pd.read_csv("one/detections.csv")
    assert (len(record.members) == 1) == bool((alone["score"] == found["score"]).all())
