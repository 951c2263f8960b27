import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import soundfile

from birdclef_core.data.dataset import load_dataset
from birdclef_core.data.manifest import read_manifest
from birdclef_core.data.soundscapes import load_soundscapes
from birdclef_core.errors import DataError, InputError
from birdclef_core.inventory.collect import collect

ORIGINALS = Path(__file__).parents[2] / "data" / "originals"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def labels(out: Path) -> dict[str, str]:
    rows = read_manifest(out / "manifest.parquet")
    rows = rows[rows["kind"] == "recording"]
    return dict(zip(rows["recording_id"], rows["primary_label"], strict=True))


def rows_by_id(out: Path) -> pd.DataFrame:
    return read_manifest(out / "manifest.parquet").set_index("recording_id")


def test_a_collected_folder_is_the_same_dataset(collections: Any, out: Path) -> None:
    """Same recordings, same identity, though the paths are absolute: stages that were trained are found again."""
    root = collections.year_2023("d", {"a": range(6), "b": range(10, 16)}, secondary_labels="['b']", latitude=1.5, longitude=2)
    collections.audio("d/background_noise/rain/n.wav", "d/background_noise/m.wav")
    (root / "target_species.txt").write_text("a\n")
    report = collect([root], out)
    before, after = load_dataset(root), load_dataset(out)
    assert after.fingerprint == before.fingerprint
    assert after.target_species.species == ("a",)
    assert Path(after.recordings["path"][0]) == root / "train_audio/a/XC0.ogg" and after.root == out
    assert list(after.recordings["source"].unique()) == ["d"]
    columns = [name for name in before.recordings.columns if name != "path"]
    pd.testing.assert_frame_equal(after.recordings[columns], before.recordings[columns], check_dtype=False)
    assert report.num_recordings == 12 and report.num_noise == 2 and report.num_probed == report.num_files == 14
    assert report.findings == () and not list(out.glob("*.csv")) and (out / "split.parquet").is_file()


def test_several_sources_make_one_recording(collections: Any, out: Path) -> None:
    """XC1 came three times; the longest file counts, the first known author and rating, and all secondary labels."""
    old = collections.year_2023("old", {"a": [1, 2]}, author="", rating=None, secondary_labels="['x']")
    new = collections.year_2023("new", {"a": [1], "b": [3]}, author="bob", secondary_labels="['y', 'a']")
    collections.audio("more/A/a/XC1 - Some bird - Avis una.wav", pitch=1, duration_s=2.5)
    collections.audio("more/A/b/XC1_part2.wav", pitch=99)
    report = collect([old, new, collections.parent / "more"], out)
    row = rows_by_id(out).loc["XC1"]
    assert row["sources"] == ("more", "old", "new") and row["secondary_labels"] == ("x", "y")
    assert row["author"] == "bob" and row["rating"] == 4 and row["duration_s"] == 2.5 and row["path"].endswith("una.wav")
    assert labels(out) == {"XC1": "a", "XC2": "a", "XC3": "b", "XC1_part2": "b"}
    assert report.num_repeated == 2
    assert list(report.sources["rows"]) == [2, 2, 2]


def test_the_same_content_under_another_name_is_one_recording(collections: Any, out: Path) -> None:
    collections.audio("one/a/first.wav", "two/a/second.wav", pitch=5)
    collections.audio("two/a/other.wav", pitch=6)
    report = collect([collections.parent / "one", collections.parent / "two"], out)
    assert labels(out) == {"first": "a", "other": "a"} and report.num_repeated == 1
    assert rows_by_id(out).loc["first", "sources"] == ("one", "two")


