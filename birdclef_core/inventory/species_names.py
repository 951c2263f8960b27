"""Species codes and their names, from eBird's and BirdCLEF's taxonomy files: which codes exist, and which were renamed."""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from birdclef_core.data.tables import read_table
from birdclef_core.errors import DataError

TAXONOMY_NAME = "taxonomy.csv"

_TAXONOMY = re.compile(r"(?:ebird[_-])?taxonomy.*\.csv", re.IGNORECASE)
_COLUMNS = {
    "code": ("primary_label", "SPECIES_CODE", "species_code"),
    "scientific_name": ("scientific_name", "SCI_NAME"),
    "common_name": ("common_name", "PRIMARY_COM_NAME", "COMMON_NAME"),
}
_UNVERSIONED = 9999  # BirdCLEF's own taxonomy.csv (2025 and later) is newer than any eBird file that came with an edition.


def find_taxonomies(folders: Sequence[Path]) -> list[Path]:
    """Return the taxonomy files at the top of the folders, the newest version first, else in the order of the folders."""
    found = [path for folder in folders for path in sorted(folder.glob("*.csv")) if is_taxonomy(path.name)]
    return sorted(found, key=_version, reverse=True)


def is_taxonomy(name: str) -> bool:
    """Return whether a file of this name is a taxonomy."""
    return bool(_TAXONOMY.fullmatch(name))


def read_taxonomies(paths: Sequence[Path]) -> pd.DataFrame:
    """Return code, scientific_name and common_name of every species of the files, the first file's first.

    A code is listed once. Raises DataError for a file that is no table or lacks these columns.
    """
    tables = [_read(path) for path in paths]
    if not tables:
        return pd.DataFrame(columns=list(_COLUMNS), dtype=str)
    return pd.concat(tables, ignore_index=True).drop_duplicates("code", ignore_index=True)


def named_codes(recordings: pd.DataFrame) -> pd.DataFrame:
    """Return code, scientific_name and common_name of every label of recordings, once with each pair of names that it comes with.

    A secondary label has no names, unless it is one: `Turdus merula`, as Xeno-canto writes.
    """
    present = {name: recordings.get(name, "") for name in ("scientific_name", "common_name")}
    named = pd.DataFrame({"code": recordings["primary_label"], **present}).drop_duplicates()
    secondary = recordings["secondary_labels"].explode().dropna().drop_duplicates().astype(str)
    own_name = secondary.where(secondary.str.contains(" "), "")
    both = pd.concat(
        [named, pd.DataFrame({"code": secondary, "scientific_name": own_name, "common_name": ""})], ignore_index=True
    )
    return both[both["code"] != ""].fillna("")


def renamed_codes(named: pd.DataFrame, taxonomy: pd.DataFrame) -> dict[str, str]:
    """Return the codes that the taxonomy knows by another one: {old: new}.

    `named` has a code, scientific_name and common_name ("" when unknown) a row. A code is renamed to the first one of the
    taxonomy with its scientific name, else with its common name, letters' case and underscores aside; so a code that an older
    file has and a newer one replaces is renamed too, and so is a folder that is called `Parus major`. A code whose names the
    taxonomy does not have stays as it is.
    """
    if taxonomy.empty:
        return {}
    by_name = {name: _first_codes(taxonomy, name) for name in ("scientific_name", "common_name")}
    everything = pd.concat([taxonomy, named], ignore_index=True)
    found: dict[str, str] = {}
    for name, codes in by_name.items():
        new = _plain(everything[name]).map(codes)
        for code, target in zip(everything["code"], new, strict=True):
            if isinstance(target, str):
                found.setdefault(code, target)
    wanted = set(named["code"])
    return {code: target for code, target in found.items() if code != target and code in wanted}


def _first_codes(taxonomy: pd.DataFrame, name: str) -> dict[str, str]:
    names = _plain(taxonomy[name])
    first = taxonomy["code"][(names != "") & ~names.duplicated()]
    return dict(zip(names[first.index], first, strict=True))


def _plain(names: pd.Series) -> pd.Series:
    return names.str.replace("_", " ").str.strip().str.casefold()


def _version(path: Path) -> int:
    years = re.findall(r"(?:19|20)\d\d", path.name)
    return int(years[-1]) if years else _UNVERSIONED


def _read(path: Path) -> pd.DataFrame:
    raw = read_table(path).rows
    columns = {ours: next((name for name in names if name in raw.columns), None) for ours, names in _COLUMNS.items()}
    if not columns["code"] or not columns["scientific_name"]:
        raise DataError(
            f"{path} is called a taxonomy and must have the columns {' or '.join(_COLUMNS['code'])} and "
            f"{' or '.join(_COLUMNS['scientific_name'])}, but has {', '.join(raw)}. Correct or rename it."
        )
    table = {ours: raw[name].str.strip() if name else "" for ours, name in columns.items()}
    return pd.DataFrame(table)[lambda rows: rows["code"] != ""]
