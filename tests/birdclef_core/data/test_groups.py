"""What keeps recordings on one side: the author, else place and day; and always copies and pieces of a recording."""

from pathlib import Path

import pandas as pd

from birdclef_core.data.groups import BY_AUTHOR, BY_ITSELF, BY_PLACE, Groups, equal_contents, group_recordings


def groups_of(*rows: str, **columns: list) -> Groups:
    """Rows such as `XC1 Ann c1`: id, author and content; `-` is an empty text."""
    table = pd.DataFrame([row.split() for row in rows], columns=["recording_id", "author", "content"]).replace("-", "")
    return group_recordings(table.assign(**columns), table["content"])


def test_an_author_is_a_group_however_written() -> None:
    found = groups_of("a Ann -", "b ANN. -", "c Bob -", "d - -", "e Unknown -")
    assert found.name.tolist() == ["author ann", "author ann", "author bob", "unknown d", "unknown e"]
    assert found.known_by.tolist() == [BY_AUTHOR] * 3 + [BY_ITSELF] * 2
    assert not found.is_everywhere.any()


def test_pieces_and_copies_of_a_recording_are_together() -> None:
    ids = ("XC123", "XC123_part2", "XC123-45", "XC1234", "wind_part1", "wind_part2", "wind", "iNat9-2", "iNat9", "rain", "drops")
    rows = [f"{name} - {'same' if name in ('rain', 'drops') else '-'}" for name in ids]
    found = groups_of(*rows).name.tolist()
    assert found[:4] == ["recording XC123"] * 3 + ["recording XC1234"]
    assert found[4:7] == ["unknown wind"] * 3 and found[7:9] == ["recording iNat9"] * 2
    assert found[9] == found[10] == "unknown drops"


def test_a_copy_joins_two_authors_and_one_without() -> None:
    found = groups_of("a Bob 1", "b Ann 1", "c Bob -", "d - 1", "XC5 Cid -", "XC5_part2 - -")
    assert found.name.tolist() == ["author ann"] * 4 + ["author cid"] * 2
    assert found.known_by.tolist() == [BY_AUTHOR] * 6
    assert found.with_copies((found.name == "x").to_numpy()).sum() == 0
    chosen = pd.Series(range(6)).isin([3]).to_numpy()
    assert found.with_copies(chosen).tolist() == [True, True, False, True, False, False]


def test_a_file_that_many_authors_have_joins_nobody() -> None:
    found = groups_of(*(f"{name} {name} {'empty' if name < 'e' else '-'}" for name in "abcde"), "x a -")
    assert found.name.nunique() == 5
    assert found.is_everywhere.tolist() == [True] * 4 + [False] * 2


def test_without_an_author_place_and_day_count() -> None:
    rows = ("a - -", "b - -", "c - -", "d - -", "e Ann -", "f - -", "g - -")
    places = {"latitude": [50.001, 50.004, 50.001, 51, 10, 0, None], "longitude": [7, 7.001, 7, 7, 7, 0, 7]}
    days = ["2020-05-01", "2020-05-01", "2020-05-02", "", "2020-05-01", "", ""]
    found = groups_of(*rows, **places, date=days)
    expected = ["place 50.00 7.00 2020-05-01"] * 2 + ["place 50.00 7.00 2020-05-02", "place 51.00 7.00", "author ann"]
    assert found.name.tolist() == [*expected, "unknown f", "unknown g"]
    assert found.known_by.tolist() == [BY_PLACE] * 4 + [BY_AUTHOR] + [BY_ITSELF] * 2
    without_days = groups_of(*rows, **places)
    assert without_days.name[0] == without_days.name[2] == "place 50.00 7.00"


def test_a_place_of_most_recordings_is_no_place() -> None:
    """The middle of a country, or the only garden."""
    rows = [f"{name} - -" for name in "abcde"]
    found = groups_of(*rows, latitude=[-0.001, 0.001, -0.001, 8, 8], longitude=[9.0] * 5)
    assert found.known_by.tolist() == [BY_ITSELF] * 3 + [BY_PLACE] * 2
    found = groups_of(*rows[:4], latitude=[-0.001, 0.001, 8, 8], longitude=[9.0] * 4)
    assert found.name.tolist() == ["place 0.00 9.00"] * 2 + ["place 8.00 9.00"] * 2


def test_a_group_keeps_its_name_in_another_order_and_with_more_recordings() -> None:
    rows = ["a Bob 1", "b Ann 1", "XC7 - -", "XC7-2 - -", "c - -"]
    first = groups_of(*rows)
    more = groups_of("z Zoe -", *rows[::-1], "XC7_part3 - -")
    assert more.name.tolist()[1:6] == first.name.tolist()[::-1] and more.name[6] == "recording XC7"


def test_only_files_of_equal_size_and_length_are_read(tmp_path: Path) -> None:
    contents = {"a": b"12", "b": b"12", "c": b"21", "d": b"123", "e": b"12"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    sizes = [len(content) for content in contents.values()]
    table = pd.DataFrame({"path": list(contents), "size_bytes": sizes, "duration_s": [1.0, 1.0, 1.0, 1.0, 2.0]})
    found = equal_contents(tmp_path, table)
    assert found[0] == found[1] != found[2] and "" not in found[:3] and found[3:] == ["", ""]
