import csv
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from birdclef_core.data.dataset import load_dataset
from birdclef_core.errors import DataError, InputError

ORIGINALS = Path(__file__).parents[2] / "data" / "originals"


def findings_by_kind(root: Path) -> dict[str, int]:
    return {finding.kind: finding.count for finding in load_dataset(root).findings}


def test_a_plain_folder(maker: Any) -> None:
    root = maker.make(
        [*maker.many("a", 6, s=0.5), *maker.many("b", 6, secondary=("a",))], {"rain.wav": 1.0, "street/car.wav": 2.0}
    )
    dataset = load_dataset(root)
    assert list(dataset.recordings["recording_id"][:2]) == ["a0", "a1"]
    assert dataset.recordings["path"][0] == "train_audio/a/a0.wav"
    assert dataset.recordings["duration_s"][0] == 0.5
    assert dataset.recordings["size_bytes"][0] == (root / "train_audio/a/a0.wav").stat().st_size
    assert dataset.recordings["secondary_labels"][7] == ("a",)
    assert dataset.all_species.species == dataset.target_species.species == ("a", "b")
    assert dataset.target_species.name == "target"
    assert list(dataset.noise["group"]) == ["", "street"] and list(dataset.noise["duration_s"]) == [1.0, 2.0]
    assert dataset.findings == ()


def test_the_layout_of_2021_and_flat_and_by_id(tmp_path: Path, maker: Any) -> None:
    rows = [*maker.many("a", 4), *maker.many("b", 4)]
    root = maker.make(rows)
    expected = list(load_dataset(root).recordings["primary_label"])
    table = pd.read_csv(root / "train.csv")
    (root / "train_audio").rename(root / "train_short_audio")
    table.assign(filename=table["filename"].str.split("/").str[1]).to_csv(root / "train.csv", index=False)
    assert list(load_dataset(root).recordings["primary_label"]) == expected

    flat = root / "train_audios"
    flat.mkdir()
    for number, path in enumerate(sorted((root / "train_short_audio").rglob("*.wav"))):
        path.rename(flat / f"XC{number}.wav")
    table.drop(columns="filename").assign(id=range(8)).to_csv(root / "train.csv", index=False)
    assert list(load_dataset(root).recordings["recording_id"]) == [f"XC{number}" for number in range(8)]


def test_a_name_of_another_species_is_not_taken(maker: Any) -> None:
    """b/1.wav is missing: it must count as missing and not be read from a/1.wav."""
    root = maker.make([*maker.many("a", 30), maker.row("a", "1"), maker.row("b", "1"), maker.row("b", "2"), maker.row("b", "3")])
    (root / "train_audio/b/1.wav").unlink()
    dataset = load_dataset(root)
    assert "train_audio/a/1.wav" in set(dataset.recordings["path"]) and len(dataset.recordings) == 33
    assert [finding.examples for finding in dataset.findings] == [("b/1.wav: missing",)]


def test_audio_that_was_converted_is_found(maker: Any) -> None:
    """The table of 2020 says XC1.mp3; a name with a dot in it is no extension."""
    root = maker.make([*maker.many("a", 4), maker.row("a", "1.5 s")])
    table = pd.read_csv(root / "train.csv")
    table["filename"] = table["filename"].str.replace(".wav", ".mp3")
    table.to_csv(root / "train.csv", index=False)
    assert list(load_dataset(root).recordings["recording_id"]) == ["a0", "a1", "a2", "a3", "1.5 s"]


def test_names_that_come_twice_are_told_apart(maker: Any) -> None:
    root = maker.make([maker.row("a", "1"), maker.row("b", "1"), maker.row("b", "1-2"), maker.row("c", "1"), *maker.many("a", 3)])
    assert list(load_dataset(root).recordings["recording_id"][:4]) == ["1", "1-3", "1-2", "1-4"]


def test_bad_audio_is_counted_named_and_refused(maker: Any, tmp_path: Path) -> None:
    root = maker.make(maker.many("a", 30))
    (root / "train_audio/a/a3.wav").write_bytes(b"RIFFjunk")
    listed = tmp_path / "bad.csv"
    dataset = load_dataset(root, bad_files_csv=listed)
    assert len(dataset.recordings) == 29 and dataset.findings[0].count == 1
    (root / "train_audio/a/a4.wav").unlink()
    with pytest.raises(DataError, match=r"5% of the recordings.*2 of 30.*bad\.csv"):
        load_dataset(root, bad_files_csv=listed)
    assert list(pd.read_csv(listed)["path"]) == ["a/a4.wav", "train_audio/a/a3.wav"]
    assert len(load_dataset(root, max_bad_share=0.1).recordings) == 28