def test_conflicts_are_listed_decided_and_overridden(collections: Any, out: Path) -> None:
    """A table's word before a folder's, then the first source; the list of conflicts, edited, is the way to decide otherwise."""
    collections.audio("plain/guess/XC1.wav", "plain/guess/XC9.wav")
    first = collections.year_2023("first", {"a": [1, 2]})
    second = collections.year_2023("second", {"b": [1, 2], "c": [3]}, secondary_labels="['x']")
    sources = [collections.parent / "plain", first, second]
    report = collect(sources, out)
    assert labels(out) == {"XC1": "a", "XC9": "guess", "XC2": "a", "XC3": "c"}
    written = pd.read_csv(out / "label_conflicts.csv")
    assert list(written["recording_id"]) == ["XC1", "XC2"] and list(written["decided_by"]) == ["rule"] * 2
    assert written["claims"][0] == "a (first); b (second); guess (plain)"
    assert [(finding.kind, finding.count) for finding in report.findings] == [("label_conflict", 2)] and report.exit_code == 0
    written.loc[0, "primary_label"] = "x"
    edited = collections.parent / "mine.csv"
    pd.concat([written, pd.DataFrame([{"recording_id": "XC3"}])]).to_csv(edited, index=False)
    report = collect(sources, out, overrides=edited)
    assert labels(out) == {"XC1": "x", "XC9": "guess", "XC2": "a"}
    assert rows_by_id(out).loc["XC1", "secondary_labels"] == ()
    assert list(report.conflicts["decided_by"]) == ["override"] * 2 and report.findings == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id\nXC1\n", "must have the columns recording_id, primary_label"),
        ("recording_id,primary_label\nXC1,a\nXC1,b\n", "XC1 several times"),
        ("recording_id,primary_label\nXC5,a\n", "XC5 is none"),
        ("recording_id,primary_label,secondary_labels\nXC1,a,[b\n", "must be lists"),
    ],
)
def test_overrides_that_do_not_fit(collections: Any, out: Path, text: str, said: str) -> None:
    path = collections.parent / "mine.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        collect([collections.year_2023("d", {"a": [1]})], out, overrides=path)


def test_a_table_alone_labels_the_audio_of_others(collections: Any, out: Path) -> None:
    """The complete metadata names more than is there: what nobody has is left out and counted, not missed."""
    rows = [
        {"id": number, "primary_label_2023": "a", "secondary_labels_2023": "[]", "q": "B", "rec": "ann"} for number in range(5)
    ]
    table = collections.table("complete/train.csv", rows)
    collections.audio("flat/XC1.wav", "flat/XC2.wav", "flat/XC77.wav")
    report = collect([collections.parent / "flat", table], out)
    assert labels(out) == {"XC1": "a", "XC2": "a"}
    assert rows_by_id(out).loc["XC1", ["rating", "author"]].tolist() == [4.0, "ann"]
    assert {finding.kind: finding.count for finding in report.findings} == {"unlabelled": 1, "only_described": 3}
    assert report.exit_code == 1
    assert pd.read_csv(out / "unlabelled_audio.csv")["path"][0].endswith("XC77.wav")


def test_missing_and_damaged_audio_stays_in_and_counts_when_loaded(collections: Any, out: Path) -> None:
    root = collections.year_2023("d", {"a": range(40), "b": range(50, 60)})
    (root / "train_audio/a/XC1.ogg").unlink()
    (root / "train_audio/a/XC2.ogg").write_bytes(b"junk")
    report = collect([root], out)
    assert report.num_recordings == 48 and report.num_unusable == 2
    assert list(pd.read_csv(out / "unusable.csv")["recording_id"]) == ["XC1", "XC2"]
    dataset = load_dataset(out)
    assert len(dataset.recordings) == 48 and dataset.findings[0].count == 2
    with pytest.raises(DataError, match="At most 1%"):
        load_dataset(out, max_bad_share=0.01)


def test_noise_that_cannot_be_used_is_counted(collections: Any, out: Path) -> None:
    root = collections.year_2023("d", {"a": range(6), "b": range(10, 16)})
    collections.audio("d/background_noise/good.wav", "d/background_noise/bad.wav")
    (root / "background_noise/bad.wav").write_bytes(b"junk")
    report = collect([root], out)
    assert report.num_noise == 1 and report.exit_code == 1
    assert [(finding.kind, finding.count) for finding in report.findings] == [("unusable_noise", 1)]


