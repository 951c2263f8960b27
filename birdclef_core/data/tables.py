"""Reads text and tables that come from outside: in any usual encoding, with any usual delimiter, and never in part.

What cannot be read is refused with the file, the line and the way out.
"""

import csv
import io
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from birdclef_core.data.labels import clean_text
from birdclef_core.errors import DataError

_DELIMITERS = (",", ";", "\t", "|")  # Where two split the header into as many cells, the first counts.
_NAMES_OF_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_OTHER_FILES = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"PAR1", "a Parquet file"),
    (b"%PDF", "a PDF"),
    (b"SQLite format 3", "a database"),
    (b"version https://git-lfs", "a Git LFS pointer in place of the file: run `git lfs pull`"),
)
_WEB_PAGE = re.compile(rb"\s*<(!doctype html|html|\?xml)", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")
_EXCEL_HINT = re.compile(r"sep=(.)[ \t]*\n")
_LONGEST_CELL = 10_000_000


@dataclass(frozen=True)
class Table:
    """The rows of a table and the lines of its file that they begin in."""

    path: Path
    rows: pd.DataFrame
    """As pandas reads them; column names are without blanks and invisible characters at their ends."""
    delimiter: str
    first_lines: tuple[int, ...]
    """Line in which each row begins, counted from 1."""

    def line(self, row: int) -> int:
        """Return the line of the file in which a row begins."""
        return self.first_lines[row]

    def require_columns(self, *names: str) -> None:
        """Raise DataError when a column is missing."""
        if missing := [name for name in names if name not in self.rows]:
            raise DataError(f"{self.path} must have the columns {', '.join(missing)}, but has {', '.join(self.rows)}.")


def is_there(path: Path) -> bool:
    """Return whether `path` is a regular file. Raises DataError when something else has its name, such as a folder or a pipe."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise DataError(
                f"{path} must be a file, but is a link to something that is not there. Correct or remove it."
            ) from None
        return False
    except OSError as error:
        raise DataError(f"{path} cannot be reached: {error.strerror}. Correct or remove it.") from error
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise DataError(f"{path} must be a file, but is {what}. Rename or remove it.")
    return True


def read_text(path: Path) -> str:
    """Return the text of a file with `\\n` at the ends of lines, without a byte order mark.

    UTF-8 is read, and UTF-16 and UTF-32 with a byte order mark. Raises DataError when the file is missing, cannot be read or is no
    such text; other encodings are named, not guessed, because a wrong guess would change authors' names and labels.
    """
    if not is_there(path):
        raise DataError(f"{path} must be a file, but it does not exist.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Change its permissions, or copy it elsewhere.") from error
    return _decoded(path, content).replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")


def read_table(path: Path, *, dtype: Any = str, missing_words: bool = False) -> Table:
    """Return the rows of a table with commas, semicolons, tabs or bars between its cells.

    `dtype` is that of pandas, by column or for all. `missing_words` says whether words such as NA mean that there is no value; else
    only an empty cell does, and is "". Raises DataError for what `read_text` refuses, and for a table without a header or rows,
    with a column twice, with too many or too few cells in a row, or with a quote that is not closed.
    """
    checked = _check(path)
    rows = _parsed(path, checked, dtype, missing_words)
    return Table(path, rows.rename(columns=clean_text), checked.delimiter, checked.first_lines)


def column_names(path: Path) -> list[str]:
    """Return the names in a table's header. Raises DataError for what `read_table` refuses."""
    return _check(path).columns


def numbers(table: Table, column: str) -> pd.Series:
    """Return a column as numbers, NaN where there is none; with semicolons between cells, a decimal comma is one."""
    values = table.rows[column]
    if table.delimiter != "," and not pd.api.types.is_numeric_dtype(values):
        values = values.astype(str).str.replace(r"^\s*([-+]?\d+),(\d+)\s*$", r"\1.\2", regex=True)
    return pd.to_numeric(values, errors="coerce")


def _decoded(path: Path, content: bytes) -> str:
    for magic, what in _OTHER_FILES:
        if content.startswith(magic):
            raise DataError(f"{path} must be text, but is {what}. Save it as CSV in UTF-8.")
    if _WEB_PAGE.match(content[:200]):
        raise DataError(f"{path} must be text, but is a web page: the download gave a page in place of the file. Get it again.")
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in content:
        raise DataError(f"{path} must be text in UTF-8, but {_why_zeros(content)}")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} must be text in {encoding.upper()}, but {_why_undecodable(path, content, error, line)}"
        ) from error


def _why_zeros(content: bytes) -> str:
    zeros = [content[place : place + 10_000 : 2].count(0) for place in (0, 1)]
    if max(zeros) > min(len(content), 10_000) // 8 and min(zeros) < max(zeros) // 4:
        return "looks like UTF-16 without a byte order mark. Save it as UTF-8."
    return f"has a zero byte in line {content.count(10, 0, content.index(0)) + 1}, as binary files have. Get or write it again."


