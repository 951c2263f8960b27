"""A run hears every file once, whatever stops it, and says of every file what came of it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_up_detector import loudness_detector, write_sound

from birdclef_core.errors import InputError
from birdclef_core.inference.procedure import Procedure
from birdclef_core.inference.results.formats import WRITERS
from birdclef_core.inference.results.selection import Selection
from birdclef_core.inference.run import predictor as predictor_module
from birdclef_core.inference.run.files import find_audio
from birdclef_core.inference.run.job import Task, predict_files
from birdclef_core.inference.run.predictor import Predictor

QUICK = Procedure(window_s=1.0, context_s=2.0, step_s=1.0)


@pytest.fixture
def heard(monkeypatch):
    """The names of the files of which windows are heard, once a batch."""
    names = []
    original = Predictor.hear

    def hear(self, audio, *, advance, **others):
        return original(self, audio, advance=lambda samples: (names.append(audio.path.name), advance(samples)), **others)

    monkeypatch.setattr(Predictor, "hear", hear)
    return names


@pytest.fixture
def task(tmp_path):
    for number, name in enumerate(("a.wav", "b.wav", "c.wav")):
        write_sound(tmp_path / "in" / name, 5.5, seed=number)

    def make(**changes) -> Task:
        values = {
            "predictor": Predictor(loudness_detector(procedure=QUICK), batch_size=2),
            "audio": find_audio([tmp_path / "in"]),
            "selection": Selection(threshold=0.0),
            "out": tmp_path / "out",
            "formats": ("csv",),
        }
        return Task(**{**values, **changes})

    return make


def table(task: Task) -> pd.DataFrame:
    return pd.read_csv(task.out / "detections.csv")


def test_every_file_is_heard_and_listed(task):
    outcome = predict_files(task())
    assert (outcome.num_files, outcome.num_known, outcome.num_rows, outcome.unreadable) == (3, 0, 3 * 6 * 3, ())
    assert outcome.heard_s == 16.5
    files = pd.read_csv(task().out / "files.csv")
    assert list(files) == ["file", "duration_s", "windows", "detections", "problem"]
    assert files["windows"].tolist() == [6] * 3 and files["duration_s"].tolist() == [5.5] * 3
    assert table(task())["end_s"].max() == 5.5


def test_a_second_run_hears_nothing_and_writes_the_same_bytes(task, heard):
    predict_files(task())
    first, count = (task().out / "detections.csv").read_bytes(), len(heard)
    outcome = predict_files(task())
    assert outcome.num_known == 3 and len(heard) == count
    assert (task().out / "detections.csv").read_bytes() == first


def test_other_thresholds_and_formats_need_no_second_hearing(task, heard):
    predict_files(task())
    count = len(heard)
    outcome = predict_files(task(selection=Selection(threshold=0.6, merge=True), formats=tuple(WRITERS)))
    assert len(heard) == count and 0 < outcome.num_rows < 54
    assert (task().out / "raven" / "a.selections.txt").is_file()


@pytest.mark.parametrize("stopped_at", range(9))
def test_a_run_that_is_stopped_anywhere_goes_on_and_gives_the_same(task, tmp_path, monkeypatch, stopped_at):
    monkeypatch.setattr(predictor_module, "SAVE_S", 0.0)
    predict_files(task(out=tmp_path / "whole"))
    calls = 0

    def stop(done, of, done_s, total_s):
        nonlocal calls
        calls += 1
        if calls == stopped_at + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_files(task(), stop)
    assert not (task().out / "detections.csv").exists()
    predict_files(task())
    assert (task().out / "detections.csv").read_bytes() == (tmp_path / "whole" / "detections.csv").read_bytes()


def test_only_files_that_are_new_or_have_changed_are_heard(task, heard, tmp_path):
    predict_files(task())
    heard.clear()
    write_sound(tmp_path / "in" / "b.wav", 3.0, seed=9)
    write_sound(tmp_path / "in" / "d.wav", 2.0, seed=9)
    outcome = predict_files(task())
    assert set(heard) == {"b.wav", "d.wav"} and outcome.num_known == 2
    assert table(task()).groupby("file")["end_s"].max().tolist() == [5.5, 3.0, 5.5, 2.0]


def test_an_unreadable_file_is_listed_without_a_score_and_tried_again(task, tmp_path, heard):
    bad = tmp_path / "in" / "b.wav"
    good = bad.read_bytes()
    bad.write_bytes(b"RIFF rubbish")
    outcome = predict_files(task())
    assert outcome.num_files == 2 and [item.label for item in outcome.unreadable] == [str(bad)]
    assert set(table(task())["file"]) == {str(bad.with_name(name)) for name in ("a.wav", "c.wav")}
    files = pd.read_csv(task().out / "files.csv").set_index("file")
    assert np.isnan(files.loc[str(bad), "windows"]) and "unreadable: " in files.loc[str(bad), "problem"]
    bad.write_bytes(good)
    heard.clear()
    assert predict_files(task()).unreadable == () and set(heard) == {"b.wav"}


def test_a_file_that_breaks_off_is_predicted_as_far_as_it_goes(task, tmp_path):
    path = tmp_path / "in" / "b.wav"
    path.write_bytes(path.read_bytes()[:-64_000])
    for _ in range(2):
        outcome = predict_files(task())
        assert [item.label for item in outcome.damaged] == [str(path)] and "4.5 s" in outcome.damaged[0].reason
    assert table(task()).groupby("file")["end_s"].max().tolist() == [5.5, 4.5, 5.5]


def test_nothing_found_is_a_header_and_the_highest_score(task):
    outcome = predict_files(task(selection=Selection(threshold=1.0)))
    assert outcome.num_rows == 0 and 0 < outcome.highest < 1
    assert len(table(task())) == 0 and pd.read_csv(task().out / "files.csv")["detections"].tolist() == [0, 0, 0]


def test_another_procedure_needs_another_folder(task):
    predict_files(task())
    other = Predictor(loudness_detector(procedure=replace(QUICK, context_s=4.0)), batch_size=2)
    with pytest.raises(InputError, match=r"context_s was 2\.0, is 4\.0"):
        predict_files(task(predictor=other))


def test_embeddings_and_segments_are_written_where_asked_for(task):
    asked = task(predictor=replace(task().predictor, embeddings=True), segments=1)
    outcome = predict_files(asked)
    embeddings = pd.read_parquet(asked.out / "embeddings.parquet")
    assert embeddings.shape == (18, 4) and all(len(value) == 4 for value in embeddings["embedding"])
    assert embeddings["end_s"].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 5.5] * 3
    assert outcome.num_segments == 3 == len(list((asked.out / "segments").rglob("*.wav")))
    predict_files(task())


def test_progress_is_in_seconds_of_audio(task):
    seen = []
    predict_files(task(), lambda *values: seen.append(values))
    assert seen[0] == (0, 3, 0.0, 16.5) and seen[-1] == (3, 3, 16.5, 16.5)
    assert [values[2] for values in seen] == sorted(values[2] for values in seen)


def test_species_are_checked_before_anything_is_heard(task, heard):
    with pytest.raises(InputError):
        predict_files(task(selection=Selection(species=("unicorn",))))
    assert heard == [] and not task().out.exists()