def test_a_recording_that_is_there_in_a_format_that_is_not_read(collections: Any, out: Path) -> None:
    root = collections.year_2023("d", {"a": range(6), "b": range(10, 16)})
    (root / "train_audio/a/XC1.ogg").rename(root / "train_audio/a/XC1.m4a").write_bytes(b"\0\0\0\x18ftypM4A ")
    report = collect([root], out)
    found = {finding.kind: finding for finding in report.findings}
    assert "there only as train_audio/a/XC1.m4a" in found["unusable"].examples[0] and found["unread_format"].count == 1


def test_a_name_that_lies_about_its_format_is_read_and_said(collections: Any, out: Path) -> None:
    root = collections.year_2023("d", {"a": range(6)})
    (root / "train_audio/a/XC1.ogg").rename(root / "train_audio/a/XC1.m4a")
    report = collect([root], out)
    assert report.num_recordings == 6 and report.exit_code == 0
    assert [(finding.kind, finding.level) for finding in report.findings] == [("wrong_extension", "note")]


def test_target_species_without_recordings_are_said(collections: Any, out: Path) -> None:
    root = collections.year_2023("d", {"a": [1]})
    (root / "target_species.txt").write_text("a\nghost\n")
    (finding,) = collect([root], out).findings
    assert finding.kind == "unknown_target" and finding.examples == ("ghost",)
    (root / "target_species.txt").write_text("")
    with pytest.raises(DataError, match="at least one species code"):
        collect([root], collections.parent / "other")
    assert not (collections.parent / "other/manifest.parquet").exists(), "refused before anything is written"


def test_soundscape_labels_without_audio_are_said(collections: Any, out: Path) -> None:
    root = collections.year_2023("d", {"a": [1]})
    collections.table("d/train_soundscapes_labels.csv", [{"row_id": "s_5", "labels": "a"}])
    assert [finding.kind for finding in collect([root], out).findings] == ["soundscapes_without_audio"]
    collections.audio("d/train_soundscapes/other.wav")
    with pytest.raises(DataError, match="no file of this name in train_soundscapes"):
        collect([root], out)


def test_labels_that_could_leave_the_folder_stay_in_it(collections: Any, out: Path) -> None:
    root = collections.year_2023("d", {"a": [1]})
    rows = pd.read_csv(root / "train_metadata.csv").assign(primary_label="../../b")
    rows.to_csv(root / "train_metadata.csv", index=False)
    collect([root], out, mode="link")
    (path,) = read_manifest(out / "manifest.parquet")["path"]
    assert Path(out / path).resolve().is_relative_to(out.resolve()) and (out / path).is_file()


def test_an_out_of_the_wrong_kind(collections: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"must be a folder, but .*file is a file"):
        collect([collections.year_2023("d", {"a": [1]})], tmp_path / "file")


