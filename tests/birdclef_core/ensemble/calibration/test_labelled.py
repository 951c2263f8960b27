"""Labelled rows have the logits that predicting the files gives, and rows that cannot be heard are counted."""

from dataclasses import replace

import numpy as np
import pytest
from made_up_detector import SPECIES, loudness_detector, write_sound
from made_up_labels import write_labelled

from birdclef_core.ensemble.calibration.labelled import WHOLE_FILE, hear_rows, recording_rows, soundscape_rows
from birdclef_core.errors import InputError
from birdclef_core.inference.procedure import Procedure
from birdclef_core.inference.results.formats import AudioFile
from birdclef_core.inference.results.postprocess import NO_POSTPROCESSING, PostProcessing
from birdclef_core.inference.run.labels import read_labels
from birdclef_core.inference.run.predictor import Predictor

PREDICTOR = Predictor(loudness_detector())


def test_windows_of_soundscapes_have_the_logits_that_predicting_gives(tmp_path):
    rows = soundscape_rows(read_labels(write_labelled(tmp_path / "data", num_files=2, duration_s=20.0)), SPECIES)
    assert rows.source == "soundscapes" and rows.truth_RC.sum(axis=0).tolist() == [6, 4, 1]
    heard = hear_rows(rows, PREDICTOR, tmp_path / "journal")
    logits, _ = PREDICTOR.hear(rows.files[1])
    np.testing.assert_allclose(heard.logits(NO_POSTPROCESSING)[4:], logits.logits_WC, atol=1e-6)
    peak = PostProcessing(peak=0.5)
    np.testing.assert_allclose(heard.logits(peak)[4:], peak.apply(logits.logits_WC), atol=1e-6)
    assert heard.group_R.tolist() == [0] * 4 + [1] * 4 and heard.num_left_out == 0
    assert (heard.truth_RC == rows.truth_RC).all()


def test_rows_that_no_window_is_of_are_left_out_and_files_that_cannot_be_read_listed(tmp_path):
    folder = write_labelled(tmp_path / "data", num_files=2, duration_s=20.0)
    table = folder / "test_soundscapes_labels.csv"
    table.write_text(table.read_text() + "s0_7,alpha\n")
    rows = soundscape_rows(read_labels(folder), SPECIES)
    (folder / "test_soundscapes" / "s1.wav").write_bytes(b"no audio")
    heard = hear_rows(rows, PREDICTOR, tmp_path / "journal")
    assert heard.num_left_out == 5 and [item.label for item in heard.unreadable] == ["s1.wav"]
    assert heard.truth_RC.tolist() == [[True, False, True], [True, True, False], [False, False, False], [True, True, False]]


def test_a_recording_is_its_largest_window_of_the_first_minute(tmp_path):
    path = write_sound(tmp_path / "a.wav", 80.0, seed=3)
    rows = soundscape_rows(read_labels(write_labelled(tmp_path / "data", num_files=1, duration_s=5.0)), SPECIES)
    rows = replace(
        rows,
        source="recordings",
        files=(AudioFile(path, "a.wav", tmp_path, None),),
        end_s_R=np.array([WHOLE_FILE]),
    )
    heard = hear_rows(rows, PREDICTOR, tmp_path / "journal")
    logits, _ = PREDICTOR.hear(rows.files[0])
    np.testing.assert_allclose(heard.logits(NO_POSTPROCESSING)[0], logits.logits_WC[:12].max(axis=0), atol=1e-6)
    assert (logits.logits_WC[12:].max(axis=0) > logits.logits_WC[:12].max(axis=0)).any(), "what comes later would count"


def test_validation_recordings_are_grouped_by_author(tone_data):
    dataset = tone_data.dataset
    rows = recording_rows(dataset, ("top", "low"))
    known = dataset.recordings[dataset.recordings["is_validation"] & dataset.recordings["primary_label"].isin(["low", "top"])]
    assert [item.path for item in rows.files] == [dataset.root / path for path in known["path"]]
    assert [rows.truth_RC.shape[1], len(known)] == [2, rows.truth_RC.sum()]
    assert len(np.unique(rows.group_R)) == known["group"].nunique()
    assert rows.source == "recordings" and (rows.end_s_R == WHOLE_FILE).all()


def test_labels_that_say_nothing_are_refused(tmp_path):
    folder = write_labelled(tmp_path / "data", num_files=1, duration_s=10.0)
    rows = soundscape_rows(read_labels(folder), SPECIES)
    with pytest.raises(InputError, match="window_s == 5 must hold"):
        hear_rows(rows, Predictor(loudness_detector(procedure=Procedure(window_s=4.0))), tmp_path / "journal")
    others = soundscape_rows(read_labels(folder), ("delta",))
    with pytest.raises(InputError, match="must have a species of the model and audio that can be heard, but none of 2"):
        hear_rows(others, PREDICTOR, tmp_path / "journal")
