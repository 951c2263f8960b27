import os
from pathlib import Path
from typing import Any

import pytest

from birdclef_core.errors import DataError
from birdclef_core.inventory.source_tables import find_tables, has_table

ROW = {"primary_label": "a", "filename": "a/1.wav"}


def test_one_table_counts_and_the_others_are_said(collections: Any) -> None:
    collections.table("d/train.csv", [ROW])
    collections.table("d/more.csv", [ROW])
    collections.table("d/notes.csv", [{"x": 1}])
    (collections.parent / "d/metadata.json").write_text("{}")
    for name in ("taxonomy.csv", "sample_submission.csv", "train_soundscapes_labels.csv", "label_conflicts.csv", "check.csv"):
        collections.table(f"d/{name}", [{"x": 1}])
    tables = find_tables(collections.parent / "d")
    assert tables.used == collections.parent / "d/train.csv" and tables.more == (collections.parent / "d/more.csv",)
    assert {path.name for path in tables.unusable} == {"notes.csv", "metadata.json"}
    second, unread = tables.findings(any_audio=True)
    assert (second.kind, second.count, second.level) == ("second_table", 1, "note")
    assert (unread.kind, unread.count, unread.level) == ("table_not_read", 2, "note")


@pytest.mark.parametrize("name", ["train.csv", "my.csv", "mine.tsv", "MINE.CSV"])
def test_any_name_will_do(collections: Any, name: str) -> None:
    collections.table(f"d/{name}", [ROW])
    tables = find_tables(collections.parent / "d")
    assert tables.used == collections.parent / "d" / name and tables.findings(any_audio=True) == ()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("train.csv", b"", "is empty"),
        ("mine.csv", b"primary_label,filename\na,b,c\n", "line 2 has 3"),
        ("meta.tsv", "primary_label\tfilename\né\tb\n".encode("latin-1"), "Windows-1252"),
        ("train.csv", b"species,file\na,b\n", "lacks columns"),
    ],
)
def test_a_table_that_cannot_be_used_is_no_reason_to_go_by_folders(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        find_tables(tmp_path)
    assert has_table(tmp_path)


def test_a_pipe_called_train_csv_does_not_wait_for_ever(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train.csv")
    with pytest.raises(DataError, match="a pipe"):
        find_tables(tmp_path)


def test_tables_in_other_formats_lose_what_they_say(tmp_path: Path) -> None:
    assert not has_table(tmp_path) and find_tables(tmp_path).findings(any_audio=True) == ()
    (tmp_path / "metadata.xlsx").write_bytes(b"PK\x03\x04")
    (finding,) = find_tables(tmp_path).findings(any_audio=True)
    assert finding.level == "loses" and "save it as CSV" in finding.examples[0] and "Authors" in finding.meaning
    assert find_tables(tmp_path).findings(any_audio=False) == ()
