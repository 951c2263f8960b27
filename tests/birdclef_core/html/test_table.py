"""Cells are shown as people write numbers, and bars are shares of the largest."""

import pytest

from birdclef_core.html.table import Cell, Column, Table, facts


def test_numbers_have_a_decimal_where_it_matters() -> None:
    table = Table("", [Column("number", [1234.4, 10.0, 9.96, 3], is_number=True)])
    assert [cell.text for (cell,) in table.rows()] == ["1,234", "10", "10.0", "3"]


def test_numbers_may_be_written_in_another_way_and_may_be_missing() -> None:
    table = Table("", [Column("time", [90.0, None], is_number=True, shown="{:.0f} s".format)])
    assert [cell for (cell,) in table.rows()] == [Cell("90 s", 90.0), Cell("-")]


def test_bars_are_shares_of_the_largest() -> None:
    bars = Column("bars", [1, 4], is_number=True, has_bars=True)
    assert [row[1].share for row in Table("", [Column("name", "ab"), bars]).rows()] == [0.25, 1.0]
    nothing = Column("bars", [0, 0], is_number=True, has_bars=True)
    assert [cell.share for (cell,) in Table("", [nothing]).rows()] == [0.0, 0.0]
    assert list(Table("", [Column("bars", [], is_number=True, has_bars=True)]).rows()) == []


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        list(Table("", [Column("a", "ab"), Column("b", "a")]).rows())


def test_facts_are_names_and_values() -> None:
    assert list(facts("", {"device": "cpu"}).rows()) == [(Cell("device"), Cell("cpu"))]
