"""Labels are found in a data folder, and in a table that lies anywhere; errors name the user's own paths."""

import pytest
from made_up_detector import write_sound

from birdclef_core.data.soundscapes import load_soundscapes
from birdclef_core.errors import DataError, InputError
from birdclef_core.inference.run.labels import read_labels


@pytest.fixture
def folder(tmp_path):
    write_sound(tmp_path / "data" / "test_soundscapes" / "a.wav", 10.0)
    (tmp_path / "data" / "test_soundscapes_labels.csv").write_text("row_id,labels\na_5,alpha beta\na_10,\n")
    return tmp_path / "data"


def test_a_data_folder_and_its_table_have_the_same_labels(folder):
    loaded = load_soundscapes(folder)
    for labels in (folder, folder / "test_soundscapes_labels.csv"):
        found = read_labels(labels)
        assert found.windows.equals(loaded.windows) and found.files["path"].tolist() == ["a.wav"]
        assert (found.root / "a.wav").is_file()


def test_a_table_anywhere_needs_the_folder_of_its_audio(folder, tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text("filename,start,end,primary_label\na.wav,0,5,alpha\n")
    found = read_labels(table, folder / "test_soundscapes")
    assert found.windows[["row_id", "end_s", "labels"]].to_numpy().tolist() == [["a_5", 5, ("alpha",)]]
    with pytest.raises(InputError, match="must be named: --soundscapes DIR"):
        read_labels(table)


def test_what_is_odd_is_said_with_the_users_own_paths(folder, tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text("row_id,labels\na_5,alpha\na_5,alpha\nzz_5,beta\n")
    said = " ".join(finding.describe() for finding in read_labels(table, folder / "test_soundscapes").findings)
    assert f"looked for in {folder / 'test_soundscapes'}" in said and "of mine.csv repeat" in said
    assert "birdclef-labels-" not in said and "test_soundscapes_labels.csv" not in said


def test_labels_that_fit_no_file_are_refused_with_their_own_paths(folder, tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text("row_id,labels\nzz_5,alpha\n")
    with pytest.raises(
        DataError, match=rf"At least one window of {table} must have audio in {folder}/test_soundscapes, but none has"
    ):
        read_labels(table, folder / "test_soundscapes")
    with pytest.raises(InputError, match="must have labelled soundscapes"):
        read_labels(folder / "test_soundscapes")
    with pytest.raises(InputError, match="labels must exist"):
        read_labels(tmp_path / "gone.csv", folder)
    with pytest.raises(InputError, match="gone is none"):
        read_labels(table, tmp_path / "gone")
