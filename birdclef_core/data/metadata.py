"""Reads the metadata of recordings, in the columns of any BirdCLEF year or of Xeno-canto, into one table."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from birdclef_core.data.authors import without_nobody
from birdclef_core.data.folder_walk import names_in
from birdclef_core.data.labels import clean_text, parse_labels, replace_labels, unify_spelling
from birdclef_core.data.tables import Table, column_names, is_there, numbers, read_table
from birdclef_core.errors import DataError
from birdclef_core.findings import Finding, inflect

METADATA_NAMES = ("train.csv", "train_metadata.csv")

_Q_RATING = {"A": 5.0, "B": 4.0, "C": 3.0, "D": 2.0, "E": 1.0, "no score": 0.0}
_COLUMN_NAMES = {
    "primary_label": ("primary_label_2023", "ebird_code", "primary_label"),
    "secondary_labels": ("secondary_labels_2023", "secondary_labels"),
    "filename": ("filename",),
    "id": ("id", "xc_id"),
    "author": ("author", "rec", "recordist"),
    "rating": ("rating",),
    "q": ("q",),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lng", "lon"),
    "date": ("date",),
    "scientific_name": ("scientific_name", "sci_name"),
    "common_name": ("common_name", "en", "species"),
}
_XENO_CANTO = {"gen", "sp", "id"}
"""Columns that tell a table of Xeno-canto's own: it has no codes, so species have their scientific names as labels."""
_XENO_CANTO_COLUMNS = {"secondary_labels": ("also",), "filename": ("file-name", "file_name")}
_COLLECTION_COLUMNS = ("collection", "inat_taxon_id", "class_name")
_UNRATED_COLLECTIONS = re.compile(r"(?:^|/)(?:iNat|CSA)\d")
"""Names of files of iNaturalist and of the CSA, which have no ratings."""
_DAY = re.compile(r"^\s*((?:19|20)\d\d)[-/.](0[1-9]|1[0-2])[-/.](0[1-9]|[12]\d|3[01])(?!\d)")
_TEXT_COLUMNS = (
    *("primary_label", "primary_label_2023", "ebird_code", "filename", "id", "xc_id", "q", "date", "gen", "sp"),
    *("also", "file-name", "file_name"),
)


@dataclass(frozen=True)
class Metadata:
    """What a metadata table says of recordings."""

    table: pd.DataFrame
    """One row a recording, in the order of the file: primary_label, secondary_labels (tuples), filename, author ("" when unknown)
    and rating (0 to 5, NaN when not rated). Where the file has them: latitude, longitude, year (of recording, NaN when unknown),
    date (of recording, as 2023-05-24), scientific_name, common_name (texts "" when unknown)."""
    findings: tuple[Finding, ...]
    """Values that could not be used."""


def metadata_path(root: Path) -> Path:
    """Return the metadata file of a data folder. Raises DataError when the folder or the file does not exist."""
    present = names_in(root)
    for name in METADATA_NAMES:
        if is_there(root / name):
            return root / name
    shown = ", ".join(present[:10]) or "nothing"
    raise DataError(
        f"{root} must hold {' or '.join(METADATA_NAMES)}, but holds {shown}. Folders of species, Xeno-canto sets and other tables "
        f"become a data folder with `birdclef data collect {root} --out NEW`."
    )


def describes_recordings(path: Path) -> bool:
    """Return whether a table has the columns that `read_metadata` needs. Raises DataError for a file that is no table."""
    return not _missing(_columns(column_names(path)))


def read_metadata(path: Path) -> Metadata:
    """Return the recordings that a metadata table describes.

    `filename` is what the table says, else `XC<id>` without an extension. Authors such as "Unknown" or "n/a" are
    nobody: "". A rating that is missing falls back to `q` (A..E = 5..1, no score = 0).

    A rating of 0 has two meanings. In tables of 2025 and later it means "not rated", because iNaturalist and the CSA have no ratings;
    these tables have a column `collection`, `inat_taxon_id` or `class_name`, or names of files such as `iNat123.ogg` or `CSA123.ogg`.
    In all other tables it is the lowest rating, as "no score" was in the 2023 solution.

    In tables with `ebird_code` (2020), labels written as `Scientific name_Common name` are
    turned into codes. In tables of Xeno-canto's own (id, gen, sp, en, rec, q, also, ...), species are called by their scientific
    names. Raises DataError for a file that is no table (see `read_table`), a column or label that is missing, a list of labels that
    is not complete, or a rating outside 0 to 5.
    """
    source = read_table(path, dtype=dict.fromkeys(_TEXT_COLUMNS, str), missing_words=True)
    raw, columns = source.rows, _columns(source.rows.columns)
    if missing := _missing(columns):
        raise DataError(f"{path} must have the columns {', '.join(missing)}, but has {', '.join(map(str, raw.columns))}.")
    table = pd.DataFrame(index=raw.index)
    table["primary_label"] = _primary_labels(source, columns["primary_label"])
    table["secondary_labels"] = _secondary_labels(source, columns["secondary_labels"], table["primary_label"])
    if columns["filename"]:
        table["filename"] = _required_text(source, columns["filename"])
    else:
        table["filename"] = "XC" + _required_text(source, columns["id"]).str.removeprefix("XC")
    table["author"] = without_nobody(_text(raw, columns["author"]))
    table["rating"] = _ratings(source, columns["rating"], columns["q"], zero_is_unrated=_has_unrated(raw, table["filename"]))
    for name in ("latitude", "longitude"):
        if column := columns[name]:
            table[name] = numbers(source, column)
    if columns["date"]:
        day = raw[columns["date"]].str.extract(_DAY)
        table["date"] = (day[0] + "-" + day[1] + "-" + day[2]).fillna("")
        table["year"] = pd.to_numeric(raw[columns["date"]].str.extract(r"^\s*((?:19|20)\d\d)\b")[0], errors="coerce")
    table = replace_labels(table.assign(**_names(raw, columns)), unify_spelling(_all_labels(table)))
    return Metadata(table, tuple(_not_numbers(source, columns)))


