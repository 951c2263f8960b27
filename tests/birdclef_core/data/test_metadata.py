from pathlib import Path

import pytest

from birdclef_core.data.metadata import describes_recordings, metadata_path, read_metadata
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
    assert table["rating"].fillna(-1).tolist() == [5.0, 3.5, 0.0, -1]
    assert list(table["author"]) == ["ann", "bob", "", ""]
    assert table["latitude"][0] == 1.5 and table["longitude"][0] == -2


@pytest.mark.parametrize(
    ("header", "first", "rating"),
    [
        ("primary_label,rating,filename,collection", "a,0.0,a/XC1.ogg,XC", -1),
        ("primary_label,rating,filename,class_name", "a,0.0,a/XC1.ogg,Aves", -1),
        ("primary_label,rating,filename,inat_taxon_id", "a,0.0,a/XC1.ogg,9083", -1),
        ("primary_label,rating,filename,license", "a,0.0,a/iNat1.ogg,x", -1),
        ("primary_label,rating,filename,license", "a,0.0,CSA1.ogg,x", -1),
        ("primary_label,rating,filename,license", "a,0.0,a/XC1.ogg,x", 0),
        ("primary_label,rating,filename,license", "a,0.0,a/iNative.ogg,x", 0),
    ],
    ids=["collection", "class", "taxon", "a file of iNaturalist", "a file of the CSA", "2023", "a name like it"],
)
def test_a_rating_of_zero_is_none_where_collections_without_ratings_are(
    tmp_path: Path, header: str, first: str, rating: float
) -> None:
    """Since 2025; in 2023 it was the lowest."""
    second = first.replace("0.0", "4.5").replace("iNat1", "XC2").replace("CSA1", "XC2")
    table = read_metadata(write(tmp_path, f"{header}\n{first}\n{second}\n")).table
    assert table["rating"].fillna(-1).tolist() == [rating, 4.5]


def test_a_quality_counts_where_zero_is_no_rating(tmp_path: Path) -> None:
    text = "primary_label,rating,q,filename,collection\na,0,B,1.ogg,XC\na,0,no score,2.ogg,XC\na,0,,3.ogg,iNat\n"
    assert read_metadata(write(tmp_path, text)).table["rating"].fillna(-1).tolist() == [4.0, 0.0, -1]


def test_nobody_is_no_author_and_days_are_read(tmp_path: Path) -> None:
    rows = ["Ann,2020-05-01", "Unknown,2020/05/02 06:30", "n/a,1950-00-00", "?,2020-13-01", ",", "Bob,May 2020"]
    text = "primary_label,filename,author,date\n" + "".join(f"a,{row}.ogg,{values}\n" for row, values in enumerate(rows))
    table = read_metadata(write(tmp_path, text)).table
    assert table["author"].tolist() == ["Ann", "", "", "", "", "Bob"]
    assert table["date"].tolist() == ["2020-05-01", "2020-05-02", "", "", "", ""]
    assert table["year"].fillna(0).tolist() == [2020, 2020, 1950, 2020, 0, 0]


def test_numeric_species_codes_stay_text(tmp_path: Path) -> None:
    """BirdCLEF 2025 has codes such as 21211 and file names with leading zeros must keep them."""
    table = read_metadata(write(tmp_path, "primary_label,filename\n21211,007.ogg\n")).table
    assert list(table["primary_label"]) == ["21211"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("label,filename\na,b\n", "columns primary_label, but has label, filename"),
        ("primary_label,rating\na,3\n", r"filename \(or id\)"),
        ("primary_label,filename\na,\n", "1 row has none, the first in line 2"),
        ("primary_label,filename\n", "has no rows"),
        ("primary_label,filename,secondary_labels\na,b,[c\n", "line 2"),
        ("primary_label,filename,rating\na,b,7\n", "0 <= rating <= 5 must hold, but line 2 .* has 7"),
        ("primary_label,filename\n  ,b\na,b\n", "must have a primary_label, but 1 row has none, the first in line 2"),
        ("primary_label,filename\na\n", "line 2 has 1"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_metadata(write(tmp_path, text))


def test_xeno_cantos_own_columns(tmp_path: Path) -> None:
    """It has no codes: species are called by their scientific names, as its list of background species does."""
    metadata = read_metadata(
        write(
            tmp_path,
            "id,gen,sp,ssp,en,rec,lat,lon,q,date,also,file-name\n"
            "9,Parus,major,,Great Tit,ann,50.5,7.25,A,2020-05-01,\"['Turdus merula', '']\",XC9 - Great Tit - Parus major.mp3\n"
            "10,Turdus,merula,,Blackbird,,,,no score,2019-00-00,,XC10 - Blackbird - Turdus merula.mp3\n",
        )
    )
    table = metadata.table
    assert list(table["primary_label"]) == ["Parus major", "Turdus merula"] == list(table["scientific_name"])
    assert list(table["secondary_labels"]) == [("Turdus merula",), ()] and list(table["author"]) == ["ann", ""]
    assert list(table["filename"]) == ["XC9 - Great Tit - Parus major.mp3", "XC10 - Blackbird - Turdus merula.mp3"]
    assert list(table["rating"]) == [5.0, 0.0] and table["longitude"][0] == 7.25 and table["year"][1] == 2019
    assert metadata.findings == () and describes_recordings(tmp_path / "train.csv")


def test_words_in_place_of_numbers_are_counted(tmp_path: Path) -> None:
    text = "primary_label,filename,rating,q,latitude\na,1,good,B,north\na,2,poor,,1.5\na,3,4.5,,\na,4,,,\n"
    metadata = read_metadata(write(tmp_path, text))
    assert metadata.table["rating"].fillna(-1).tolist() == [4.0, -1, 4.5, -1]
    assert [(finding.kind, finding.count, finding.level) for finding in metadata.findings] == [
        ("rating_not_number", 2, "loses"),
        ("latitude_not_number", 1, "note"),
    ]
    assert metadata.findings[0].examples == ("'good' in line 2", "'poor' in line 3")


def test_excel_in_german(tmp_path: Path) -> None:
    text = "primary_label;filename;rating;latitude;secondary_labels\na;1.ogg;3,5;50,25;['b', 'c']\n"
    table = read_metadata(write(tmp_path, text)).table
    assert table.loc[0, ["rating", "latitude"]].tolist() == [3.5, 50.25] and table["secondary_labels"][0] == ("b", "c")


def test_one_species_in_two_spellings_of_unicode(tmp_path: Path) -> None:
    composed, apart = "m\u00f6nch", "mo\u0308nch"
    text = f"primary_label,filename,secondary_labels\n{composed},1,[]\n{apart},2,['{composed}']\na,3,['{apart}']\n"
    table = read_metadata(write(tmp_path, text)).table
    assert list(table["primary_label"]) == [composed, composed, "a"]
    assert list(table["secondary_labels"]) == [(), (), (composed,)]


def test_missing_folder_and_metadata(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not"):
        metadata_path(tmp_path / "nowhere")
    (tmp_path / "other.txt").touch()
    with pytest.raises(DataError, match=r"holds other\.txt"):
        metadata_path(tmp_path)
