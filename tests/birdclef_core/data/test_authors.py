"""One author in several spellings is one, and nobody is none."""

import pandas as pd
import pytest

from birdclef_core.data.authors import plain_names, without_nobody


def test_spellings_of_one_name_are_one() -> None:
    names = pd.Series(["Ann Lee", "ann-lee", "ANN  LEE.", "Ann_Lee", "Anna Lee", "Çelik", "C\u0327elik", "日本", "R2"])
    assert plain_names(names).tolist() == ["annlee"] * 4 + ["annalee", "çelik", "çelik", "日本", "r2"]


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "?",
        "--",
        "unknown",
        "Unknown",
        "UNKNOWN RECORDIST",
        "n/a",
        "N.A.",
        "nan",
        "None",
        "anonymous",
        "[Anonymous]",
        "no author",
    ],
)
def test_nobody_is_no_author(name: str) -> None:
    names = pd.Series([name, "Ann"], index=[7, 3])
    assert plain_names(names).to_dict() == {7: "", 3: "ann"}
    assert without_nobody(names).to_dict() == {7: "", 3: "Ann"}


def test_names_that_only_contain_such_a_word_are_somebody() -> None:
    names = pd.Series(["Nan Goldin", "Anonymous Bosch", "Naná"])
    assert without_nobody(names).tolist() == names.tolist()
