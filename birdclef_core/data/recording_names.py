"""What the name of an audio file says about the recording in it."""

import re

import pandas as pd

_XENO_CANTO = re.compile(r"^XC(\d+)(?: - .*)?(?:\.\w+)?$")


def xeno_canto_ids(names: pd.Series) -> pd.Series:
    """Return the Xeno-canto number of each file name or path, as text; NaN where the name has none.

    `XC123.ogg` and Xeno-canto's own `XC123 - Great Tit - Parus major.mp3` have one; `XC123_part2.ogg` is a piece of a recording,
    not the recording, and has none.
    """
    return names.str.rsplit("/", n=1).str[-1].str.extract(_XENO_CANTO)[0]


def xeno_canto_id(name: str) -> str | None:
    """Return the Xeno-canto number of one file name or path, as `xeno_canto_ids` does."""
    found = _XENO_CANTO.match(name.rsplit("/", 1)[-1])
    return found[1] if found else None


def unique_ids(paths: pd.Series) -> pd.Series:
    """Return file names without extension; where several files share one, all but the first of them get -2, -3, ..."""
    stems = paths.str.rsplit("/", n=1).str[-1].str.rsplit(".", n=1).str[0]
    taken: set[str] = set(stems)
    ids = stems.copy()
    for row in stems.index[stems.duplicated()]:
        number = 2
        while f"{stems[row]}-{number}" in taken:
            number += 1
        ids[row] = f"{stems[row]}-{number}"
        taken.add(ids[row])
    return ids
