"""Times, sizes and references as people write and read them.

Imports no library, so that `--help` is printed at once.
"""

from collections.abc import Sequence

from birdclef_core.wording import format_duration

__all__ = ["REFERENCE", "aligned", "bytes_text", "counted", "figure", "format_duration", "parse_bytes"]

REFERENCE = (
    "the first 4 or more characters of a stage id, SWEEP (the last stage of its best trial), SWEEP/TRIAL (its last finished stage) or "
    "SWEEP/TRIAL/STAGE"
)
"""What a REF on the command line may be."""


def bytes_text(num_bytes: float) -> str:
    """Return a size as text, in the largest unit in which it is at least 1: `1.5 GiB`."""
    for unit, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes / 1024:.1f} KiB"


def parse_bytes(text: str) -> int:
    """Return the number of bytes that a text such as `200G` stands for; K, M, G and T are powers of 1024.

    Raises ValueError for anything else.
    """
    factor = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}.get(text[-1:].upper(), 1)
    num_bytes = float(text if factor == 1 else text[:-1]) * factor
    if not 0 <= num_bytes < 2**63:
        raise ValueError(f"{text!r} is not a number of bytes, such as 200G")
    return int(num_bytes)


def counted(number: int, thing: str) -> str:
    """Return `1 trial` or `2 trials`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def figure(value: float) -> str:
    """Return a number with three significant digits and no exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3g}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows of a table as indented lines: the first column starts at the left, the others end at the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        f"  {first:<{widths[0]}}" + "".join(f"   {cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        for first, *cells in rows
    ]
