"""The kinds of charts that all reports are made of. Each draws on given axes, in the colours and with the quiet axes of the house."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike, NDArray

from birdclef_core.html.svg import fitted
from birdclef_core.html.theme import DENSITY, FIRST, INK, LOUDNESS, MUTED, SECOND

WIDE = 13.6
"""Inches: a picture as wide as the page."""
HALF = 5.6
"""Inches: one of two pictures side by side, which stand below each other on a narrow screen."""

FEW_ROWS = 40
"""Rows up to this number are all labelled; of more, only some are."""

DASHED: Any = (0, (3, 2))
"""The line style of what is expected or promised, as against what was seen."""

LONG, SHORT = 48, 24
"""Characters of a name beside a wide chart, and beside a narrow one: longer names would leave no room for the chart."""

_FEW_POINTS = 40
_FEW_DOTS = 60
_FEW_CELLS = 12


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line over the same places as the others of its chart."""

    values: ArrayLike
    label: str = ""
    colour: str = FIRST
    is_reference: bool = False
    """Dashed and thin: what to compare the others with."""


@dataclass(frozen=True, kw_only=True)
class Bars:
    """One part of each bar of a chart."""

    values: ArrayLike
    label: str = ""
    colour: str = FIRST


def curves(axes: Axes, places: ArrayLike, lines: Sequence[Line]) -> None:
    """Draw lines, with their points marked when there are few."""
    marker = "o" if np.size(places) <= _FEW_POINTS else ""
    for line in lines:
        style = {"linewidth": 1, "linestyle": DASHED} if line.is_reference else {"marker": marker, "markersize": 4}
        axes.plot(places, line.values, color=line.colour, label=line.label, **style)
    quiet(axes)


def bars(axes: Axes, places: ArrayLike, parts: Sequence[Bars], *, width: float = 0.78, across: bool = False) -> None:
    """Draw stacked bars: upwards, or `across` from left to right with the first at the top."""
    start = np.zeros(np.size(places))
    for part in parts:
        values = np.asarray(part.values, dtype=float)
        if across:
            axes.barh(places, values, left=start, color=part.colour, height=width, label=part.label)
        else:
            axes.bar(places, values, bottom=start, color=part.colour, width=width, label=part.label)
        start = start + values
    if across and not axes.yaxis_inverted():
        axes.invert_yaxis()
    quiet(axes, "x" if across else "y")


def area(axes: Axes, places: ArrayLike, values: ArrayLike, *, base: float = 0.0, step: Literal["mid"] | None = None) -> None:
    """Draw a line with a faint area below it."""
    axes.fill_between(places, values, base, step=step, color=FIRST, alpha=0.22, linewidth=0)
    axes.plot(places, values, color=FIRST, linewidth=1.4)
    quiet(axes)


def histogram(axes: Axes, values: ArrayLike, edges: Sequence[float]) -> None:
    """Draw how many values lie between each two edges."""
    axes.hist(values, bins=list(edges), color=FIRST, linewidth=0)
    quiet(axes)


def dots(axes: Axes, x: ArrayLike, y: ArrayLike) -> None:
    """Draw a dot for each pair of values; where dots overlap, the colour is stronger."""
    axes.scatter(x, y, s=36 if np.size(x) <= _FEW_DOTS else 15, color=FIRST, alpha=0.55, linewidths=0)
    axes.grid()
    axes.tick_params(which="both", length=0)


def heat(axes: Axes, counts: NDArray[Any], rows: Sequence[str], columns: Sequence[str] = ()) -> None:
    """Draw a matrix of counts, stronger for more (on a logarithmic scale), with the numbers where there are few cells."""
    axes.imshow(np.log1p(counts), aspect="auto", cmap=DENSITY, interpolation="none")
    label_some(axes, rows)
    if columns:
        axes.set_xticks(range(len(columns)), [drawable(name, SHORT) for name in columns], rotation=90)
    if max(counts.shape) <= _FEW_CELLS:
        for row, column in np.argwhere(counts > 0):
            axes.text(column, row, f"{counts[row, column]:g}", ha="center", va="center", fontsize=10)
    without_frame(axes)


def loudness(axes: Axes, level_FN: NDArray[Any], extent: tuple[float, float, float, float] | None = None) -> Any:
    """Draw a mel spectrogram (F bins, N frames), low bins at the bottom, and return the image for a colour bar."""
    return axes.imshow(level_FN, origin="lower", aspect="auto", cmap=LOUDNESS, interpolation="none", extent=extent)


def reliability(axes: Axes, predicted: ArrayLike, observed: ArrayLike) -> None:
    """Draw the share that was true against the probability that was predicted, with the line on which both are equal."""
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=DASHED)
    axes.plot(predicted, observed, color=FIRST, marker="o", markersize=5)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
    axes.grid()
    axes.tick_params(length=0)


def mark(axes: Axes, place: float, label: str = "", colour: str = SECOND) -> None:
    """Draw a dashed line upwards at `place`, with its label above the chart."""
    axes.axvline(place, color=colour, linewidth=1, linestyle=DASHED)
    axes.text(place, 1.02, label, color=colour, ha="center", transform=axes.get_xaxis_transform())


def label_rows(axes: Axes, names: Sequence[str], room: int = LONG) -> None:
    """Name every row of bars or of a matrix, with `room` characters at most."""
    axes.set_yticks(range(len(names)), [drawable(name, room) for name in names])
    axes.tick_params(axis="y", labelcolor=INK)


def label_some(axes: Axes, names: Sequence[str]) -> None:
    """Name every row, or of many rows a few with their ranks."""
    if len(names) <= FEW_ROWS:
        label_rows(axes, names, SHORT)
    else:
        ticks = np.unique(np.linspace(0, len(names) - 1, 8).astype(int))
        axes.set_yticks(ticks, [f"{index + 1}. {drawable(names[index], SHORT)}" for index in ticks])


def legend_above(axes: Axes, columns: int) -> Any:
    """Put the legend at the right, above the chart, and return it."""
    return axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=columns, borderaxespad=0.2)


def quiet(axes: Axes, grid: Literal["x", "y"] = "y") -> None:
    """Leave only what helps to read values: no ticks, a faint grid along one axis."""
    axes.tick_params(which="both", length=0)
    axes.grid(axis=grid)
    axes.spines["bottom"].set_visible(grid == "y")
    axes.spines["left"].set_visible(grid == "x")


def without_frame(axes: Axes) -> None:
    """Remove ticks and the lines at the left and at the bottom."""
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def plain_numbers(axis: Axis, ticks: int | None = None) -> None:
    """Label an axis with plain numbers, `ticks` of them at most; a logarithmic one only at its powers of ten."""
    axis.set_major_formatter(FuncFormatter(plain_number))
    axis.set_minor_formatter(NullFormatter())
    if ticks is not None:
        axis.set_major_locator(MaxNLocator(ticks, integer=True, min_n_ticks=1))
        axis.set_minor_locator(NullLocator())


def plain_number(value: float, _: object = None) -> str:
    """Return a number as people write it: `1,200`, `12.5`, `0.25`."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def drawable(text: str, room: int = LONG) -> str:
    """Return a name as matplotlib can draw it: on one line, with `room` characters at most, and without halves of characters.

    These are in the names of files that are not UTF-8, and matplotlib refuses them.
    """
    line = " ".join(text.encode(errors="backslashreplace").decode().split())
    return fitted(line, room)
