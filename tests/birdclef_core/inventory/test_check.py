import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from birdclef_core.data.dataset import load_dataset
from birdclef_core.inventory.check import CheckReport, check, check_lines, write_check
from birdclef_core.inventory.collect import collect


def kinds(report: CheckReport) -> dict[str, int]:
    return {problem.finding.kind: problem.finding.count for problem in report.problems}


def problem(report: CheckReport, kind: str) -> Any:
    return next(item for item in report.problems if item.finding.kind == kind)


@pytest.fixture
def folder(collections: Any) -> Path:
    """Two species of thirty recordings each, nothing wrong with them but that 0.1 s are short."""
    return collections.year_2023("d", {"a": range(30), "b": range(100, 130)})


def write(folder: Path, name: str, wave: np.ndarray, rate_hz: int = 8_000, **options: Any) -> None:
    soundfile.write(folder / "train_audio" / name, wave, rate_hz, **options)


def test_a_clean_folder(collections: Any) -> None:
    rng = np.random.default_rng(0)
    root = collections.year_2023("d", {"a": range(4)})
    for number in range(4):
        write(root, f"a/XC{number}.ogg", 0.1 * rng.standard_normal(8_000))
    collections.audio("d/background_noise/rain.wav", duration_s=1)
    report = check(root)
    assert report.problems == () and report.exit_code == 0 and report.num_measured == 5
    assert list(report.files["kind"]) == ["recording"] * 4 + ["noise"]
    assert check_lines(report) == []


def test_what_is_wrong_with_files(folder: Path, collections: Any) -> None:
    tone = collections.tone
    write(folder, "a/XC0.ogg", np.zeros(8_000))
    write(folder, "a/XC1.ogg", np.clip(9 * tone(1, 1.0), -1, 1), format="WAV")
    write(folder, "a/XC2.ogg", tone(2, 1.0) + 0.3)
    (folder / "train_audio/a/XC3.ogg").unlink()
    (folder / "train_audio/a/XC4.ogg").write_bytes(b"<html>")
    cut = folder / "train_audio/a/XC5.ogg"
    write(folder, "a/XC5.ogg", np.random.default_rng(0).normal(0, 0.1, 32_000))
    cut.write_bytes(cut.read_bytes()[:-400])
    write(folder, "a/XC6.ogg", np.where(np.arange(8_000) == 9, np.nan, tone(6, 1.0)), format="WAV", subtype="FLOAT")
    collections.audio("d/train_audio/a/loose.ogg", duration_s=1)
    collections.audio("d/background_noise/hiss.ogg", duration_s=1)
    (folder / "background_noise/hiss.ogg").write_bytes(b"")
    report = check(folder)
    found = kinds(report)
    assert found.pop("too_short") == 60 - 7
    assert found.pop("unreadable") == found.pop("wrong_extension") == 2
    once = ("missing", "unlabelled", "truncated", "silent", "clipped", "dc_offset", "not_finite")
    assert found == dict.fromkeys(once, 1)
    assert report.exit_code == 2 and "noise files" in report.refusal
    assert problem(report, "missing").finding.examples == ("a/XC3.ogg: a",)
    by_path = report.files.set_index("path")["problems"]
    assert by_path["train_audio/a/XC1.ogg"] == "clipped wrong_extension" and by_path["a/XC3.ogg"] == "missing"
    (folder / "background_noise/hiss.ogg").unlink()
    report = check(folder)
    assert report.refusal == "" and report.exit_code == 1


def test_the_levels_make_the_exit_code(folder: Path) -> None:
    """Short recordings are worth a note; nothing is lost."""
    report = check(folder)
    assert kinds(report) == {"too_short": 60} and report.exit_code == 0
    (folder / "train_audio/a/XC0.ogg").unlink()
    assert check(folder).exit_code == 1
    report = check(folder, max_bad_share=0.0)
    assert report.exit_code == 2 and "At most 0%" in report.refusal and report.problems[0].finding.kind == "missing"


def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    report = check(tmp_path / "nowhere")
    assert report.exit_code == 2 and "must exist" in report.refusal and len(report.files) == 0
    written = json.loads(write_check(report, tmp_path)[0].read_text())
    assert written["exit_code"] == 2 and written["problems"] == []


