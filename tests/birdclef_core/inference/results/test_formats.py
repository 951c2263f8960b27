"""What is written for other programs can be read by their rules; where nothing was found there is a table without rows."""

import csv
import os
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from made_up_detector import loudness_detector

from birdclef_core.data.folder_walk import shown
from birdclef_core.errors import InputError
from birdclef_core.inference.results.columns import COLUMNS
from birdclef_core.inference.results.file_logits import FileLogits
from birdclef_core.inference.results.formats import WRITERS, AudioFile, parse_formats, seconds_text
from birdclef_core.inference.results.selection import Selection

START_W = np.array([0, 160_000, 54_000 * 32_000 + 1])
LOGITS_WC = np.array([[2.0, -2.0, -2.0], [-2.0, 3.0, -2.0], [-2.0, -2.0, 0.5]], dtype=np.float32)
TIMES = [("0.0", "5.0"), ("5.0", "10.0"), ("54000.00003125", "54005.00003125")]


@pytest.fixture
def out(tmp_path):
    """A folder in which two files have been written in all formats: one with three detections, one with none."""
    selector = Selection().for_detector(loudness_detector(f_min_hz=50.0, f_max_hz=14_000.0))
    logits = FileLogits(START_W, START_W + 160_000, LOGITS_WC, np.zeros((3, 0), np.float32))
    folder = tmp_path / "audio"
    names = ("site 1/a.b.wav", "quiet.wav")
    files = [AudioFile(folder / name, f"audio/{name}", folder, PurePosixPath(name).with_suffix("")) for name in names]
    writers = [make(tmp_path / "out", (50.0, 14_000.0)) for make in open_all(tmp_path / "out")]
    for writer in writers:
        writer.begin(files[0])
        for rows in selector.rows(files[0].label, logits):
            writer.add(rows.iloc[:2])
            writer.add(rows.iloc[2:])
        writer.begin(files[1])
        writer.close()
    return tmp_path / "out"


def open_all(folder: Path):
    folder.mkdir()
    return WRITERS.values()


