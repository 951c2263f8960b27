"""matplotlib figures as inline SVG that follow the page's light or dark theme.

Figures are drawn in the colours below; in the SVG each of them becomes a CSS variable of the page, and text takes the page's font.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

INK, MUTED, LINE, PANEL = "#101112", "#707172", "#d0d1d2", "#fefefd"
FIRST, SECOND = "#1f7a6e", "#c9762c"

_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", PANEL: "panel", FIRST: "first", SECOND: "second"}
_FONT = re.compile(r"font: ((?:[\w-]+ )*[\d.]+px) [^;\"]+")
_FAMILY = re.compile(r"font-family: [^;\"]+")
_COLOUR = re.compile("|".join(_VARIABLES), re.IGNORECASE)

DENSITY = LinearSegmentedColormap.from_list("density", [(0.12, 0.56, 0.50, alpha) for alpha in (0.0, 0.25, 0.5, 0.75, 1.0)])
"""More of it is more opaque, so that it reads on light and on dark."""

SLOPES = LinearSegmentedColormap.from_list(
    "slopes", [(0.13, 0.42, 0.82, 1.0), (0.13, 0.42, 0.82, 0.0), (0.87, 0.29, 0.17, 0.0), (0.87, 0.29, 0.17, 1.0)]
)
"""Blue below zero, red above, nothing at zero."""

_STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 11.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 11.5,
    "axes.edgecolor": LINE,
    "axes.titlecolor": INK,
    "axes.titlesize": 12.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 11.0,
    "ytick.labelsize": 11.0,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 11.0,
}


@contextmanager
def themed(width: float, height: float, name: str) -> Iterator[tuple[Figure, list[str]]]:
    """A figure to draw on, in inches of 72 CSS pixels, and a list that holds its SVG once the block has ended. `name` says what
    is to be seen, for those who cannot see it."""
    svg: list[str] = []
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, svg
        svg.append(_to_svg(figure, name))


def quiet(axes: Axes, grid: str = "y") -> None:
    """Only what helps to read the values: no ticks, a faint grid along one axis."""
    axes.tick_params(length=0)
    axes.grid(axis=grid)  # type: ignore[arg-type]
    axes.spines["bottom"].set_visible(grid == "y")
    axes.spines["left"].set_visible(grid == "x")


def _to_svg(figure: Figure, name: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = _FAMILY.sub("font-family: var(--font)", _FONT.sub(r"font: \1 var(--font)", text))
    text = _COLOUR.sub(lambda found: f"var(--{_VARIABLES[found.group().lower()]})", text)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    label = name.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
