"""Tables of a page: columns of values in, rows of cells out. The template `parts.html.j2` draws them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    values: Sequence[object]
    is_number: bool = False
    """Numbers stand at the right and sort by size; a dash stands for None."""
    has_bars: bool = False
    """Each number is also drawn as its share of the largest."""
    shown: Callable[[float], str] | None = None
    """How numbers are written, other than with thousands and one decimal."""


@dataclass(frozen=True)
class Cell:
    """One value of a table, as it is shown."""

    text: str
    number: float | None = None
    share: float = 0.0
    """Length of the bar below the number, from 0 (none) to 1."""


@dataclass(frozen=True)
class Table:
    """Columns of the same length. The first names the row."""

    label: str
    """What the table holds, for readers who cannot see it."""
    columns: Sequence[Column]
    is_sortable: bool = False

    def rows(self) -> Iterator[tuple[Cell, ...]]:
        """Yield the cells of each row. Raises ValueError when the columns differ in length."""
        largest = [max(map(_number, column.values), default=0.0) if column.has_bars else 0.0 for column in self.columns]
        for values in zip(*(column.values for column in self.columns), strict=True):
            yield tuple(_cell(*parts) for parts in zip(self.columns, values, largest, strict=True))


def facts(label: str, values: Mapping[str, str]) -> Table:
    """Return a table of names and values."""
    return Table(label, [Column("what", list(values)), Column("value", list(values.values()))])


def _cell(column: Column, value: object, largest: float) -> Cell:
    if value is None:
        return Cell("-")
    if not column.is_number:
        return Cell(str(value))
    number = _number(value)
    return Cell((column.shown or _plain)(number), number, number / largest if largest else 0.0)


def _plain(number: float) -> str:
    if number >= 10 or number == int(number):
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 0.95 else f"{number:.2g}"  # A few seconds are not 0.0 minutes.


def _number(value: object) -> float:
    return float(str(value))
