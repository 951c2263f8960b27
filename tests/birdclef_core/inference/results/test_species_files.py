"""Files of species and thresholds are read completely or refused with the line."""

import pytest

from birdclef_core.errors import InputError
from birdclef_core.inference.results.species_files import read_species, read_thresholds


def test_species_are_lines_of_text(tmp_path):
    (tmp_path / "list.txt").write_text("\ufeffalpha\n\n# a remark\n beta \nalpha\n", encoding="utf-8")
    assert read_species(tmp_path / "list.txt") == ("alpha", "beta")


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"\xff\xfe\xff"])
def test_a_list_without_species_is_refused(tmp_path, content):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match="--species"):
        read_species(tmp_path / "list.txt")
    with pytest.raises(InputError, match="No such file"):
        read_species(tmp_path / "other.txt")


def test_thresholds_are_a_table_with_other_columns_too(tmp_path):
    (tmp_path / "t.csv").write_text("species,support,threshold\nalpha,12,0.4\nbeta,3,.25\n")
    assert read_thresholds(tmp_path / "t.csv") == {"alpha": 0.4, "beta": 0.25}


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ("alpha,1.2", "line 2 of .* has '1.2'"),
        ("alpha,", "line 2 of .* has ''"),
        ("alpha,nan", "line 2 of .* has 'nan'"),
        ("alpha,.5\nalpha,.6", "line 3 of .* has 'alpha' again"),
    ],
)
def test_a_wrong_threshold_is_refused_with_its_line(tmp_path, rows, problem):
    (tmp_path / "t.csv").write_text(f"species,threshold\n{rows}\n")
    with pytest.raises(InputError, match=problem):
        read_thresholds(tmp_path / "t.csv")


def test_a_table_without_thresholds_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("species,score\nalpha,.5\n")
    with pytest.raises(InputError, match="must have the columns threshold"):
        read_thresholds(tmp_path / "t.csv")
