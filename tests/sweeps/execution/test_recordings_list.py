"""A dataset's recordings as a table: made once, kept in the store, and as they would be with every other fold."""

from dataclasses import replace

import pandas as pd
import pytest

from birdclef_core.data.dataset import load_dataset
from birdclef_core.store.recordings_table import content_hashes, read_recordings, table_name
from birdclef_core.store.storage import Storage
from sweeps.execution import recordings_list
from sweeps.execution.recordings_list import NUM_FOLDS, RecordingsList


@pytest.fixture
def storage(tmp_path):
    return Storage.parse(str(tmp_path))


@pytest.fixture
def dataset(tone_data):
    return tone_data.dataset


def test_the_table_has_every_recording_with_its_side_and_content(storage, dataset):
    table = RecordingsList(storage, dataset, "data").table
    same = ["recording_id", "group", "is_validation", "always_trains"]
    pd.testing.assert_frame_equal(table[same], dataset.recordings[same])
    assert table["author"][0] == "author0" and list("author " + table["author"]) == list(table["group"])
    assert list(table["content"]) == content_hashes([dataset.root / path for path in dataset.recordings["path"]])
    assert table["content"].nunique() == len(table)
    assert storage.files() == [], "only keep() writes"


def test_what_is_kept_is_not_read_from_the_files_again(storage, dataset, monkeypatch):
    first = RecordingsList(storage, dataset, "data")
    first.keep()
    monkeypatch.setattr(recordings_list, "content_hashes", lambda *_: pytest.fail("the files were read"))
    again = RecordingsList(storage, dataset, "data")
    again.keep()
    pd.testing.assert_frame_equal(again.table, first.table, check_dtype=False)


def test_a_damaged_table_is_written_again(storage, dataset):
    storage.write_text(table_name("data"), "rubbish")
    RecordingsList(storage, dataset, "data").keep()
    assert len(read_recordings(storage, "data")) == len(dataset.recordings)


def test_the_folds_are_those_that_loading_makes(storage, dataset):
    folds = dict(RecordingsList(storage, dataset, "data").folds())
    assert list(folds) == list(range(NUM_FOLDS))
    for fold, table in folds.items():
        loaded = load_dataset(dataset.root, fold=fold).recordings
        assert list(table["is_validation"]) == list(loaded["is_validation"])
    assert (sum(table["is_validation"].astype(int) for table in folds.values()) == 1).all(), "each validates in one"


def test_a_group_of_an_unknown_file_means_nothing_elsewhere(storage, dataset):
    recordings = dataset.recordings.copy()
    recordings["author"] = ""
    recordings.loc[0, "group"] = "unknown low0"
    recordings.loc[1, "group"] = "place 50.00 7.00"
    table = RecordingsList(storage, replace(dataset, recordings=recordings), "data").table
    assert table["group"][:2].tolist() == ["", "place 50.00 7.00"] and (table["author"] == "").all()
