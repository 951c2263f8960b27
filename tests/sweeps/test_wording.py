"""Sizes are read at a glance and written as people write them."""

import pytest

from sweeps.wording import bytes_text, counted, parse_bytes


@pytest.mark.parametrize(("num_bytes", "text"), [(0, "0.0 KiB"), (2**20, "1.0 MiB"), (3 * 2**29, "1.5 GiB"), (2**41, "2.0 TiB")])
def test_sizes_have_the_largest_unit_that_leaves_a_figure(num_bytes, text):
    assert bytes_text(num_bytes) == text


@pytest.mark.parametrize(("text", "num_bytes"), [("7", 7), ("200G", 200 * 2**30), ("1.5m", 3 * 2**19), ("0", 0)])
def test_numbers_of_bytes_may_have_a_unit(text, num_bytes):
    assert parse_bytes(text) == num_bytes


@pytest.mark.parametrize("text", ["", "G", "-1", "nan", "inf", "2X", "1e40T"])
def test_what_is_no_number_of_bytes_is_refused(text):
    with pytest.raises(ValueError):
        parse_bytes(text)


def test_one_thing_is_no_plural():
    assert [counted(number, "more trial") for number in (0, 1, 2)] == ["0 more trials", "1 more trial", "2 more trials"]
