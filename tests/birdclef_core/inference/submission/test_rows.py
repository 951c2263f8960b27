"""Rows and columns are those of the sample, and what a sample must not have is named with its line."""

from pathlib import Path, PurePosixPath

import pytest

from birdclef_core.errors import DataError, InputError
from birdclef_core.inference.results.formats import AudioFile
from birdclef_core.inference.submission.rows import by_stem, read_sample, require_audio, rows_of_audio, stem_of

KNOWN = ("alpha", "beta", "gamma")


def sample(tmp_path, text: str) -> Path:
    path = tmp_path / "sample.csv"
    path.write_text(text, encoding="utf-8")
    return path


def audio(place: str) -> AudioFile:
    return AudioFile(Path(place), place, Path(), PurePosixPath(place).with_suffix(""))


def test_rows_and_columns_stand_as_in_the_sample(tmp_path):
    rows = read_sample(sample(tmp_path, "row_id,gamma,delta,alpha\nb_10,0,0,0\na_b_5,0,0,0\nb_5,0,0,0\n"), KNOWN)
    assert rows.row_ids == ("b_10", "a_b_5", "b_5") and rows.species == ("gamma", "delta", "alpha")
    assert rows.stems == ("b", "a_b", "b") and rows.start_R.tolist() == [160_000, 0, 0]
    assert {stem: place.tolist() for stem, place in rows.by_stem.items()} == {"b": [0, 2], "a_b": [1]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("row_id,alpha\na_5,0\na_5,0\n", "lines 2 and 3 have 'a_5'"),
        ("row_id,alpha\na_5,0\na_05,0\n", "lines 2 and 3 have 'a_05'"),
        ("row_id,alpha\na_5,0\na_7,0\n", "multiple of 5, but line 3 of .* has 'a_7'"),
        ("row_id,alpha\na_0,0\n", "has 'a_0'"),
        ("row_id,alpha\na,0\n", "has 'a'"),
        ("row_id,alpha\na_-5,0\n", "has 'a_-5'"),
        ("row_id,alpha\na_5.0,0\n", "has 'a_5.0'"),
        ("alpha,row_id\n0,a_5\n", "must be row_id and then species, but are alpha, row_id"),
        ("row_id\na_5\n", "row_id and then species"),
        ("row_id,alpha,alpha\na_5,0,0\n", "alpha several times"),
        ("row_id,delta\na_5,0\n", "must be a species of the model, but none is: it has delta, and the model knows alpha, beta"),
        ("row_id,alpha\n", "has no rows"),
    ],
)
def test_a_sample_that_is_none_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_sample(sample(tmp_path, text), KNOWN)


def test_rows_of_audio_are_those_of_its_windows():
    rows = rows_of_audio({"b": 2, "none": 0, "a": 1}, KNOWN)
    assert rows.row_ids == ("b_5", "b_10", "a_5") and rows.species == KNOWN


def test_a_stem_is_a_name_without_its_extension_and_accents_are_composed(tmp_path):
    assert stem_of(audio("in/2021.05.01.OGG")) == "2021.05.01"
    assert stem_of(audio("in/no_extension")) == "no_extension"
    rows = read_sample(sample(tmp_path, "row_id,alpha\ne\u0301toile_5,0\n"), KNOWN)
    assert list(by_stem([audio("\u00e9toile.wav")])) == list(rows.by_stem)
    assert rows.row_ids == ("e\u0301toile_5",), "written as the sample has it"


def test_two_files_of_one_name_are_refused():
    with pytest.raises(InputError, match=r"in/a\.ogg and more/a\.wav have the same"):
        by_stem([audio("in/a.ogg"), audio("more/a.wav")])


def test_rows_of_files_that_are_not_there_are_counted_and_named():
    rows = rows_of_audio({"a": 2, "b": 3}, KNOWN)
    require_audio(rows, ["a", "b", "c"], Path("in"), Path("sample.csv"))
    with pytest.raises(InputError, match=r"3 of 5 are of 1 files that are not there, such as b\..*--rows audio"):
        require_audio(rows, ["a"], Path("in"), Path("sample.csv"))
