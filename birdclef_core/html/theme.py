"""The look of every page and picture: one palette, light and dark, for style sheets, for SVG and for matplotlib.

matplotlib draws in the light colours. In an SVG, each of them becomes a CSS variable of the page, so the picture follows the
page's theme, and text takes the page's font. Text is never read as mathematics: a species or a file may have a dollar sign in its name.
"""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

PALETTE = {
    "page": ("#f6f6f3", "#121619"),
    "panel": ("#ffffff", "#1a1f23"),
    "ink": ("#1c2226", "#e7ebed"),
    "muted": ("#5d6870", "#9ba7af"),
    "line": ("#d5d9d4", "#363f46"),
    "first": ("#1b786d", "#4fbcab"),
    "second": ("#a85912", "#e59a52"),
    "third": ("#3868b0", "#86b3ef"),
    "fourth": ("#86489f", "#cb9fe0"),
    "bar": ("#8cc5bb", "#2f7a6f"),
    "warn": ("#a33c20", "#f0896b"),
    "stored": ("#8fc9a8", "#2f6b4d"),
    "shared": ("#6fabd6", "#2d658d"),
    "own": ("#c3dcee", "#24455b"),
    "best": ("#e8b04a", "#8f6012"),
}
"""The light and the dark value of each CSS variable. Text and what lies behind it differ by a contrast of 4.5 at least."""

INK, MUTED, LINE, PANEL = (PALETTE[name][0] for name in ("ink", "muted", "line", "panel"))
FIRST, SECOND, THIRD, FOURTH = (PALETTE[name][0] for name in ("first", "second", "third", "fourth"))

DENSITY = LinearSegmentedColormap.from_list("density", [(0.12, 0.56, 0.50, alpha) for alpha in (0.0, 0.2, 0.4, 0.6, 0.8)])
"""More is more opaque, which reads on light and on dark; never so much that text on it cannot be read."""

SLOPES = LinearSegmentedColormap.from_list(
    "slopes", [(0.13, 0.42, 0.82, 1.0), (0.13, 0.42, 0.82, 0.0), (0.87, 0.29, 0.17, 0.0), (0.87, 0.29, 0.17, 1.0)]
)
"""Blue below zero, red above zero, transparent at zero."""

LOUDNESS = "magma"
"""The colours of a mel spectrogram, from quiet to loud."""

_PNG_DPI = 110
_TAG = re.compile(r"<[^>]+>")
_COUNTED_ID = re.compile(r' id="[A-Za-z0-9.]+_\d+"')
"""matplotlib numbers its elements in each figure; nothing refers to these ids, and on a page of many figures they would repeat."""
_FAMILY = re.compile(r"font-family: [^;\"]+")
_SIZE = re.compile(r' (?:width|height)="[\d.]+pt"')
_DRAWN = {PALETTE[name][0]: name for name in ("ink", "muted", "line", "first", "second", "third", "fourth")}
"""Colours that matplotlib draws in. White is not one of them, as matplotlib also uses it by itself."""
_COLOUR = re.compile("|".join(_DRAWN), re.IGNORECASE)

_STYLE: Any = {
    "text.parse_math": False,
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


def palette_css() -> Markup:
    """Return the palette as CSS variables, with the dark values for readers who prefer them."""
    light, dark = ("; ".join(f"--{name}: {values[index]}" for name, values in PALETTE.items()) for index in (0, 1))
    return Markup(":root {{ {} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {} }} }}").format(light, dark)


@dataclass
class Canvas:
    """A figure to draw on."""

    figure: Figure
    svg: Markup = field(default_factory=Markup)
    """The figure as inline SVG, once the block that drew it has ended."""


@contextmanager
def _house_style(salt: str) -> Iterator[None]:
    """matplotlib's settings for a picture. A missing glyph is no warning: a browser has other fonts, and a PNG shows a box.

    `salt` goes into the ids of an SVG's elements.
    """
    with mpl.rc_context({**_STYLE, "svg.hashsalt": salt}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


@contextmanager
def inline_svg(width: float, height: float, label: str) -> Iterator[Canvas]:
    """Open a figure of `width` x `height` inches (of 72 CSS pixels each) whose SVG follows the page's theme.

    `label` says what the picture shows, for readers who cannot see it. It must differ between the figures of a page, which take
    the ids of their clip paths from it.
    """
    with _house_style(label):
        canvas = Canvas(Figure(figsize=(width, height), layout="constrained"))
        yield canvas
        buffer = io.StringIO()
        canvas.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        canvas.svg = _themed(buffer.getvalue(), label)


@contextmanager
def png_file(width: float, height: float, path: Path) -> Iterator[Figure]:
    """Open a figure of `width` x `height` inches that is written to `path` as a light PNG."""
    with _house_style(path.name):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.savefig(path, dpi=_PNG_DPI, format="png", facecolor=PANEL)


def _themed(document: str, label: str) -> Markup:
    """The SVG element of matplotlib's document. Only tags are changed, so text that looks like a colour or an id stays as it is."""
    svg = _TAG.sub(lambda tag: _themed_tag(tag.group()), document[document.index("<svg") :])
    return Markup('<svg role="img" aria-label="{}" ').format(label) + Markup(svg.removeprefix("<svg "))


def _themed_tag(tag: str) -> str:
    if tag.startswith("<svg "):
        return _SIZE.sub("", tag)
    tag = _FAMILY.sub("font-family: var(--font)", _COUNTED_ID.sub("", tag))
    return _COLOUR.sub(lambda colour: f"var(--{_DRAWN[colour.group().lower()]})", tag)
