"""After a sweep, an ensemble is chosen and a submission written, by commands that are said; what cannot work is refused before."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from made_up_labels import write_labelled
from made_up_records import sweep_record

from birdclef_core.store.storage import Storage
from sweeps.cli.detectors import ensemble, refit, submit
from sweeps.cli.tune import tune_main
from sweeps.objective import Objective
from sweeps.options import SweepOptions
from sweeps.report.results import SweepResult
from sweeps.run import runner
from sweeps.schedule.records import SweepRecords


def write_recordings(root: Path) -> None:
    """A second of noise by each of six authors, in a table."""
    (root / "train_audio").mkdir()
    rows = ["primary_label,filename,author"]
    for number in range(6):
        soundfile.write(root / "train_audio" / f"{number}.wav", np.random.default_rng(number).standard_normal(8000) / 9, 8000)
        rows.append(f"alpha,{number}.wav,author {number}")
    (root / "train.csv").write_text("\n".join(rows))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder in which a sweep has nothing to do, and what commands were run. A code can be given to end with."""
    monkeypatch.chdir(tmp_path)
    write_labelled(tmp_path / "data", num_files=1, duration_s=10.0)
    (tmp_path / "in").mkdir()
    (tmp_path / "sample.csv").write_text("row_id,alpha\ns0_5,0\n")
    ran: list[dict] = []
    codes: dict[str, int] = {}

    def start(options: SweepOptions, console, *, detail) -> SweepResult:
        SweepRecords(Storage.parse("sweeps-output").at("s")).save_sweep(sweep_record(options))
        interrupted = codes.get("sweep") == 130
        return SweepResult(
            name="s", trials=[], objective=Objective.of("val/cmap"), best=None, best_checkpoint=None, interrupted=interrupted
        )

    monkeypatch.setattr(runner, "start_sweep", start)
    for name, module in {"ensemble": ensemble, "submit": submit, "refit": refit}.items():

        def run(arguments, name: str = name) -> int:
            ran.append({"command": name, **vars(arguments)})
            return codes.get(name, 0)

        monkeypatch.setattr(module, f"_{name}", run)
    return ran, codes


def search(*arguments: str) -> int:
    return tune_main(["--search", "sed", "--data", "data", *arguments])


def test_the_labelled_soundscapes_of_the_data_are_submitted_and_scored(place, capsys):
    ran, _ = place
    assert search("--then", "submit", "--cache-dir", "cache") == 0
    first, then = ran
    assert (first["command"], first["references"], first["storage"]) == ("ensemble", ["s"], "sweeps-output")
    assert (first["cache_dir"], first["out"]) == ("cache", Path("s-ensemble"))
    assert (then["command"], then["model"], then["storage"]) == ("submit", "s-ensemble/ensemble.json", "sweeps-output")
    assert (then["soundscapes"], then["labels"]) == (Path("data/test_soundscapes"), Path("data"))
    assert (then["sample"], then["time_limit"], then["out"]) == (None, None, Path("submission.csv"))
    assert "$ birdclef submit --model s-ensemble/ensemble.json" in capsys.readouterr().out


def test_the_soundscapes_of_a_packed_set_are_those_that_were_fetched(place, tmp_path):
    from birdclef_core.data.packed.fetching import PackedData
    from birdclef_core.data.packed.writing import pack

    ran, _ = place
    write_recordings(tmp_path / "data")
    pack(tmp_path / "data", str(tmp_path / "set"))
    assert tune_main(["--search", "sed", "--data", "set", "--then", "submit", "--cache-dir", "cache"]) == 0
    root = PackedData.open("set", (tmp_path / "cache").resolve()).root
    assert (ran[1]["soundscapes"], ran[1]["labels"]) == (root / "test_soundscapes", root)
    assert ran[1]["soundscapes"].is_dir()


def test_other_soundscapes_are_submitted_as_they_are_asked_for(place):
    ran, _ = place
    arguments = [
        "--soundscapes",
        "in",
        "--sample",
        "sample.csv",
        "--time-limit",
        "120m",
        "-o",
        "new/s.csv",
        "--untouched",
        "kept",
    ]
    write_labelled(Path("kept"), num_files=1, duration_s=12.0)
    assert search("--then", "submit", *arguments) == 0
    assert (ran[0]["out"], ran[0]["untouched"]) == (Path("new/s-ensemble"), Path("kept"))
    assert (ran[1]["soundscapes"], ran[1]["labels"], ran[1]["sample"]) == (Path("in"), None, Path("sample.csv"))
    assert (ran[1]["time_limit"], ran[1]["out"]) == (7200.0, Path("new/s.csv"))


def test_the_best_configuration_is_trained_on_all_recordings_alone_or_after_the_submission(place, capsys):
    ran, _ = place
    assert search("--refit", "--cache-dir", "cache") == 0
    assert [(item["command"], item["sweep"], item["cache_dir"]) for item in ran] == [("refit", "s", "cache")]
    assert "$ birdclef refit s --storage sweeps-output" in capsys.readouterr().out
    ran.clear()
    assert search("--then", "submit", "--refit") == 0
    assert [item["command"] for item in ran] == ["ensemble", "submit", "refit"]


def test_what_fails_ends_it_and_a_sweep_that_was_stopped_is_not_submitted(place):
    ran, codes = place
    codes["ensemble"] = 2
    assert search("--then", "submit") == 2 and len(ran) == 1
    codes["sweep"] = 130
    assert search("--then", "submit") == 130 and len(ran) == 1
    codes.clear()
    assert search() == 0 and len(ran) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--soundscapes", "in"], "give it with --then submit"),
        (["--time-limit", "120m"], "--time-limit is for the submission"),
        (["--then", "submit", "--plan"], "--then is for a sweep that runs, but --plan trains nothing"),
        (["--refit", "--plan"], "--refit is for a sweep that runs, but --plan trains nothing"),
        (["--refit", "--soundscapes", "in"], "give it with --then submit"),
        (["--then", "submit", "--soundscapes", "gone"], "--soundscapes must be a folder"),
        (["--then", "submit", "--sample", "gone"], "--sample must be a file"),
        (["--then", "submit", "--time-limit", "120"], "is no time such as 120m"),
        (["--then", "submit", "-o", "in"], "-o must be a file"),
        (["--then", "submit", "--untouched", "in"], "--untouched must be a data folder with labelled soundscapes"),
        (["--then", "submit", "--untouched", "data"], "1 of the 1 of data are also in the data of the sweeps"),
        (["--then", "submit", "--data", "in"], "must be named, as in has no labelled ones"),
    ],
)
def test_what_cannot_work_is_refused_before_the_sweep(place, capsys, arguments, message):
    assert search(*arguments) == 2
    assert message in capsys.readouterr().err
    assert place[0] == []