def test_a_disk_that_fills_up_is_said(collections: Any, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("birdclef_core.inventory.collect.write_manifest", fail)
    with pytest.raises(InputError, match="No space left on device"):
        collect([collections.year_2023("d", {"a": [1]})], out)


def test_codes_are_renamed_by_the_newest_taxonomy(collections: Any, out: Path) -> None:
    root = collections.year_2023("d", {"oldcode": [1], "kept": [2]}, secondary_labels="['oldcode', 'ghost']")
    rows = pd.read_csv(root / "train_metadata.csv").assign(scientific_name=["Parus major", "Corvus corax"])
    rows.to_csv(root / "train_metadata.csv", index=False)
    (root / "target_species.txt").write_text("oldcode\nkept\n")
    collections.audio("plain/Common Raven/3.wav")
    raven = {"SPECIES_CODE": "kept", "SCI_NAME": "Corvus corax", "PRIMARY_COM_NAME": "Common Raven"}
    tit = {"SCI_NAME": "Parus major", "PRIMARY_COM_NAME": "Great Tit"}
    collections.table("d/eBird_Taxonomy_v2021.csv", [{**tit, "SPECIES_CODE": "oldcode"}, raven])
    collections.table("plain/ebird_taxonomy_v2023.csv", [{**tit, "SPECIES_CODE": "gretit1"}, raven])
    report = collect([root, collections.parent / "plain"], out)
    assert labels(out) == {"XC1": "gretit1", "XC2": "kept", "3": "kept"}
    assert report.renamed == {"oldcode": "gretit1", "Common Raven": "kept"}
    rows = rows_by_id(out)
    assert rows.loc["XC2", "secondary_labels"] == ("gretit1", "ghost") and rows.loc["XC1", "secondary_labels"] == ("ghost",)
    assert rows.loc["XC1", "common_name"] == "Great Tit"
    assert (out / "target_species.txt").read_text() == "gretit1\nkept\n" and (out / "taxonomy.csv").is_file()


def test_soundscapes_of_2026_come_along(collections: Any, out: Path) -> None:
    root = collections.year_2023("d", {"a": [1], "b": [2]})
    collections.audio("d/train_soundscapes/s1.wav", duration_s=10)
    row = {"filename": "s1.wav", "start": "00:00:05", "end": "00:00:10", "primary_label": "a;b"}
    collections.table("d/train_soundscapes_labels.csv", [row, row])
    report = collect([root], out)
    soundscapes = load_soundscapes(out)
    assert soundscapes is not None and list(soundscapes.windows["labels"]) == [("a", "b")]
    assert [finding.kind for finding in report.findings] == ["window_repeated"] and report.exit_code == 0


def test_soundscapes_of_a_second_source_are_said(collections: Any, out: Path) -> None:
    roots = [collections.year_2023(name, {"a": [number]}) for number, name in enumerate(("d", "e"))]
    for root in roots:
        collections.audio(f"{root.name}/train_soundscapes/s1.wav", duration_s=10)
        collections.table(f"{root.name}/train_soundscapes_labels.csv", [{"row_id": "s1_5", "labels": "a"}])
    (finding,) = collect(roots, out).findings
    assert finding.kind == "more_soundscapes" and finding.examples == (f"{roots[1]}/train_soundscapes_labels.csv",)


@pytest.mark.parametrize("content", ["", "foo,bar\n1,2\n"])
def test_a_taxonomy_that_cannot_be_used_is_refused(collections: Any, out: Path, content: str) -> None:
    root = collections.year_2023("d", {"a": [1]})
    (root / "taxonomy.csv").write_text(content)
    with pytest.raises(DataError, match=r"taxonomy\.csv"):
        collect([root], out)


@pytest.mark.parametrize("mode", ["reference", "copy"])
def test_labelled_soundscapes_come_along(collections: Any, out: Path, mode: Any) -> None:
    root = collections.year_2023("d", {"old": [1], "b": [2]}, scientific_name="")
    table = pd.read_csv(root / "train_metadata.csv").assign(scientific_name=["Parus major", "Corvus corax"])
    table.to_csv(root / "train_metadata.csv", index=False)
    collections.table("d/taxonomy.csv", [{"primary_label": "gretit1", "scientific_name": "Parus major"}])
    collections.audio("d/train_soundscapes/s1.wav", duration_s=10)
    labels = [{"row_id": "s1_5", "labels": "old b"}, {"row_id": "s1_10", "labels": ""}]
    collections.table("d/train_soundscapes_labels.csv", labels)
    for _ in range(2):
        collect([root], out, mode=mode)
    soundscapes = load_soundscapes(out)
    assert soundscapes is not None and list(soundscapes.windows["labels"]) == [("gretit1", "b"), ()]
    assert (out / "train_soundscapes").is_symlink() == (mode == "reference")


def test_a_second_run_looks_only_at_what_changed(collections: Any, out: Path) -> None:
    root = collections.year_2023("d", {"a": range(20)})
    assert collect([root], out).num_probed == 20
    before = (out / "manifest.parquet").read_bytes()
    assert collect([root], out).num_probed == 0
    assert (out / "manifest.parquet").read_bytes() == before
    soundfile.write(root / "train_audio/a/XC3.ogg", collections.tone(3, 0.5), 8000)
    os.utime(root / "train_audio/a/XC4.ogg", ns=(1, 1))
    report = collect([root], out)
    assert report.num_probed == 2 and rows_by_id(out).loc["XC3", "duration_s"] == 0.5


def test_an_interrupted_run_goes_on(collections: Any, out: Path) -> None:
    root = collections.year_2023("d", {"a": range(40)})

    def interrupt(done: int, total: int) -> None:
        if done >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect([root], out, threads=1, progress=interrupt)
    assert not (out / "manifest.parquet").exists()
    seen: list[tuple[int, int]] = []
    report = collect([root], out, progress=lambda done, total: seen.append((done, total)))
    assert report.num_probed == 24 and report.num_recordings == 40
    assert seen[0][0] > 16 and seen[-1] == (40, 40)


@pytest.mark.parametrize("mode", ["link", "copy"])
def test_links_and_copies_make_a_folder_that_can_be_moved(collections: Any, out: Path, mode: Any) -> None:
    root = collections.year_2023("d", {"a": range(6), "b": range(10, 16)})
    collections.audio("d/background_noise/rain/n.wav")
    collect([root], out, mode=mode)
    placed = out / "train_audio/a/XC0.ogg"
    assert (placed.stat().st_nlink == 2) == (mode == "link")
    moved = out.rename(out.with_name("moved"))
    dataset = load_dataset(moved)
    assert dataset.fingerprint == load_dataset(root).fingerprint
    assert dataset.recordings["path"][0] == "train_audio/a/XC0.ogg" and dataset.noise["path"][0] == "background_noise/rain/n.wav"
    placed = moved / "train_audio/a/XC0.ogg"
    was = placed.stat().st_mtime_ns, placed.stat().st_ino
    collect([root], moved, mode=mode)
    assert (placed.stat().st_mtime_ns, placed.stat().st_ino) == was


def test_the_collection_may_lie_among_its_sources(collections: Any) -> None:
    """What was collected is no source: a second run finds the same."""
    collections.year_2023("all/d", {"a": [1]})
    collections.audio("plain/b/2.wav")
    for root in (collections.parent / "all", collections.parent / "plain"):
        found = [collect([root], root / "collected", mode="link").num_recordings for _ in range(2)]
        assert found == [1, 1] and len(labels(root / "collected")) == 1


def test_audio_that_changed_after_collecting_is_read_again(collections: Any, out: Path) -> None:
    root = collections.year_2023("d", {"a": range(40), "b": range(50, 60)})
    collect([root], out)
    soundfile.write(root / "train_audio/a/XC3.ogg", collections.tone(3, 0.7), 8000)
    (root / "train_audio/a/XC5.ogg").unlink()
    dataset = load_dataset(out)
    assert dataset.recordings.set_index("recording_id").loc["XC3", "duration_s"] == 0.7
    assert dataset.findings[0].examples == (f"{root}/train_audio/a/XC5.ogg: cannot be read: No such file or directory",)


def test_wrong_input(collections: Any, out: Path) -> None:
    with pytest.raises(InputError, match="mode must be one of"):
        collect([collections.year_2023("d", {"a": [1]})], out, mode="move")  # type: ignore[arg-type]
    collections.audio("loose/1.wav", "noise/2.wav")
    with pytest.raises(DataError, match="1 files that no table or folder labels, and 0 rows"):
        collect([collections.parent / "loose"], out)
    with pytest.raises(DataError, match=r"must hold recordings, but .*noise has none"):
        collect([collections.parent / "noise"], out)
    with pytest.raises(DataError, match=r"0 files .* and 1 rows without audio"):
        collect([collections.table("t/train.csv", [{"id": 1, "primary_label": "a"}]), collections.parent / "noise"], out)
    collect([collections.parent / "d"], out)
    with pytest.raises(DataError, match="is a collection already"):
        collect([out], out)


def test_real_originals(tmp_path: Path, out: Path) -> None:
    """mp3, 22.05 kHz wav, 64-bit float wav, flac and stereo, as they came, in folders of species."""
    for index, path in enumerate(sorted(ORIGINALS.glob("*.*"))):
        if path.suffix != ".csv":
            (tmp_path / f"d/species{index % 2}").mkdir(parents=True, exist_ok=True)
            (tmp_path / f"d/species{index % 2}" / path.name).symlink_to(path)
    report = collect([tmp_path / "d"], out)
    rows = rows_by_id(out)
    assert report.num_recordings == 9 and set(rows["format"]) == {"WAV", "MP3", "FLAC"}
    assert rows.loc["rooster", ["sample_rate_hz", "channels"]].tolist() == [44100, 2]