def test_no_audio_at_all(maker: Any) -> None:
    root = maker.make(maker.many("a", 3))
    shutil.rmtree(root / "train_audio")
    with pytest.raises(DataError, match="there is none"):
        load_dataset(root)


def test_target_list(maker: Any, tmp_path: Path) -> None:
    root = maker.make([*maker.many("a", 4, secondary=("heard",)), *maker.many("b", 4)])
    listed = tmp_path / "list.txt"
    listed.write_text("# these\nb\n\n")
    assert load_dataset(root, target_species=listed).target_species.species == ("b",)
    (root / "target_species.txt").write_text("a\n")
    assert load_dataset(root).target_species.species == ("a",)
    listed.write_text("b\nnone\n")
    with pytest.raises(DataError, match=r"none of .*list\.txt is in no row"):
        load_dataset(root, target_species=listed)
    listed.write_text("heard\n")
    with pytest.raises(DataError, match="only heard in the background"):
        load_dataset(root, target_species=listed)
    with pytest.raises(DataError, match="must exist"):
        load_dataset(root, target_species=tmp_path / "nowhere.txt")
    (root / "target_species.txt").write_text("# none yet\n\n")
    with pytest.raises(DataError, match=r"target_species\.txt must have at least one species code"):
        load_dataset(root)
    (root / "target_species.txt").write_bytes(b"\xef\xbb\xbfa # the first\r\nb\r\n")
    assert load_dataset(root).target_species.species == ("a", "b")
    (root / "target_species.txt").write_bytes("a # forêt\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"byte 0xea in line 1"):
        load_dataset(root)
    (root / "target_species.txt").unlink()
    (root / "target_species.txt").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        load_dataset(root)


def test_unknown_secondary_and_unscored_species_are_reported(maker: Any) -> None:
    root = maker.make([*maker.many("a", 6, secondary=("ghost",)), maker.row("rare", "r")])
    dataset = load_dataset(root)
    found = {finding.kind: finding for finding in dataset.findings}
    assert found["unlearnt_label"].examples == ("ghost (6 recordings)",)
    assert found["unscorable_species"].examples == ("rare",)
    assert "trained in every fold and scored in none" in found["unscorable_species"].meaning
    assert "ghost" not in dataset.all_species.index


def test_soundscapes_are_no_species(maker: Any) -> None:
    dataset = load_dataset(maker.make([*maker.many("a", 6), *maker.many("soundscape", 3, secondary=("a",))]))
    assert dataset.all_species.species == ("a",) and len(dataset.recordings) == 9


def test_nothing_to_validate_on(maker: Any) -> None:
    with pytest.raises(DataError, match="two authors"):
        load_dataset(maker.make(maker.many("a", 6, author="ann")))


def test_a_row_that_comes_twice_counts_once(maker: Any) -> None:
    rows = maker.many("a", 6)
    root = maker.make([*rows, rows[0]])
    assert findings_by_kind(root) == {"named_twice": 1}


def test_every_fold_validates_on_others_and_is_another_dataset(maker: Any) -> None:
    root = maker.make([*maker.many("a", 30, s=0.05), *maker.many("b", 30, s=0.05)])
    folds = [load_dataset(root, fold=fold) for fold in range(5)]
    assert len({dataset.fingerprint for dataset in folds}) == 5
    with pytest.raises(InputError, match="fold < 5"):
        load_dataset(root, fold=5)


def test_a_dataset_of_another_fold_is_the_one_that_would_be_loaded(maker: Any) -> None:
    root = maker.make([*maker.many("a", 30, s=0.05), *maker.many("b", 30, s=0.05)])
    first, other = load_dataset(root), load_dataset(root, fold=3)
    moved = first.of_fold(3)
    assert moved.fingerprint == other.fingerprint
    assert moved.recordings["is_validation"].equals(other.recordings["is_validation"])
    assert first.of_fold(0).fingerprint == first.fingerprint
    with pytest.raises(InputError, match="fold < 5"):
        first.of_fold(5)


def test_labelled_soundscapes_are_found_and_count(maker: Any) -> None:
    root = maker.make([*maker.many("a", 4), *maker.many("b", 4)])
    without = load_dataset(root)
    assert without.soundscapes is None
    maker._write(root / "test_soundscapes/X.wav", 10, 700)
    (root / "test_soundscapes_labels.csv").write_text("row_id,labels\nX_5,a\nX_10,zzz\n")
    dataset = load_dataset(root)
    assert dataset.soundscapes is not None and len(dataset.soundscapes.windows) == 2
    assert "zzz (1 window)" in dataset.findings[-1].examples
    (root / "test_soundscapes_labels.csv").write_text("row_id,labels\nX_5,b\nX_10,zzz\n")
    assert len({without.fingerprint, dataset.fingerprint, load_dataset(root).fingerprint}) == 3


def test_fingerprint_follows_what_changes_training(maker: Any) -> None:
    rows = [*maker.many("a", 6), *maker.many("b", 6)]
    first = load_dataset(maker.make(rows)).fingerprint
    assert load_dataset(maker.make(rows, name="moved")).fingerprint == first
    assert load_dataset(maker.make(rows, {"n.wav": 1.0}, name="noise")).fingerprint != first
    rated = [*rows[:-1], {**rows[-1], "rating": 1.0}]
    assert load_dataset(maker.make(rated, name="rated")).fingerprint != first
    assert load_dataset(maker.make(rows), fold=1).fingerprint != first


def test_the_fingerprint_is_what_it_was(tmp_path: Path) -> None:
    """Stages that users have trained are found by it: how a folder is read may change, what it means may not.

    The values are those of the first version in which the folds are a partition and recordings without a rating have none."""
    time_T = np.arange(4_000) / 8_000
    rows = []
    for number in range(24):
        species = ("abc1", "mönch", "22930")[number % 3]
        path = tmp_path / "train_audio" / species / f"XC{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.3 * np.sin(2 * np.pi * (300 + 10 * number) * time_T), 8_000)
        secondary = ("[]", "['abc1', 'ghost']", "", "['']")[number % 4]
        author = "" if number % 5 == 0 else number % 7
        rows.append((species, secondary, f"{species}/XC{number}.ogg", author, (4.0, "", 3.7)[number % 3], 50.5, "2019-05-06"))
    columns = ["primary_label", "secondary_labels", "filename", "author", "rating", "latitude", "date"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "train.csv", index=False, encoding="utf-8-sig")
    (tmp_path / "background_noise/rain").mkdir(parents=True)
    soundfile.write(tmp_path / "background_noise/rain/n.wav", 0.1 * np.sin(time_T), 8_000)
    (tmp_path / "test_soundscapes").mkdir()
    soundfile.write(tmp_path / "test_soundscapes/7_COR_2019.wav", np.zeros(80_000), 8_000)
    (tmp_path / "test_soundscapes_labels.csv").write_text("row_id,labels\n7_COR_5,abc1 ghost\n7_COR_10,nocall\n")
    found = [load_dataset(tmp_path, fold=fold).fingerprint[:16] for fold in (0, 3)]
    assert found == ["b61708f7041d78e0", "abaed524f99e590e"]


def test_a_recording_in_a_format_that_is_not_read_is_said(maker: Any) -> None:
    root = maker.make([*maker.many("a", 30), *maker.many("b", 30)])
    (root / "train_audio/a/a3.wav").rename(root / "train_audio/a/a3.wma").write_bytes(b"\x30\x26\xb2\x75")
    found = {finding.kind: finding for finding in load_dataset(root).findings}
    assert found["unusable"].examples == ("a/a3.wav: there only as train_audio/a/a3.wma, a format that is not read",)
    assert found["unread_format"].examples == ("train_audio/a/a3.wma",) and "1 .wma file" in found["unread_format"].meaning


def test_a_second_table_is_said(maker: Any) -> None:
    root = maker.make([*maker.many("a", 6), *maker.many("b", 6)])
    shutil.copy(root / "train.csv", root / "train_metadata.csv")
    assert findings_by_kind(root) == {"second_table": 1}


def test_only_audio_that_is_not_read(maker: Any) -> None:
    root = maker.make(maker.many("a", 3))
    for path in (root / "train_audio/a").iterdir():
        path.rename(path.with_suffix(".m4a")).write_bytes(b"\0\0\0\x18ftypM4A ")
    with pytest.raises(
        DataError, match=r"there is none\. 3 audio files are in a format that is not read: left out: 3 \.m4a files"
    ):
        load_dataset(root)


def test_a_folder_whose_path_is_not_utf_8(tmp_path: Path) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xe9"))
    root.mkdir()
    with pytest.raises(DataError, match=r"must be UTF-8, but .*d\\xe9 is not"):
        load_dataset(root)


def test_real_originals_go_through_the_loader(tmp_path: Path) -> None:
    """mp3, 22.05 kHz wav, 64-bit float wav, flac and stereo, as they came."""
    (tmp_path / "train_audio").mkdir()
    with (ORIGINALS / "ATTRIBUTION.csv").open(newline="") as file:
        sources = list(csv.DictReader(file))
    rows = [
        {"primary_label": item["ebird_code"] or "sheep", "filename": item["file"], "author": item["recording_id"]}
        for item in sources
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "train.csv", index=False)
    for item in sources:
        (tmp_path / "train_audio" / item["file"]).symlink_to(ORIGINALS / item["file"])
    dataset = load_dataset(tmp_path)
    assert len(dataset.recordings) == len(sources) == 9
    durations = pd.Series([float(item["duration_s"]) for item in sources])
    assert (dataset.recordings["duration_s"] - durations).abs().max() < 0.06  # An mp3's header counts the encoder's padding.
    assert set(dataset.recordings["primary_label"][dataset.recordings["is_validation"]]) == {"gretit1"}


def test_labelled_soundscapes_that_train_do_not_score(maker: Any) -> None:
    root = maker.make([*maker.many("a", 6), *maker.many("b", 6)])
    for name, pitch_hz in (("X", 700), ("Y", 900)):
        maker._write(root / f"test_soundscapes/{name}.wav", 10, pitch_hz)
    (root / "test_soundscapes_labels.csv").write_text("row_id,labels\nX_5,a\nX_10,b\nY_5,b\n")
    before = load_dataset(root)
    assert before.training_soundscapes is None and len(before.soundscapes.windows) == 3
    (root / "soundscapes_for_training.txt").write_text("# these may be learnt\nX.wav\n")
    after = load_dataset(root)
    assert after.soundscapes.files["path"].tolist() == ["test_soundscapes/Y.wav"]
    assert after.soundscapes.windows[["row_id", "file"]].values.tolist() == [["Y_5", 0]]
    assert after.training_soundscapes.windows["row_id"].tolist() == ["X_5", "X_10"]
    assert after.fingerprint != before.fingerprint
    assert "training_soundscapes" in {finding.kind for finding in after.findings}
    (root / "soundscapes_for_training.txt").write_text("X\nY\n")
    assert load_dataset(root).soundscapes is None
    (root / "soundscapes_for_training.txt").write_text("Z\n")
    with pytest.raises(
        DataError, match=r"soundscapes_for_training\.txt must name a labelled soundscape, but Z is none\. Labelled are X, Y"
    ):
        load_dataset(root)


def test_a_soundscape_that_scores_does_not_train_under_another_name(maker: Any) -> None:
    root = maker.make([*maker.many("a", 6), *maker.many("b", 6)])
    for name in ("X", "Y", "Z"):
        maker._write(root / f"test_soundscapes/{name}.wav", 10, 900 if name == "Z" else 700)
    (root / "test_soundscapes_labels.csv").write_text("row_id,labels\nX_5,a\nY_5,b\nZ_5,b\n")
    (root / "soundscapes_for_training.txt").write_text("X\n")
    with pytest.raises(
        DataError, match=r"X\.wav, which .*for_training\.txt names, is a copy of test_soundscapes/Y\.wav, which scores"
    ):
        load_dataset(root)
    (root / "soundscapes_for_training.txt").write_text("X\nY\n")
    assert load_dataset(root).soundscapes.files["path"].tolist() == ["test_soundscapes/Z.wav"]


def test_soundscapes_without_labels_are_no_part_of_the_fingerprint(maker: Any) -> None:
    root = maker.make([*maker.many("a", 6), *maker.many("b", 6)])
    before = load_dataset(root)
    assert before.unlabelled is None
    maker._write(root / "unlabelled_soundscapes/X.wav", 10, 700)
    after = load_dataset(root)
    assert len(after.unlabelled.files) == 1
    assert "unlabelled" not in vars(load_dataset(root)), "no header is read before somebody asks"
    assert after.fingerprint == before.fingerprint, "stages that do not learn from them keep their ids"
