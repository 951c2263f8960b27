"""Species labels as people and programs write them into tables: one label, or a list of labels in a cell."""

import ast
import re
import unicodedata
from collections.abc import Collection, Iterable

import pandas as pd

NOT_SPECIES = frozenset({"soundscape", "nocall"})
"""Labels that name no species (the complete metadata mark soundscapes so)."""

_BLANK_WORDS = frozenset({"nan", "none", "null", "na", "n/a", "<na>", "-", "--"})
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060"  # byte order mark, zero-width characters, direction marks
_WRAPPED = re.compile(r"^(?:\w+\.)?(?:array|Index|list|tuple|set|frozenset)\((.*?)(?:,\s*dtype=[^()]*)?\)$", re.DOTALL)
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_TOKEN = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,;|'"\[\](){}]+""", re.DOTALL)
_SEPARATORS = " \t\r\n,;|"


def clean_text(text: str) -> str:
    """Return `text` without blanks and invisible characters at its ends."""
    return text.strip().strip(_INVISIBLE).strip()


def parse_labels(text: str) -> tuple[str, ...]:
    """Return the labels of a cell: unique, without empty ones, in order.

    A cell may be a Python or JSON list (`['a', 'b']`), a list as numpy prints it (`['a' 'b']`), or labels with blanks, commas,
    semicolons or bars between them. Words for a missing value, such as nan, are no labels. Raises ValueError for a list that is
    not complete.
    """
    inner = clean_text(text)
    if wrapped := _WRAPPED.match(inner):
        inner = wrapped[1].strip()
    is_list = inner[:1] in _BRACKETS
    if is_list:
        if len(inner) < 2 or inner[-1] != _BRACKETS[inner[0]]:
            raise ValueError(f"the list begins with {inner[0]} and does not end with {_BRACKETS[inner[0]]}")
        labels = list(_tokens(inner[1:-1]))
    elif inner[:1] in "'\"":
        labels = list(_tokens(inner))
    else:
        labels = re.split(r"[\s,;|]+", inner)
    cleaned = map(clean_text, labels)
    return tuple(dict.fromkeys(label for label in cleaned if label and label.casefold() not in _BLANK_WORDS))


def _tokens(text: str) -> Iterable[str]:
    """Yield the words between separators, quoted ones without their quotes. Raises ValueError for anything else."""
    rest = text.lstrip(_SEPARATORS)
    while rest:
        found = _TOKEN.match(rest)
        if found is None:
            raise ValueError(f"{rest!r} is no label")
        yield _unquoted(found[0])
        rest = rest[found.end() :].lstrip(_SEPARATORS)


def _unquoted(word: str) -> str:
    if word[0] not in "'\"":
        return word
    try:
        return str(ast.literal_eval(word))
    except SyntaxError as error:
        raise ValueError(f"{word} is no text") from error


def unify_spelling(labels: Iterable[str]) -> dict[str, str]:
    """Return the labels that differ from another one only in how Unicode composes their characters: {label: composed form}.

    Files from macOS write an accented letter as two characters (NFD), other systems as one (NFC). Labels that are written in one
    way throughout stay as they are.
    """
    by_form: dict[str, set[str]] = {}
    for label in labels:
        if not label.isascii():
            by_form.setdefault(unicodedata.normalize("NFC", label), set()).add(label)
    return {label: form for form, spellings in by_form.items() if len(spellings) > 1 for label in spellings if label != form}


def spell_as(label: str, known: Collection[str]) -> str:
    """Return the label of `known` that differs only in how Unicode composes its characters, else `label`."""
    if label.isascii() or label in known:
        return label
    form = unicodedata.normalize("NFC", label)
    return next((other for other in known if unicodedata.normalize("NFC", other) == form), label)


def replace_labels(table: pd.DataFrame, new: dict[str, str]) -> pd.DataFrame:
    """Return `table` with other labels in primary_label and secondary_labels (tuples); a label that comes twice then counts once."""
    if not new:
        return table
    rows = zip(table["primary_label"].map(lambda label: new.get(label, label)), table["secondary_labels"], strict=True)
    pairs = [
        (own, tuple(dict.fromkeys(code for label in labels if (code := new.get(label, label)) != own))) for own, labels in rows
    ]
    return table.assign(
        primary_label=[own for own, _ in pairs],
        secondary_labels=pd.Series([labels for _, labels in pairs], index=table.index, dtype=object),
    )