def _why_undecodable(path: Path, content: bytes, error: UnicodeDecodeError, line: int) -> str:
    what = f"byte 0x{content[error.start]:02x} in line {line} is not"
    for encoding in ("cp1252", "latin-1"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if not _CONTROL.search(text):
            start = content.rfind(b"\n", 0, error.start) + 1
            seen = re.split(r"[,;\t|]", content[start : error.start].decode(encoding))[-1]
            end = re.split(r"[,;\t|\r\n]", content[error.start : error.start + 40].decode(encoding))[0]
            return (
                f"{what}: it looks like Windows-1252 (latin-1), as in {(seen + end).strip()!r}. Convert it: "
                f"iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8.csv"
            )
    return f"{what}: it looks like a binary file. Get or write it again."


def _without_excel_hint(text: str) -> tuple[str, int, str | None]:
    """Return the text without the line `sep=;` that Excel writes, how many lines that was, and the delimiter it names."""
    hint = _EXCEL_HINT.match(text)
    return (text[hint.end() :], 1, hint[1]) if hint else (text, 0, None)


def _delimiter(text: str) -> str:
    """Return the delimiter that splits the header into most cells."""
    header = text.lstrip("\n").split("\n", 1)[0]
    return max(_DELIMITERS, key=lambda delimiter: len(next(csv.reader([header], delimiter=delimiter))))


@dataclass(frozen=True)
class _Checked:
    """The text of a table that can be read to its end."""

    text: str
    delimiter: str
    columns: list[str]
    first_lines: tuple[int, ...]


def _check(path: Path) -> _Checked:
    text, skipped, given = _without_excel_hint(read_text(path))
    if not text.strip():
        raise DataError(f"{path} must hold a table, but is empty. Get the file again, or remove it.")
    delimiter = given or _delimiter(text)
    header, first_lines = _split(path, text, delimiter, skipped)
    columns = [clean_text(name) for name in header]
    if twice := {name for name in columns if name and columns.count(name) > 1}:
        raise DataError(f"{path} must name each column once, but has {', '.join(sorted(twice))} several times.")
    if not first_lines:
        raise DataError(f"{path} must have at least one row below its header, but has no rows.")
    return _Checked(text, delimiter, columns, first_lines)


def _split(path: Path, text: str, delimiter: str, skipped: int) -> tuple[list[str], tuple[int, ...]]:
    """Return the header's cells and the line in which each row begins. Raises DataError for rows that are no rows."""
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        reader = csv.reader(io.StringIO(text), delimiter=delimiter)
        header: list[str] = []
        first_lines: list[int] = []
        ragged: list[tuple[int, int, int]] = []
        start = 0
        for cells in reader:
            if not header and any(cells):
                header = cells
            elif not _is_blank(cells):
                first_lines.append(start + 1 + skipped)
                if len(cells) != len(header):
                    ragged.append((start + 1 + skipped, reader.line_num + skipped, len(cells)))
            last_start, start = start, reader.line_num
    except csv.Error as error:
        raise DataError(f"Line {reader.line_num + skipped} of {path} cannot be read as a row: {error}.") from error
    finally:
        csv.field_size_limit(limit)
    _require_closed_quote(path, text, delimiter, last_start, skipped)
    if ragged:
        raise DataError(_what_is_ragged(path, header, ragged, delimiter))
    return header, tuple(first_lines)


def _is_blank(cells: Iterable[str]) -> bool:
    """Return whether pandas skips the line: nothing or blanks only."""
    listed = list(cells)
    return not listed or (len(listed) == 1 and listed[0] != "" and not listed[0].strip())


def _require_closed_quote(path: Path, text: str, delimiter: str, last_start: int, skipped: int) -> None:
    last_row = "\n".join(text.split("\n")[last_start:])
    try:
        list(csv.reader(io.StringIO(last_row), delimiter=delimiter, strict=True))
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise DataError(
                f"{path} must close every quote, but one in the row that begins in line {last_start + 1 + skipped} is not closed "
                "before the file ends. The file may be cut off: get it again, or correct the line."
            ) from error


def _what_is_ragged(path: Path, header: list[str], ragged: list[tuple[int, int, int]], delimiter: str) -> str:
    first, last, count = ragged[0]
    where = f"line {first}" if first == last else f"the row from line {first} to line {last}, perhaps through a quote too many,"
    more = f" ({len(ragged):,} such rows in all)" if len(ragged) > 1 else ""
    return (
        f"Every row of {path} must have {len(header)} cells as its header has, but {where} has {count}{more}. "
        f"Its cells are separated by {_NAMES_OF_DELIMITERS.get(delimiter, repr(delimiter))}: "
        f"put quotes around a cell that holds one."
    )


def _parsed(path: Path, checked: _Checked, dtype: Any, missing_words: bool) -> pd.DataFrame:
    try:
        return pd.read_csv(
            io.StringIO(checked.text),
            sep=checked.delimiter,
            dtype=dtype,
            keep_default_na=missing_words,
            low_memory=False,
            index_col=False,
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a table: {str(error).strip()}.") from error
