"""Times and sizes are read at a glance and written as people write them."""

import pytest

from sweeps.wording import bytes_text, cost_text, format_duration, parse_bytes


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05"), (65, "1:05"), (3725, "1:02:05")])
def test_durations_are_read_at_a_glance(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.62, "0.6 s"), (59.9, "59.9 s"), (59.99, "1:00"), (3725, "1:02:05")])
def test_what_took_less_than_a_minute_has_tenths(seconds, text):
    assert cost_text(seconds) == text


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
