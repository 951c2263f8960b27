import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from birdclef_core.data.dataset import Dataset, load_dataset
from birdclef_core.errors import DataError
from birdclef_core.inventory.collect import collect
from birdclef_core.inventory.report import render, report, species_table
from birdclef_core.taxonomy import LabelSpace

_VOID = {"meta", "link", "br", "img"}


class Outline(HTMLParser):
    """Checks that every element is closed, and keeps ids and the addresses that elements point to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "section":
            self.ids.append(values["id"] or "")
        self.addresses += [values[name] or "" for name in ("src", "href", "xlink:href") if name in values]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


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
    outline = Outline(text)
    assert outline.ids == ["findings", "species", "times", "lengths", "together", "places", "split", "examples"]
    assert all(re.match(r"#|data:", address) for address in outline.addresses)
    assert not re.search(r"url\((?!#)|@import|fetch\(|XMLHttpRequest", text)
    assert text.count("<svg") == 10 and "data:image/png;base64" in text
    assert "ghost (16 recordings)" in text


def test_pictures_follow_the_theme(text: str) -> None:
    """No text or line keeps a colour or a font of its own."""
    body = text[text.index("<main>") :]
    assert "var(--ink)" in body and "var(--muted)" in body and "DejaVu" not in body
    assert not re.search(r"#(?:101112|707172|d0d1d2|fefefd|1f7a6e|c9762c)", body, flags=re.IGNORECASE)


def test_names_are_text_and_not_html(text: str) -> None:
    assert "<b>Co" not in text and "Tit &amp; &lt;b&gt;Co&lt;/b&gt;" in text


def test_metadata_without_places_dates_and_names(collections: Any, tmp_path: Path) -> None:
    root = collections.year_2023("d", {"a": range(6)})
    (root / "train_audio/a/XC0.ogg").write_bytes(b"")
    text = report(root, tmp_path / "page.html", num_examples=1).read_text()
    Outline(text)
    assert "do not say where" in text and "do not say when" in text and "No recording has secondary labels" in text
    assert "1 × not so: every recording of the metadata has audio that can be opened" in text


@pytest.mark.slow
def test_a_collection_shows_where_recordings_came_from(folder: Path, collections: Any, tmp_path: Path) -> None:
    collections.audio("other/c/1.wav", "other/c/2.wav")
    collect([folder, collections.parent / "other"], tmp_path / "out")
    text = report(tmp_path / "out", tmp_path / "page.html", num_examples=1).read_text()
    assert "<h3>Collections</h3>" in text and "<td>other</td>" in text


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


def test_many_species(tmp_path: Path) -> None:
    """Curves in place of bars, a folded table of all of them, and the rarest by name."""
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
            "is_validation": rng.random(len(labels)) < 0.2,
        }
    )
    recordings.loc[recordings["primary_label"] == "species000", "is_validation"] = False
    noise = pd.DataFrame({"path": [], "group": [], "duration_s": [], "size_bytes": []})
    space = LabelSpace.of("all", codes)
    dataset = Dataset(tmp_path, recordings, noise, space, LabelSpace.of("target", codes[:50]), "0" * 64, ())
    text = render(dataset, pd.DataFrame({"code": [], "scientific_name": [], "common_name": []}), share=0.2, num_examples=2)
    outline = Outline(text)
    assert "rarest" in outline.ids and "findings" not in outline.ids
    assert "All 200 species as a table" in text and "species, 50 of them targets" in text
    num_unscored = 200 - recordings.loc[recordings["is_validation"], "primary_label"].nunique()
    assert "to 1998" in text and f"{num_unscored} species are trained and not scored" in text
    assert "No recording could be decoded" in text and text.count("<image") >= 2
    assert len(text) < 3_000_000
