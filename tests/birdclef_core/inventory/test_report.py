"""The page about a data folder is complete, says what its data say, and shows any name as text."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pages import HOSTILE, MATHEMATICS, Page

from birdclef_core.data.dataset import Dataset, load_dataset
from birdclef_core.data.recording_folds import divide, is_validation
from birdclef_core.errors import DataError
from birdclef_core.html.theme import PALETTE
from birdclef_core.inventory.check import check, write_check
from birdclef_core.inventory.collect import collect
from birdclef_core.inventory.report import render, report, species_table
from birdclef_core.taxonomy import LabelSpace


@pytest.fixture(scope="module")
def folder(shared_collections: Any) -> Path:
    root = shared_collections.year_2023("d", {"a": range(8), "b": range(20, 28)}, secondary_labels="['a', 'ghost']", latitude=1.5)
    table = pd.read_csv(root / "train_metadata.csv")
    table["longitude"] = np.linspace(-20, 30, len(table))
    table["date"] = [f"{2000 + row}-05-01" for row in range(len(table))]
    table["common_name"] = table["primary_label"].map({"a": "Tit & <b>Co</b>", "b": "Crow"})
    table.to_csv(root / "train_metadata.csv", index=False)
    return root


@pytest.fixture(scope="module")
def text(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return report(folder, tmp_path_factory.mktemp("page") / "new" / "page.html", num_examples=1).read_text()


def test_the_page_is_whole_and_asks_nothing_of_the_network(text: str) -> None:
    page = Page(text).check()
    assert page.sections == [
        "findings",
        "check",
        "species",
        "times",
        "lengths",
        "formats",
        "together",
        "places",
        "split",
        "examples",
    ]
    assert len(page.labels) == 16 and text.count("<svg") == 16 and "data:image/png;base64" in text
    assert "ghost (16 recordings)" in page.text and "No check was found" in page.text
    assert "16 of the recordings have a lower rate" in page.text and "8,000 Hz 16 0.027" in page.text


def test_pictures_follow_the_theme(text: str) -> None:
    """No text or line keeps a colour or a font of its own."""
    body = text[text.index("<main>") :]
    assert "var(--ink)" in body and "var(--muted)" in body and "DejaVu" not in body
    colours = {light for light, _ in PALETTE.values()}
    assert not {colour.lower() for colour in re.findall(r"#[0-9a-fA-F]{6}", body)} & colours


@pytest.mark.slow
def test_names_are_text_and_neither_html_nor_mathematics(collections: Any, tmp_path: Path) -> None:
    """A species, an author and a file may be called anything; a label with two dollar signs once ended the report with a traceback."""
    rows = []
    for number, label in enumerate([HOSTILE, MATHEMATICS, "sp_$a_{b", "d"]):
        for take in range(3):
            filename = f"sp${number}_{{$/XC{number}{take}<b>.ogg"
            collections.audio(f"d/train_audio/{filename}", pitch=10 * number + take)
            row = {"primary_label": label, "secondary_labels": f"[{MATHEMATICS!r}, 'ghost<i>']", "filename": filename}
            rows.append({**row, "author": f"<b>{take}", "rating": 4, "common_name": MATHEMATICS + HOSTILE, "date": "2020-01-01"})
    collections.table("d/train_metadata.csv", rows)
    (collections.parent / "d/train_audio/sp$0_{$/XC00<b>.ogg").write_bytes(b"")
    page = Page(report(collections.parent / "d", tmp_path / "page.html", num_examples=2).read_text()).check()
    assert "train_audio/sp$0_{$/XC00<b>.ogg: cannot be opened" in page.text, "in a finding"
    assert f"{HOSTILE} {MATHEMATICS}{HOSTILE} 2" in page.text, "in a table"
    assert f"{MATHEMATICS}{HOSTILE} (d)" in page.text, "in a picture"
    assert f"{MATHEMATICS}{HOSTILE} XC" in page.text, "in a heading"
    assert any(label.startswith("waveform and spectrum of XC") and label.endswith("<b>") for label in page.labels)


def test_metadata_without_places_dates_names_authors_and_ratings(collections: Any, tmp_path: Path) -> None:
    root = collections.year_2023("d", {"a": range(8)}, author="", rating="")
    (root / "train_audio/a/XC0.ogg").write_bytes(b"")
    text = Page(report(root, tmp_path / "page.html", num_examples=1).read_text()).check().text
    assert "Recordings without a rating have the full weight: 7 here, which the chart leaves out." in text
    assert "Of 7 recordings neither author nor place are known" in text and "All recordings of an author" not in text
    assert "do not say where" in text and "do not say when" in text and "No recording has secondary labels" in text
    assert "1 recording cannot be used: left out of training and scoring." in text and "train_audio/a/XC0.ogg: cannot be" in text


@pytest.mark.slow
def test_a_collection_shows_where_recordings_came_from(folder: Path, collections: Any, tmp_path: Path) -> None:
    collections.audio("other/c/1.wav", "other/c/2.wav")
    collect([folder, collections.parent / "other"], tmp_path / "out")
    page = Page(report(tmp_path / "out", tmp_path / "page.html", num_examples=1).read_text())
    assert "Collections collection recordings minutes species" in page.text and "other 2 0.0033 1" in page.text


def test_soundscapes_and_the_last_check_are_shown(collections: Any, tmp_path: Path) -> None:
    root = collections.year_2023("d", {"a": range(6), "b": range(10, 16)})
    collections.audio("d/test_soundscapes/s.wav", duration_s=15)
    labels = [{"row_id": "s_5", "labels": "a ghost"}, {"row_id": "s_10", "labels": "a"}, {"row_id": "s_15", "labels": ""}]
    collections.table("d/test_soundscapes_labels.csv", labels)
    write_check(check(root), root)
    page = Page(report(root, tmp_path / "page.html", num_examples=1).read_text()).check()
    assert "3 windows of 5 s in 1 soundscape (0.2 minutes) are labelled" in page.text
    assert "Windows in which nothing is heard: 1." in page.text
    assert "labelled: 2, of which 1 are targets and 1 have no recording" in page.text and "ghost 1 0" in page.text
    assert "decoded 13 files and found what follows." in page.text and "12 audio files last less than 0.5 s" in page.text
    assert page.text.count("outside the label space") == 1, "what loading says is not said again"


def test_a_folder_that_cannot_be_described(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must exist"):
        report(tmp_path / "nowhere", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_the_species_table(folder: Path) -> None:
    dataset = load_dataset(folder)
    names = pd.DataFrame({"code": ["a", "a"], "scientific_name": "", "common_name": ["", "Tit"]})
    table = species_table(dataset, names).set_index("code")
    assert list(table.columns) == ["recordings", "minutes", "validation", "authors", "train", "heard", "common_name"]
    assert table.loc["a", ["recordings", "authors", "heard", "common_name"]].tolist() == [8, 8, 8, "Tit"]
    assert table.loc["a", "minutes"] == pytest.approx(8 * 0.1 / 60)
    assert (table["train"] + table["validation"]).tolist() == [8, 8]
    assert table["validation"].sum() == dataset.recordings["is_validation"].sum()


@pytest.mark.slow
def test_many_species(tmp_path: Path) -> None:
    """There are curves instead of bars, a folded table of all of them, and the rarest by name."""
    rng = np.random.default_rng(0)
    codes = [f"species{number:03}" for number in range(200)]
    labels = codes + list(rng.choice(codes, 5_000, p=np.arange(1, 201) / np.arange(1, 201).sum()))
    recordings = pd.DataFrame(
        {
            "recording_id": [f"XC{row}" for row in range(len(labels))],
            "path": [f"train_audio/{row}.ogg" for row in range(len(labels))],
            "primary_label": labels,
            "secondary_labels": [(codes[row % 7],) if row % 5 == 0 else () for row in range(len(labels))],
            "author": [f"ann {row % 90}" for row in range(len(labels))],
            "rating": rng.choice([0.0, 2.5, 5.0], len(labels)),
            "duration_s": rng.gamma(2, 15, len(labels)) + 0.3,
            "size_bytes": 1,
            "latitude": rng.uniform(-60, 60, len(labels)),
            "longitude": rng.uniform(-170, 170, len(labels)),
            "year": rng.choice([np.nan, *range(1960, 2024)], len(labels)),
        }
    )
    recordings = recordings.join(divide(recordings.assign(date=""), [""] * len(labels), None))
    recordings["is_validation"] = is_validation(recordings, 2)
    noise = pd.DataFrame({"path": [], "group": [], "duration_s": [], "size_bytes": []})
    space = LabelSpace.of("all", codes)
    dataset = Dataset(tmp_path, recordings, noise, space, LabelSpace.of("target", codes[:50]), "0" * 64, ())
    names = pd.DataFrame({"code": [], "scientific_name": [], "common_name": []})
    formats = pd.DataFrame({"sample_rate_hz": 32_000, "channels": 2, "format": "OGG"}, index=range(len(labels)))
    text = render(dataset, names, formats, None, fold=2, num_examples=2)
    page = Page(text).check()
    assert "rarest" in page.sections and "findings" not in page.sections
    assert "All 200 species as a table" in text and "species, 50 of them targets" in text
    num_unscored = 200 - recordings.loc[recordings["is_validation"], "primary_label"].nunique()
    num_never = int((recordings.groupby("primary_label")["author"].nunique() == 1).sum())
    assert "to 1998" in text and num_never > 0
    assert f"{num_unscored - num_never} species are trained here and scored in other folds only" in text
    assert f"{num_never} species are trained in every fold and scored in none" in text
    assert "No recording could be decoded" in text and text.count("<image") >= 2
    assert len(text) < 3_000_000