def test_the_same_recording_twice(folder: Path, collections: Any) -> None:
    """As another container, as a copy under another label, and on both sides of the split."""
    wave = np.round(collections.tone(7, 1.0) * 32768) / 32768
    (folder / "train_audio/c").mkdir()
    for name in ("a/XC0.ogg", "a/XC1.ogg", "c/copy.ogg"):
        write(folder, name, wave, format="FLAC" if name == "a/XC1.ogg" else "WAV")
    table = pd.read_csv(folder / "train_metadata.csv")
    rows = [{**table.iloc[5], "primary_label": "c", "filename": "c/copy.ogg"}, {**table.iloc[9], "primary_label": "b"}]
    pd.concat([table, pd.DataFrame(rows)]).to_csv(folder / "train_metadata.csv", index=False)
    report = check(folder)
    found = kinds(report)
    assert found["duplicate_with_other_label"] == 1 and found["named_twice"] == 1
    examples = problem(report, "duplicate_with_other_label").finding.examples
    assert examples == ("train_audio/a/XC0.ogg (a) and train_audio/a/XC1.ogg (a) and train_audio/c/copy.ogg (c)",)
    sides = [report_side(folder, f"train_audio/{name}") for name in ("a/XC0.ogg", "a/XC1.ogg", "c/copy.ogg")]
    assert found.get("duplicate_across_split", 0) == (len(set(sides)) > 1)


def report_side(folder: Path, path: str) -> bool:
    recordings = load_dataset(folder).recordings.set_index("path")
    return bool(recordings.loc[path, "is_validation"])


def test_authors_whose_names_differ_in_spelling_are_one(folder: Path) -> None:
    """Sixty spellings of one name leave nothing to validate on; two authors do."""
    table = pd.read_csv(folder / "train_metadata.csv")
    spellings = [f"{'ann-lee' if row % 2 else 'Ann LEE'}{'.' * (row // 2)}" for row in range(len(table))]
    table.assign(author=spellings).to_csv(folder / "train_metadata.csv", index=False)
    report = check(folder)
    assert report.exit_code == 2 and "must have recordings of two authors" in report.refusal
    other = [name if row % 3 else f"Bob{'.' * row}" for row, name in enumerate(spellings)]
    table.assign(author=other).to_csv(folder / "train_metadata.csv", index=False)
    assert check(folder).refusal == ""
    assert load_dataset(folder).recordings["group"].unique().tolist() == ["author bob", "author annlee"]


def test_recordings_without_an_author_are_said_with_what_was_used_instead(folder: Path) -> None:
    table = pd.read_csv(folder / "train_metadata.csv").assign(author="Unknown")
    table.to_csv(folder / "train_metadata.csv", index=False)
    finding = problem(check(folder), "unknown_author").finding
    assert (finding.count, finding.level) == (60, "note")
    assert "neither author nor place are known" in finding.meaning and "may be on both sides" in finding.meaning
    table.assign(latitude=table.index % 6, longitude=9.0).to_csv(folder / "train_metadata.csv", index=False)
    meaning = problem(check(folder), "unknown_author").finding.meaning
    assert "60 recordings without an author are kept together by place, in 6 groups." in meaning
    assert "both sides" not in meaning and "All recordings of an author" not in meaning


def test_labels_and_codes(folder: Path, collections: Any) -> None:
    table = pd.read_csv(folder / "train_metadata.csv")
    table["scientific_name"] = table["primary_label"].map({"a": "Parus major", "b": "Corvus corax"})
    table.loc[0, "secondary_labels"] = "['ghost', 'b']"
    table.loc[59, "primary_label"] = "b2"
    table.loc[59, "filename"] = "b/XC129.ogg"
    table.to_csv(folder / "train_metadata.csv", index=False)
    found = kinds(check(folder))
    assert found["unlearnt_label"] == 1 and found["several_codes"] == 1 and found["unscorable_species"] == 1
    assert "unknown_species" not in found
    collections.table(
        "d/taxonomy.csv", [{"primary_label": "gretit1", "scientific_name": "Parus major", "common_name": "Great Tit"}]
    )
    report = check(folder)
    assert problem(report, "renamed_species").finding.examples == ("a is gretit1 now (30 recordings)",)
    assert problem(report, "unknown_species").finding.examples[0] == "b (30 recordings)"


def test_a_collected_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "train_audio/a/XC3.ogg").unlink()
    collect([folder], tmp_path / "out")
    (folder / "train_audio/a/XC4.ogg").unlink()
    report = check(tmp_path / "out")
    assert problem(report, "missing").finding.examples == ("XC3: a",)
    assert problem(report, "unreadable").paths == (f"{folder}/train_audio/a/XC4.ogg",)
    assert report.num_measured == 59


