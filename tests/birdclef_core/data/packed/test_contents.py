"""What is packed of a data folder, and that it is the same data afterwards."""

import shutil

import pandas as pd
import pytest

from birdclef_core.data.dataset import load_dataset
from birdclef_core.data.manifest import MANIFEST_NAME, read_manifest
from birdclef_core.data.packed.contents import find_contents
from birdclef_core.errors import DataError
from birdclef_core.inventory.collect import collect


def test_tables_and_the_audio_that_they_name_are_packed(folder, tmp_path):
    contents = find_contents(folder, tmp_path)
    assert sorted(contents.tables) == ["target_species.txt", "test_soundscapes_labels.csv", "train.csv"]
    kinds = pd.Series(list(contents.audio)).str.split("/").str[0].value_counts().to_dict()
    assert kinds == {"train_audio": 12, "background_noise": 2, "test_soundscapes": 1}
    assert "train_audio/low/nobody_names_this.wav" not in contents.audio
    assert contents.dataset.fingerprint == load_dataset(folder).fingerprint


def test_a_collected_folder_names_its_audio_within_the_packed_set(folder, tmp_path):
    out = tmp_path / "collected"
    collect([folder], out)
    (tmp_path / "scratch").mkdir()
    contents = find_contents(out, tmp_path / "scratch")
    paths = read_manifest(contents.tables[MANIFEST_NAME])["path"]
    assert set(paths) <= set(contents.audio)
    assert all(path.startswith("audio_elsewhere/") for path in paths)
    assert contents.dataset.fingerprint == load_dataset(out).fingerprint


def test_audio_that_cannot_be_read_is_missing_in_both(folder, tmp_path):
    root = shutil.copytree(folder, tmp_path / "data")
    collect([root], tmp_path / "collected")
    (root / "train_audio" / "low" / "low3é.wav").unlink()
    contents = find_contents(tmp_path / "collected", tmp_path)
    assert contents.missing == (str(root / "train_audio" / "low" / "low3é.wav"),)
    assert len(contents.dataset.recordings) == 11


def test_a_set_that_would_be_other_data_is_not_packed(folder, tmp_path, monkeypatch):
    """Here a recording is lost on the way; a name that means one file only because another is not packed is a real case."""
    monkeypatch.setattr("birdclef_core.data.packed.contents._linked", lambda files, place: _without_one(folder, place))
    with pytest.raises(DataError, match=r"must be the same data once it is packed, but .*: 12 recordings became 11"):
        find_contents(folder, tmp_path)


def _without_one(folder, place):
    shutil.copytree(folder, place)
    (place / "train_audio" / "top" / "top1é.wav").unlink()
    return place
