"""Label spaces are sorted, unique and know what they share."""

import pytest

from birdclef_core.errors import InputError
from birdclef_core.taxonomy import LabelSpace


def test_of_sorts_and_removes_doubles():
    assert LabelSpace.of("all", ["c", "a", "c"]).species == ("a", "c")


def test_columns_in_pairs_shared_species():
    target, everything = LabelSpace.of("target", "bd"), LabelSpace.of("all", "abcd")
    assert target.columns_in(everything) == [(0, 1), (1, 3)]
    assert LabelSpace.of("x", "z").columns_in(everything) == []


def test_the_name_does_not_change_the_fingerprint():
    assert LabelSpace.of("a", "xy").fingerprint == LabelSpace.of("b", "yx").fingerprint
    assert LabelSpace.of("a", "xy").fingerprint != LabelSpace.of("a", "xyz").fingerprint


def test_empty_or_unsorted_spaces_are_refused():
    with pytest.raises(InputError, match="at least one species"):
        LabelSpace("all", ())
    with pytest.raises(InputError, match="sorted order"):
        LabelSpace("all", ("b", "a"))
