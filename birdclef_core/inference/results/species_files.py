"""Reads the files in which a user names species and their thresholds."""

from pathlib import Path

from birdclef_core.data.tables import read_table
from birdclef_core.errors import DataError, InputError


def read_species(path: Path) -> tuple[str, ...]:
    """Return the species codes in a text file, one per line; empty lines and lines that begin with # do not count.

    Raises InputError when it cannot be read or names none.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InputError(f"--species takes a text file with a code per line, but {path} cannot be read: {reason}.") from error
    species = tuple(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not species:
        raise InputError(f"--species must name at least one species, but {path} names none.")
    return species


def read_thresholds(path: Path) -> dict[str, float]:
    """Return the threshold of each species in a table with the columns species and threshold; other columns do not count.

    Raises DataError for a table that cannot be read, a column that is missing, a threshold that is no number from 0 to 1, or a species
    that is there twice.
    """
    source = read_table(path, dtype=str)
    source.require_columns("species", "threshold")
    thresholds: dict[str, float] = {}
    for row, (species, text) in enumerate(zip(source.rows["species"], source.rows["threshold"], strict=True)):
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not 0 <= value <= 1:
            raise DataError(f"A threshold must be a number from 0 to 1, but line {source.line(row)} of {path} has {text!r}.")
        if species in thresholds:
            raise DataError(f"A species must have one threshold, but line {source.line(row)} of {path} has {species!r} again.")
        thresholds[str(species)] = value
    return thresholds
