import gzip
import os
from pathlib import Path

import pytest

from birdclef_core.data.tables import column_names, is_there, numbers, read_table, read_text
from birdclef_core.errors import DataError


def write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "table.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        "name,count\nZoë,2\n",
        "name;count\nZoë;2\n",
        "name\tcount\r\nZoë\t2\r\n",
        "name|count\rZoë|2\r",
        "sep=;\nname;count\nZoë;2\n",
        "\n\nname,count\n\nZoë,2\n  \n",
        ' name ,"count"\nZoë,2',
        "\ufeff\ufeffname,\u200bcount\nZoë,2\n",
        "name,count\nZoë,2\n".encode("utf-16"),
        "name,count\nZoë,2\n".encode("utf-32"),
        b"\xfe\xff" + "name,count\nZoë,2\n".encode("utf-16-be"),
    ],
)
def test_delimiters_and_encodings_are_recognised(tmp_path: Path, content: str | bytes) -> None:
    path = write(tmp_path, content)
    assert read_table(path).rows.to_dict("list") == {"name": ["Zoë"], "count": ["2"]}
    assert column_names(path) == ["name", "count"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "must hold a table, but is empty"),
        (b" \n\n", "is empty"),
        (b"a,b\n", "has no rows"),
        (b"a,b\n1,2\n1,2,3\n1\n", r"2 cells as its header has, but line 3 has 3 \(2 such rows in all\).*separated by commas"),
        (b"a;b\n1\n", "line 2 has 1.*separated by semicolons"),
        (b'a,b\n1,2\n"1\n2",3,4\n', "the row from line 3 to line 4.* has 3"),
        (b'a,b\n1,2\n3,"4\n5,6\n', "close every quote, but one in the row that begins in line 3"),
        (b"a,b,a\n1,2,3\n", "name each column once, but has a several times"),
        (
            "a,b\nJosé,2\n".encode("latin-1"),
            r"byte 0xe9 in line 2 is not: it looks like Windows-1252 \(latin-1\), as in 'José'.*iconv",
        ),
        ("a,b\nx,José\n".encode("utf-16-le"), "looks like UTF-16 without a byte order mark"),
        (b"a,b\n\xff\xfe\x01\x02\n", "looks like a binary file"),
        (b"a,b\nab\0c,d\n", "zero byte in line 2"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0), "compressed with gzip"),
        (b"PK\x03\x04....", "Excel workbook"),
        (b"PAR1....", "a Parquet file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html>", "is a web page"),
    ],
)
def test_what_is_no_table_is_refused_with_the_reason(tmp_path: Path, content: bytes, said: str) -> None:
    path = write(tmp_path, content)
    for read in (read_table, column_names):
        with pytest.raises(DataError, match=said) as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_lines_of_rows_are_those_of_the_file(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, 'sep=,\na,b\n\n1,"two\nlines"\n3,4\n'))
    assert [table.line(row) for row in range(2)] == [4, 6] and table.rows["b"][0] == "two\nlines"


def test_words_for_a_missing_value(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\nNA,1\n")
    assert read_table(path).rows["a"][0] == "NA"
    assert read_table(path, missing_words=True).rows["a"].isna().all()


def test_decimal_commas_between_semicolons(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "a;b\n1,5;x\n-2,25;3\n"), dtype=None)
    assert numbers(table, "a").tolist() == [1.5, -2.25] and numbers(table, "b").isna().tolist() == [True, False]
    assert numbers(read_table(write(tmp_path, 'a\n"1,5"\n')), "a").isna().all(), "between commas it may be two thousands"


def test_what_must_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert not is_there(path) and not is_there(tmp_path / "table" / "x")
    path.mkdir()
    with pytest.raises(DataError, match="is a folder"):
        is_there(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="a pipe or a device"):
        read_text(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="a link to something that is not there"):
        is_there(tmp_path / "link")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DataError, match="cannot be reached"):
        is_there(tmp_path / "loop")
    with pytest.raises(DataError, match="does not exist"):
        read_text(tmp_path / "nothing")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path, "a,b\n1,2\n")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"table\.csv cannot be read: Permission denied"):
        read_table(path)
