"""Names of authors as people write them: which are the same, and which stand for nobody."""

import re
import unicodedata

import pandas as pd

_NOBODY = frozenset(
    {
        *("", "unknown", "unknownauthor", "unknownrecordist", "authorunknown", "noauthor", "noname", "nobody", "unnamed"),
        *("anonymous", "anonym", "anonyme", "anonymus", "anon", "unbekannt", "inconnu", "desconocido"),
        *(
            "na",
            "nan",
            "none",
            "null",
            "nil",
            "notavailable",
            "notapplicable",
            "notgiven",
            "notspecified",
            "unspecified",
            "undefined",
        ),
        *("various", "variousauthors", "several", "multiple"),
    }
)
"""Names, in the form of `plain_names`, that stand for nobody in particular."""
_BESIDE_LETTERS = re.compile(r"[\W_]+")


def plain_names(authors: pd.Series) -> pd.Series:
    """Return each name without what people write in several ways: letters' case, accents' form, blanks and punctuation.

    Names that stand for nobody, such as "Unknown" or "n/a", become "".
    """
    plain = {name: _plain(name) for name in authors.unique()}
    return authors.map({name: "" if short in _NOBODY else short for name, short in plain.items()})


def without_nobody(authors: pd.Series) -> pd.Series:
    """Return the names as they are written, and "" for those that stand for nobody."""
    return authors.where(plain_names(authors) != "", "")


def _plain(name: str) -> str:
    return _BESIDE_LETTERS.sub("", unicodedata.normalize("NFKC", name).casefold())