def test_csv_has_the_fixed_columns_and_exact_times(out):
    with (out / "detections.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert [(row["start_s"], row["end_s"]) for row in rows] == TIMES
    assert rows[0] == {
        "file": "audio/site 1/a.b.wav",
        "start_s": "0.0",
        "end_s": "5.0",
        "species": "alpha",
        "name": "Alpha bird",
        "score": "0.880797",
        "calibrated": "",
        "threshold": "0.5",
        "model_id": "1" * 16,
    }


def test_parquet_has_the_rows_of_the_csv_with_their_types(out):
    table = pd.read_parquet(out / "detections.parquet")
    pd.testing.assert_frame_equal(table, pd.read_csv(out / "detections.csv", dtype=COLUMNS), check_dtype=False)
    kinds = {field.name: str(field.type) for field in pq.read_schema(out / "detections.parquet")}
    assert kinds == {name: {"str": "string", "float64": "double"}[kind] for name, kind in COLUMNS.items()}


def read_raven(path: Path) -> list[dict[str, str]]:
    """As Raven reads a selection table: tabs, a header, whole numbers of selections from 1, boxes in seconds and hertz."""
    header, *lines = path.read_text().splitlines()
    names = header.split("\t")
    assert names[:7] == ["Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"]
    rows = [dict(zip(names, line.split("\t"), strict=True)) for line in lines]
    assert [int(row["Selection"]) for row in rows] == list(range(1, len(rows) + 1))
    for row in rows:
        assert float(row["Begin Time (s)"]) < float(row["End Time (s)"])
        assert 0 <= float(row["Low Freq (Hz)"]) < float(row["High Freq (Hz)"])
    return rows


def test_raven_has_a_selection_table_for_each_file(out):
    rows = read_raven(out / "raven" / "site 1" / "a.b.selections.txt")
    assert [(row["Begin Time (s)"], row["End Time (s)"]) for row in rows] == TIMES
    assert rows[1]["Species"] == "beta" and rows[0]["Common Name"] == "Alpha bird"
    assert (rows[0]["Low Freq (Hz)"], rows[0]["High Freq (Hz)"]) == ("50.0", "14000.0")
    assert rows[0]["Begin Path"] == str(out.parent / "audio" / "site 1" / "a.b.wav")
    assert read_raven(out / "raven" / "quiet.selections.txt") == []


def test_audacity_has_a_label_track_for_each_file(out):
    labels = [line.split("\t") for line in (out / "audacity" / "site 1" / "a.b.txt").read_text().splitlines()]
    assert [tuple(label[:2]) for label in labels] == TIMES
    assert [label[2] for label in labels] == ["Alpha bird 0.881", "beta 0.953", "gamma 0.622"]
    assert (out / "audacity" / "quiet.txt").read_text() == ""


def test_kaleidoscope_finds_the_file_of_each_row(out):
    with (out / "kaleidoscope.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["INDIR"]) / row["FOLDER"] / row["IN FILE"] for row in rows] == [out.parent / "audio/site 1/a.b.wav"] * 3
    assert [(row["OFFSET"], row["DURATION"]) for row in rows] == [(start, "5.0") for start, _ in TIMES]
    assert (rows[0]["TOP1MATCH"], rows[0]["SPECIES"], rows[0]["MANUAL ID"]) == ("Alpha bird", "alpha", "")
    assert float(rows[0]["TOP1DIST"]) == pytest.approx(1 - float(rows[0]["SCORE"]))


def test_where_nothing_is_found_there_are_tables_without_rows(tmp_path):
    for make in open_all(tmp_path / "out"):
        make(tmp_path / "out", (0.0, 1.0)).close()
    assert len(pd.read_csv(tmp_path / "out" / "detections.csv")) == 0
    assert list(pd.read_csv(tmp_path / "out" / "detections.csv")) == list(COLUMNS)
    assert list(pd.read_parquet(tmp_path / "out" / "detections.parquet")) == list(COLUMNS)
    assert (tmp_path / "out" / "kaleidoscope.csv").read_text().count("\n") == 1


def test_tables_appear_only_when_they_are_complete(tmp_path):
    writers = [make(tmp_path / "out", (0.0, 1.0)) for make in open_all(tmp_path / "out")]
    audio = AudioFile(tmp_path / "a.wav", "a.wav", tmp_path, PurePosixPath("a"))
    for writer in writers:
        writer.begin(audio)
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file() and not path.name.startswith(".")] == []
    for writer in writers:
        writer.close()
    assert [path.name for path in (tmp_path / "out").rglob(".*")] == []


def test_names_with_tabs_and_line_breaks_stay_in_their_cell(tmp_path):
    rows = pd.DataFrame({"file": "a", "start_s": [0.0], "end_s": [5.0], "species": "a\tb", "name": "Big\nbird", "score": 0.5})
    for name in ("raven", "audacity"):
        writer = WRITERS[name](tmp_path, (0.0, 1.0))
        writer.begin(AudioFile(tmp_path / "a.wav", "a", tmp_path, PurePosixPath("a")))
        writer.add(rows)
        writer.close()
    assert read_raven(tmp_path / "raven" / "a.selections.txt")[0]["Species"] == "a b"
    assert (tmp_path / "audacity" / "a.txt").read_text() == "0.0\t5.0\tBig bird 0.500\n"


@pytest.mark.parametrize(
    ("sample", "text"), [(0, "0.0"), (1, "0.00003125"), (32_000 * 54_000 + 31_999, "54000.99996875"), (16_000, "0.5")]
)
def test_a_time_is_the_exact_decimal_of_its_sample(sample, text):
    assert seconds_text(sample / 32_000) == text


def test_formats_are_named_with_commas():
    assert parse_formats("raven, csv,raven") == ("raven", "csv")
    with pytest.raises(InputError, match="--format takes csv, parquet, raven, audacity, kaleidoscope"):
        parse_formats("csv,xls")


@pytest.mark.parametrize(
    ("name", "written"), [("a  b.wav", "a  b.wav"), ("a\tb\n.wav", "a b .wav"), (os.fsdecode(b"caf\xe9.wav"), "caf\\xe9.wav")]
)
def test_odd_names_of_files_stay_on_one_line_and_are_written_as_text(tmp_path, name, written):
    """Two blanks stay two, or Raven would not find the file; bytes that are no text ended the whole run."""
    selector = Selection().for_detector(loudness_detector())
    logits = FileLogits(START_W[:1], START_W[:1] + 160_000, LOGITS_WC[:1], np.zeros((1, 0), np.float32))
    audio = AudioFile(tmp_path / name, shown(name), tmp_path, PurePosixPath("table"))
    for make in WRITERS.values():
        writer = make(tmp_path / "out", (50.0, 14_000.0))
        writer.begin(audio)
        for rows in selector.rows(audio.label, logits):
            writer.add(rows)
        writer.close()
    (row,) = read_raven(tmp_path / "out" / "raven" / "table.selections.txt")
    assert row["Begin Path"] == str(tmp_path / written)
    with (tmp_path / "out" / "kaleidoscope.csv").open(newline="") as file:
        assert [row["IN FILE"] for row in csv.DictReader(file)] == [shown(name)]