def test_measurements_are_kept(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = check(folder, store=store)
    assert first.num_measured == 60
    write(folder, "a/XC3.ogg", np.zeros(8_000))
    again = check(folder, store=store)
    assert again.num_measured == 1 and kinds(again)["silent"] == 1
    pd.testing.assert_frame_equal(check(folder).files, again.files, check_dtype=False)


def test_what_is_written(folder: Path, tmp_path: Path) -> None:
    (folder / "train_audio/a/XC3.ogg").unlink()
    report = check(folder)
    json_path, csv_path = write_check(report, tmp_path / "written")
    content = json.loads(json_path.read_text())
    assert content["exit_code"] == 1 and content["num_files"] == 60
    assert [item["kind"] for item in content["problems"]] == ["missing", "too_short"]
    assert {"level", "fault", "count", "meaning", "examples"} <= set(content["problems"][0])
    table = pd.read_csv(csv_path)
    assert table["problems"].str.contains("missing").sum() == 1 and "rms" in table
    assert check_lines(report)[:2] == [
        "loses (missing): 1 row of the metadata has no audio: left out of training and scoring.",
        "    a/XC3.ogg: a",
    ]


def test_whatever_loading_leaves_out_is_said(folder: Path, collections: Any) -> None:
    """Windows beyond the end of a soundscape, words in place of ratings, a second table: loading drops or ignores them."""
    table = pd.read_csv(folder / "train_metadata.csv").astype({"rating": object})
    table.loc[0, "rating"] = "good"
    table.to_csv(folder / "train_metadata.csv", index=False)
    table.to_csv(folder / "train.csv", index=False)
    collections.audio("d/test_soundscapes/s.wav", duration_s=10)
    labels = [{"row_id": row_id, "labels": "a ghost"} for row_id in ("s_5", "s_90", "gone_5")]
    collections.table("d/test_soundscapes_labels.csv", labels)
    report = check(folder)
    found = kinds(report)
    assert {found.pop(name) for name in ("rating_not_number", "second_table", "unscored_label")} == {1}
    assert found == {"too_short": 60, "window_without_audio": 2} and report.exit_code == 1
    said = {finding.kind for finding in load_dataset(folder).findings}
    assert said <= set(kinds(report)), "the check says all that loading says"


def test_labelled_soundscapes_are_decoded(folder: Path, collections: Any) -> None:
    for name in ("silent", "cut", "other"):
        collections.audio(f"d/test_soundscapes/{name}.wav", duration_s=10)
    soundfile.write(folder / "test_soundscapes/silent.wav", np.zeros(80_000), 8_000)
    whole = (folder / "test_soundscapes/cut.wav").read_bytes()
    (folder / "test_soundscapes/cut.wav").write_bytes(whole[: len(whole) * 3 // 4])
    collections.table("d/test_soundscapes_labels.csv", [{"row_id": f"{name}_5", "labels": "a"} for name in ("silent", "cut")])
    report = check(folder)
    assert problem(report, "silent").paths == ("test_soundscapes/silent.wav",)
    assert problem(report, "truncated").paths == ("test_soundscapes/cut.wav",)
    assert (report.files["kind"] == "soundscape").sum() == 2, "those without labels are not decoded"
    (folder / "test_soundscapes/silent.wav").write_bytes(b"junk")
    (folder / "test_soundscapes/cut.wav").unlink()
    report = check(folder)
    assert report.exit_code == 2 and "At least one window" in report.refusal
    assert problem(report, "unreadable").paths == ("test_soundscapes/silent.wav",)
    assert "soundscapes_refused" not in kinds(report), "the refusal says it"
    (folder / "target_species.txt").write_text("ghost\n")
    report = check(folder)
    assert "ghost" in report.refusal and kinds(report)["soundscapes_refused"] == 1, "two reasons to refuse, both said"


def test_a_taxonomy_that_cannot_be_read_is_a_finding(folder: Path) -> None:
    (folder / "taxonomy.csv").write_text("")
    report = check(folder)
    assert problem(report, "taxonomy_not_read").finding.examples[0].endswith("or remove it.") and report.exit_code == 1


def test_a_check_is_written_although_the_target_list_is_empty(folder: Path, tmp_path: Path) -> None:
    (folder / "target_species.txt").write_text("")
    report = check(folder)
    assert report.exit_code == 2 and "target_species.txt" in report.refusal
    assert json.loads(write_check(report, tmp_path / "out")[0].read_text())["refusal"] == report.refusal


def test_paths_are_never_cut(folder: Path) -> None:
    name = "a/" + "very_long_name_" * 12 + ".ogg"
    (folder / "train_audio/a/XC3.ogg").rename(folder / "train_audio" / name)
    assert f"    train_audio/{name}: 0.1 s" in check_lines(check(folder))
