"""Recordings of a data set get folds by their groups, and what could not be ensured is said."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from birdclef_core.data.dataset import load_dataset
from birdclef_core.data.recording_folds import divide, how_grouped, is_validation, require_validation, split_findings
from birdclef_core.errors import DataError, InputError


def table_of(*rows: str, **columns: list) -> pd.DataFrame:
    """Rows such as `a XC1 Ann`: species, id and author; `-` is an empty text."""
    table = pd.DataFrame([row.split() for row in rows], columns=["primary_label", "recording_id", "author"]).replace("-", "")
    return table.assign(path=table["recording_id"] + ".ogg", **columns)


def divided(table: pd.DataFrame, content: list[str] | None = None) -> pd.DataFrame:
    return table.join(divide(table, content or [""] * len(table), None))


def said(table: pd.DataFrame, fold: int = 0) -> dict[str, str]:
    species = sorted(set(table["primary_label"]))
    return {finding.kind: finding.summary() for finding in split_findings(table, species, fold)}


def test_a_folder_without_authors_is_grouped_by_place(maker: Any) -> None:
    """Once split by recording, and nobody was told."""
    root = maker.make([*maker.many("a", 4), *maker.many("b", 4), *maker.many("c", 4)])
    table = pd.read_csv(root / "train.csv").drop(columns="author")
    places = [row % 4 for row in range(len(table))]
    table = table.assign(latitude=[40.0 + place for place in places], longitude=[-70.0 + place for place in places])
    table.to_csv(root / "train.csv", index=False)
    dataset = load_dataset(root)
    assert pd.Series(places).groupby(dataset.recordings["fold"]).nunique().tolist() == [1] * 4
    assert dataset.recordings["is_validation"].sum() == 3
    (finding,) = dataset.findings
    assert (finding.kind, finding.count) == ("unknown_author", 12)
    assert "12 recordings without an author are kept together by place, in 4 groups." in finding.meaning


def test_two_authors_who_each_have_a_species_of_their_own(maker: Any) -> None:
    rows = [maker.row(species, f"{species}{author}", author=author) for species in "ab" for author in ("x", "y")]
    root = maker.make([*rows, maker.row("c", "c", author="x"), maker.row("d", "d", author="y")])
    for fold in (0, 1):
        recordings = load_dataset(root, fold=fold).recordings
        assert recordings["is_validation"].sum() == 2 and set(recordings["primary_label"][recordings["is_validation"]]) == {
            "a",
            "b",
        }
        assert set(recordings["primary_label"][~recordings["is_validation"]]) == set("abcd"), "all are trained"
    finding = next(item for item in load_dataset(root).findings if item.kind == "unscorable_species")
    assert finding.examples == ("c", "d")
    assert "trained in every fold and scored in none" in finding.meaning
    assert "authors also have 2 recordings of other species among those that validate" in finding.meaning
    with pytest.raises(DataError, match=r"Fold 2 of .* too few authors to fill 5 folds. Choose --fold 0 or 1"):
        load_dataset(root, fold=2)


def test_equal_files_of_two_authors_are_in_one_fold(maker: Any) -> None:
    root = maker.make(maker.many("a", 12))
    (root / "train_audio/a/a7.wav").write_bytes((root / "train_audio/a/a2.wav").read_bytes())
    recordings = load_dataset(root).recordings
    assert recordings["group"][2] == recordings["group"][7] == "author aa2"
    assert recordings["fold"][2] == recordings["fold"][7] and recordings["group"].nunique() == 11


def test_each_recording_validates_in_one_fold_and_pieces_with_their_recording() -> None:
    rows = [f"{'ab'[number % 2]} {piece} -" for number in range(20) for piece in (f"XC{number}_part1", f"XC{number}_part2")]
    table = divided(table_of(*rows))
    assert sum(is_validation(table, fold).astype(int) for fold in range(5)).tolist() == [1] * 40
    assert table["fold"][::2].tolist() == table["fold"][1::2].tolist()
    assert how_grouped(table).startswith("Of 40 recordings neither author nor place are known: if several")


def test_a_copy_of_a_recording_that_always_trains_does_so_too() -> None:
    """Ann's is the only recording of b; the same file is labelled a as well."""
    rows = ["b own Ann", "a copy Ann", "a a1 Ann", *(f"a x{number} author{number}" for number in range(9))]
    table = divided(table_of(*rows), ["same", "same"] + [""] * 10)
    assert table["always_trains"].tolist() == [True, True] + [False] * 10
    fold = int(table["fold"][2])
    found = said(table, fold)
    assert found["always_trains"].startswith("1 recording trains in every fold although the species is scored: a copy of it")
    assert found["unscorable_species"].startswith("1 species has recordings of one author only: ")


def test_a_file_that_many_authors_have_is_never_scored() -> None:
    rows = [f"a {kind}{number} author{number}" for kind in ("empty", "own") for number in range(8)]
    table = divided(table_of(*rows), ["silence"] * 8 + [""] * 8)
    assert table["always_trains"].tolist() == [True] * 8 + [False] * 8 and table["group"].nunique() == 8


def test_what_is_no_species_does_not_count() -> None:
    table = divided(table_of(*(f"a a{number} author{number}" for number in range(10)), "nocall n author0"))
    assert not table["always_trains"].any() and table["fold"][10] == table["fold"][0]


def test_species_of_fewer_authors_than_folds_are_scored_elsewhere() -> None:
    table = divided(table_of(*(f"a a{number} author{number}" for number in range(10)), "b b0 author0", "b b1 author1"))
    folds = set(table["fold"][-2:])
    assert len(folds) == 2
    for fold in range(5):
        expected = {} if fold in folds else {"unscored_species": f"1 species has no validation recording in fold {fold}"}
        found = said(table, fold)
        assert {kind: text.partition(":")[0] for kind, text in found.items()} == expected


def test_how_recordings_are_grouped_is_said_as_it_is() -> None:
    one_side = "Equal files, and pieces of one recording by their names, are on one side."
    known = divided(table_of("a a Ann", "a b Bob"))
    assert how_grouped(known) == f"All recordings of an author are on one side. {one_side}"
    lonely = divided(table_of("a a Ann", "a b Bob", "b c Ann"))
    assert how_grouped(lonely) == f"All recordings of an author are on one side, except 1 that trains in every fold. {one_side}"
    mixed = table_of("a a Ann", "a b -", "a c -", "a d -", latitude=[1.0, 2, 3, None], longitude=[4.0] * 4)
    mixed = divided(mixed.assign(date=["", "2020-01-01", "", ""]))
    assert how_grouped(mixed) == (
        "All recordings of an author are on one side where the author is known. 2 recordings without an author are kept together by "
        "place and day, in 2 groups. Of 1 recording neither author nor place is known: if several are by one author, they may be on "
        f"both sides, and scores look better than they are. {one_side}"
    )


def test_nothing_to_validate_on() -> None:
    lonely = divided(table_of("a a Ann", "a b -", "b c Ann", latitude=[None, None, None], longitude=[1, 1, 1]))
    assert not lonely["always_trains"].all()
    with pytest.raises(InputError, match=r"0 <= fold < 5 must hold, but got fold=5"):
        require_validation(Path("data"), lonely, 5)
    with pytest.raises(DataError, match=r"two authors, so that one is put aside for validation, but none in data has\. Add"):
        require_validation(Path("data"), divided(table_of("a a Ann", "b b Bob")), 0)
    with pytest.raises(DataError, match=r"none in data has \(1 recording has no author\)\."):
        require_validation(Path("data"), divided(table_of("a a Ann", "b b -")), 0)
