from pathlib import Path

import pytest

from birdclef_core.data.metadata import metadata_path, read_metadata
from birdclef_core.errors import DataError


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "train.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_complete_metadata_columns(tmp_path: Path) -> None:
    """Its 2023 columns win over the plain ones, the name comes from the id, the rating from q where there is none."""
    path = write(
        tmp_path,
        "id,duration,version,rating,q,primary_label,primary_label_2023,secondary_labels,secondary_labels_2023,rec,lat,lng\n"
        "123,5.0,2023,,A,old,new,\"['x']\",\"['y', 'new']\",ann,1.5,-2\n"
        "124,5.0,2022,3.5,B,old,new,[],[],bob,,\n"
        "125,5.0,2022,,no score,old,new,[],[],,,\n"
        "126,5.0,2022,,,old,new,[],[],,,\n",
    )
    table = read_metadata(path).table
    assert list(table["filename"]) == ["XC123", "XC124", "XC125", "XC126"]
    assert list(table["primary_label"]) == ["new"] * 4
    assert list(table["secondary_labels"]) == [("y",), (), (), ()]
    assert list(table["rating"]) == [5.0, 3.5, 0.0, 3.0]
    assert list(table["author"]) == ["ann", "bob", "", ""]
    assert table["latitude"][0] == 1.5 and table["longitude"][0] == -2


def test_numeric_species_codes_stay_text(tmp_path: Path) -> None:
    """BirdCLEF 2025 has codes such as 21211 and file names with leading zeros must keep them."""
    table = read_metadata(write(tmp_path, "primary_label,filename\n21211,007.ogg\n")).table
    assert list(table["primary_label"]) == ["21211"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("label,filename\na,b\n", "columns primary_label, but has label, filename"),
        ("primary_label,rating\na,3\n", r"filename \(or id\)"),
        ("primary_label,filename\na,\n", "1 have none, the first in line 2"),
        ("primary_label,filename\n", "has no rows"),
        ("primary_label,filename,secondary_labels\na,b,[c\n", "line 2"),
        ("primary_label,filename,rating\na,b,7\n", "0 <= rating <= 5"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_metadata(write(tmp_path, text))


def test_missing_folder_and_metadata(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not"):
        metadata_path(tmp_path / "nowhere")
    (tmp_path / "other.txt").touch()
    with pytest.raises(DataError, match=r"holds other\.txt"):
        metadata_path(tmp_path)
