"""Soundscapes without labels: those that no table names, and never a copy of one that scores."""

import shutil
import zlib

import numpy as np
import soundfile

from birdclef_core.data.unlabelled import load_unlabelled


def write(root, *paths: str) -> None:
    """Files of equal size, each with sound of its own."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        seed = zlib.crc32(path.encode())
        soundfile.write(root / path, np.random.default_rng(seed).uniform(-0.1, 0.1, 3200), 32_000)


def test_the_files_of_three_folders_but_those_with_labels(tmp_path):
    write(tmp_path, "unlabeled_soundscapes/a.wav", "train_soundscapes/b.wav", "train_soundscapes/c.wav", "test_soundscapes/d.wav")
    found = load_unlabelled(tmp_path, {"train_soundscapes/c.wav"})
    assert found.files["path"].tolist() == ["unlabeled_soundscapes/a.wav", "train_soundscapes/b.wav"]
    assert found.files["duration_s"].tolist() == [0.1, 0.1] and found.findings == ()


def test_a_copy_of_a_labelled_soundscape_and_a_broken_file_are_left_out_and_said(tmp_path):
    write(tmp_path, "unlabelled_soundscapes/a.wav", "unlabelled_soundscapes/scored.wav")
    (tmp_path / "unlabelled_soundscapes" / "broken.wav").write_bytes(b"RIFF")
    found = load_unlabelled(tmp_path, {"test_soundscapes/scored.wav"})
    assert found.files["path"].tolist() == ["unlabelled_soundscapes/a.wav"]
    assert [finding.kind for finding in found.findings] == ["labelled_copy", "unusable_unlabelled"]


def test_a_folder_without_any_has_none(tmp_path):
    assert load_unlabelled(tmp_path, set()) is None
    write(tmp_path, "train_soundscapes/c.wav")
    assert load_unlabelled(tmp_path, {"train_soundscapes/c.wav"}) is None


def test_the_fingerprint_is_of_the_files_wherever_they_lie(tmp_path):
    write(tmp_path / "one", "unlabelled_soundscapes/a.wav")
    write(tmp_path / "two", "unlabeled_soundscapes/deep/a.wav")
    write(tmp_path / "other", "unlabelled_soundscapes/b.wav")
    one, two, other = (load_unlabelled(tmp_path / name, set()).fingerprint for name in ("one", "two", "other"))
    assert one == two != other


def test_a_copy_of_a_labelled_soundscape_under_another_name_is_left_out(tmp_path):
    write(tmp_path, "unlabelled_soundscapes/a.wav", "unlabelled_soundscapes/b.wav", "test_soundscapes/scored.wav")
    shutil.copy(tmp_path / "test_soundscapes" / "scored.wav", tmp_path / "unlabelled_soundscapes" / "b.wav")
    found = load_unlabelled(tmp_path, {"test_soundscapes/scored.wav"})
    assert found.files["path"].tolist() == ["unlabelled_soundscapes/a.wav"], "of equal size and not a copy"
    assert found.findings[0].kind == "labelled_copy" and found.findings[0].examples == ("unlabelled_soundscapes/b.wav",)