def _columns(names_there: Iterable[str]) -> dict[str, str | None]:
    """Return the column of the table for each of ours."""
    present = set(names_there)
    columns = {ours: next((name for name in names if name in present), None) for ours, names in _COLUMN_NAMES.items()}
    if not columns["primary_label"] and present >= _XENO_CANTO:
        columns["primary_label"] = "gen"
        for ours, names in _XENO_CANTO_COLUMNS.items():
            columns[ours] = columns[ours] or next((name for name in names if name in present), None)
    return columns


def _missing(columns: dict[str, str | None]) -> list[str]:
    missing = [] if columns["primary_label"] else ["primary_label"]
    if not columns["filename"] and not columns["id"]:
        missing.append("filename (or id)")
    return missing


def _primary_labels(source: Table, column: str | None) -> pd.Series:
    labels = _required_text(source, column)
    return (labels + " " + _text(source.rows, "sp")).str.strip() if column == "gen" else labels


def _required_text(source: Table, column: str | None) -> pd.Series:
    values = _text(source.rows, column)
    blank = values == ""
    if blank.any():
        first, count = source.line(int(blank.to_numpy().argmax())), int(blank.sum())
        raise DataError(
            f"Every row of {source.path} must have a {column}, but {count} {inflect('[row has|rows have]', count)} none, the first in "
            f"line {first}. "
            "Fill it in, or remove these rows."
        )
    return values


def _text(raw: pd.DataFrame, column: str | None) -> pd.Series:
    if not column:
        return pd.Series("", index=raw.index)
    return raw[column].astype(object).fillna("").astype(str).map(clean_text)


def _names(raw: pd.DataFrame, columns: dict[str, str | None]) -> dict[str, pd.Series]:
    """Return the names of the species as far as the table has them; Xeno-canto writes genus and species apart."""
    names = {name: _text(raw, columns[name]) for name in ("scientific_name", "common_name") if columns[name]}
    if "scientific_name" not in names and {"gen", "sp"} <= set(raw.columns):
        names["scientific_name"] = (_text(raw, "gen") + " " + _text(raw, "sp")).str.strip()
    return names


def _secondary_labels(source: Table, column: str | None, primary: pd.Series) -> pd.Series:
    raw = source.rows
    if column is None:
        return pd.Series([()] * len(raw), index=raw.index, dtype=object)
    texts = raw[column].fillna("[]").astype(str)
    written = (
        dict(zip(raw["primary_label"], primary, strict=True)) if "ebird_code" in raw.columns and "primary_label" in raw else {}
    )
    parsed: dict[str, tuple[str, ...]] = {}
    for text in texts.unique():
        try:
            parsed[text] = tuple(dict.fromkeys(str(written.get(label, label)) for label in parse_labels(text)))
        except ValueError as error:
            line = source.line(int((texts == text).to_numpy().argmax()))
            raise DataError(
                f"{column} must be a list such as ['amecro', 'gretit1'], but line {line} of {source.path} has {text!r}: {error}."
            ) from error
    rows = zip(texts, primary, strict=True)
    return pd.Series([tuple(code for code in parsed[text] if code != own) for text, own in rows], index=raw.index, dtype=object)


def _all_labels(table: pd.DataFrame) -> set[str]:
    secondary = {label for labels in table["secondary_labels"] for label in labels}
    return set(table["primary_label"].unique()) | secondary


def _has_unrated(raw: pd.DataFrame, filenames: pd.Series) -> bool:
    """Return whether the table has recordings of collections without ratings, so that a rating of 0 means none."""
    return bool(set(_COLLECTION_COLUMNS) & set(raw.columns)) or bool(filenames.str.contains(_UNRATED_COLLECTIONS).any())


def _ratings(source: Table, rating: str | None, q: str | None, *, zero_is_unrated: bool) -> pd.Series:
    values = numbers(source, rating) if rating else pd.Series(float("nan"), index=source.rows.index)
    outside = values.notna() & ~values.between(0, 5)
    if outside.any():
        row = int(outside.to_numpy().argmax())
        raise DataError(
            f"0 <= rating <= 5 must hold, but line {source.line(row)} of {source.path} has {values[row]:g}. Such rows in all: "
            f"{int(outside.sum()):,}. Correct them, or leave them empty."
        )
    if zero_is_unrated:
        values = values.where(values != 0)
    if q:
        values = values.fillna(source.rows[q].map(_Q_RATING))
    return values.astype(float)


def _not_numbers(source: Table, columns: dict[str, str | None]) -> list[Finding]:
    """Return values that should be numbers and are words."""
    meanings = {
        "rating": "counted as not rated, which is full weight (unless the column q has a quality). Write a number from 0 to 5.",
        "latitude": "the place is not known.",
        "longitude": "the place is not known.",
    }
    found = []
    for ours, meaning in meanings.items():
        column = columns[ours]
        if column is None:
            continue
        words = source.rows[column].notna() & numbers(source, column).isna()
        if words.any():
            cases = [f"{source.rows[column][row]!r} in line {source.line(row)}" for row in words.index[words]]
            fault = f"[value of the column {column} in {source.path.name} is not a number|values of the column {column} in {source.path.name} are not numbers]"
            found.append(Finding.of(f"{ours}_not_number", fault, cases, meaning, level="loses" if ours == "rating" else "note"))
    return found
