"""Reads the metadata of a BirdCLEF-shaped folder, whichever year's columns it has, into one table."""

import ast
from pathlib import Path

import pandas as pd

from birdclef_core.errors import DataError

METADATA_NAMES = ("train.csv", "train_metadata.csv")
NOT_SPECIES = frozenset({"soundscape", "nocall"})
"""Values of `primary_label` that name no species (the complete metadata marks soundscapes so)."""

UNKNOWN_RATING = 3.0
"""The middle of the scale, for a recording that nobody rated."""

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
    "longitude": ("longitude", "lng"),
    "date": ("date",),
    "scientific_name": ("scientific_name", "sci_name"),
    "common_name": ("common_name", "en", "species"),
}
_TEXT_COLUMNS = ("primary_label", "primary_label_2023", "ebird_code", "filename", "id", "xc_id", "q", "date", "gen", "sp")


def metadata_path(root: Path) -> Path:
    """The metadata file of a data folder. Raises DataError when the folder or the file is not there."""
    if not root.is_dir():
        raise DataError(f"The data folder must exist, but {root} does not. Give the folder that holds {METADATA_NAMES[0]}.")
    for name in METADATA_NAMES:
        if (root / name).is_file():
            return root / name
    present = ", ".join(sorted(item.name for item in root.iterdir())[:10]) or "nothing"
    raise DataError(f"{root} must hold {' or '.join(METADATA_NAMES)}, but holds {present}.")


def describes_recordings(path: Path) -> bool:
    """Whether a CSV has the columns that `read_metadata` needs; only its first line is read."""
    try:
        present = set(pd.read_csv(path, nrows=0).columns)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError):
        return False
    return all(present.intersection(names) for names in (_COLUMN_NAMES["primary_label"], ("filename", *_COLUMN_NAMES["id"])))


def read_metadata(path: Path, *, unknown_rating: float = UNKNOWN_RATING) -> pd.DataFrame:
    """One row a recording, in file order: primary_label, secondary_labels (tuples), filename, author ("" when unknown), rating.

    `filename` is what the table says, else `XC<id>` without an extension. A rating of NaN falls back to `q` (A..E = 5..1, no
    score = 0), then to `unknown_rating`. Where the table has them: latitude, longitude, year (of recording, NaN when unknown),
    scientific_name, common_name ("" when unknown). In tables with `ebird_code` (2020), labels written as
    `Scientific name_Common name` are turned into codes. Raises DataError for a column that is needed and not there.
    """
    raw = pd.read_csv(path, low_memory=False, dtype=dict.fromkeys(_TEXT_COLUMNS, str))
    columns = {ours: next((name for name in names if name in raw.columns), None) for ours, names in _COLUMN_NAMES.items()}
    _require_columns(path, columns, list(raw.columns))
    if raw.empty:
        raise DataError(f"{path} must hold at least one recording, but has no rows.")
    table = pd.DataFrame(index=raw.index)
    table["primary_label"] = _required_text(path, raw, columns["primary_label"])
    table["secondary_labels"] = _secondary_labels(path, raw, columns["secondary_labels"], table["primary_label"])
    if columns["filename"]:
        table["filename"] = _required_text(path, raw, columns["filename"])
    else:
        table["filename"] = "XC" + _required_text(path, raw, columns["id"]).str.removeprefix("XC")
    table["author"] = _text(raw, columns["author"])
    table["rating"] = _ratings(path, raw, columns["rating"], columns["q"], unknown_rating)
    for name in ("latitude", "longitude"):
        if columns[name]:
            table[name] = pd.to_numeric(raw[columns[name]], errors="coerce")
    if columns["date"]:
        table["year"] = pd.to_numeric(raw[columns["date"]].str.extract(r"^\s*((?:19|20)\d\d)\b")[0], errors="coerce")
    return table.assign(**_names(raw, columns))


def parse_labels(text: str) -> tuple[str, ...]:
    """`"['a', 'b']"`, `"a b"` or `"a;b"` as ("a", "b"): unique, without empty ones, in order. Raises ValueError for a broken
    list."""
    try:
        labels = ast.literal_eval(text) if text.lstrip().startswith("[") else text.replace(",", " ").replace(";", " ").split()
    except SyntaxError as error:
        raise ValueError(str(error)) from error
    return tuple(dict.fromkeys(label for label in map(str, labels) if label))


def _require_columns(path: Path, columns: dict[str, str | None], present: list[str]) -> None:
    missing = [] if columns["primary_label"] else ["primary_label"]
    if not columns["filename"] and not columns["id"]:
        missing.append("filename (or id)")
    if missing:
        raise DataError(f"{path} must have the columns {', '.join(missing)}, but has {', '.join(present)}.")


def _required_text(path: Path, raw: pd.DataFrame, column: str | None) -> pd.Series:
    values = raw[column]
    if values.isna().any():
        row = int(values.isna().to_numpy().argmax()) + 2
        raise DataError(
            f"Every row of {path} must have a {column}, but {int(values.isna().sum())} have none, the first in line {row}."
        )
    return values.astype(str).str.strip()


def _text(raw: pd.DataFrame, column: str | None) -> pd.Series:
    return raw[column].astype(object).fillna("").astype(str).str.strip() if column else pd.Series("", index=raw.index)


def _names(raw: pd.DataFrame, columns: dict[str, str | None]) -> dict[str, pd.Series]:
    """The names of the species as far as the table has them; Xeno-canto writes genus and species apart."""
    names = {name: _text(raw, columns[name]) for name in ("scientific_name", "common_name") if columns[name]}
    if "scientific_name" not in names and {"gen", "sp"} <= set(raw.columns):
        names["scientific_name"] = (_text(raw, "gen") + " " + _text(raw, "sp")).str.strip()
    return names


def _secondary_labels(path: Path, raw: pd.DataFrame, column: str | None, primary: pd.Series) -> pd.Series:
    if column is None:
        return pd.Series([()] * len(raw), index=raw.index, dtype=object)
    texts = raw[column].fillna("[]").astype(str)
    written = (
        dict(zip(raw["primary_label"], primary, strict=True)) if "ebird_code" in raw.columns and "primary_label" in raw else {}
    )
    parsed: dict[str, tuple[str, ...]] = {}
    for text in texts.unique():
        try:
            parsed[text] = tuple(str(written.get(label, label)) for label in parse_labels(text))
        except ValueError as error:
            row = int((texts == text).to_numpy().argmax()) + 2
            raise DataError(
                f"{column} must be a list such as ['amecro', 'gretit1'], but line {row} of {path} has {text!r}."
            ) from error
    rows = zip(texts, primary, strict=True)
    return pd.Series([tuple(code for code in parsed[text] if code != own) for text, own in rows], index=raw.index, dtype=object)


def _ratings(path: Path, raw: pd.DataFrame, rating: str | None, q: str | None, unknown_rating: float) -> pd.Series:
    values = pd.to_numeric(raw[rating], errors="coerce") if rating else pd.Series(float("nan"), index=raw.index)
    if q:
        values = values.fillna(raw[q].map(_Q_RATING))
    if not values.dropna().between(0, 5).all():
        raise DataError(f"0 <= rating <= 5 must hold, but {path} has ratings from {values.min():g} to {values.max():g}.")
    return values.fillna(unknown_rating).astype(float)
