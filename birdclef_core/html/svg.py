"""Small SVG pictures drawn by hand. Every text, label and attribute is escaped by `Markup.format`.

Colours are names of the palette. Places and sizes are in CSS pixels at full width.
"""

import base64
from collections.abc import Iterable
from typing import Literal

from markupsafe import Markup

Anchor = Literal["start", "middle", "end"]

_SMALLEST = 0.85
"""Share of its full size below which a picture is not shrunk: its text could not be read."""
_LINE_HEIGHT = 15
_CHARACTER_WIDTH = 6.6
_MIN_CHARACTERS = 6


def drawing(width: float, height: float, parts: Iterable[Markup], label: str) -> Markup:
    """Return an SVG picture of `parts`. `label` says what it shows, for readers who cannot see it."""
    return Markup(
        '<svg class="drawn" viewBox="0 0 {:.0f} {:.0f}" style="min-width: {:.0f}px" role="img" aria-label="{}">\n{}\n</svg>'
    ).format(width, height, _SMALLEST * width, label, Markup("\n").join(parts))


def text(
    x: float, y: float, content: str, *, anchor: Anchor = "start", colour: str = "ink", bold: bool = False, upwards: bool = False
) -> Markup:
    """Return a line of text whose baseline is at `y`; `upwards`: it is read from bottom to top."""
    turned = Markup(' transform="rotate(-90 {:.1f} {:.1f})"').format(x, y) if upwards else Markup()
    weight = Markup(' font-weight="700"') if bold else Markup()
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}" fill="var(--{})"{}{}>{}</text>').format(
        x, y, anchor, colour, weight, turned, content
    )


def rectangle(x: float, y: float, width: float, height: float, *, fill: str) -> Markup:
    """Return a filled rectangle."""
    return Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="var(--{})"/>').format(
        x, y, width, height, fill
    )


def box(x: float, y: float, width: float, height: float, *, fill: str, lines: Iterable[str], tip: str, link: str = "") -> Markup:
    """Return a rectangle with as many of the `lines` as fit, cut where they are too long. `tip` is shown under the mouse pointer.

    `link` is the address of the page that the box leads to, if it leads to one.
    """
    room = int((width - 8) // _CHARACTER_WIDTH)
    shown = [fitted(line, room) for line in lines if line] if room >= _MIN_CHARACTERS else []
    texts = [
        Markup('<text x="{:.1f}" y="{:.1f}" fill="var(--ink)" pointer-events="none">{}</text>').format(
            x + 5, y + _LINE_HEIGHT * (index + 1), line
        )
        for index, line in enumerate(shown[: int(max(0.0, height - 4) // _LINE_HEIGHT)])
    ]
    drawn = Markup(
        '<g><rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="var(--{})" stroke="var(--page)">'
        "<title>{}</title></rect>{}</g>"
    ).format(x, y, width, height, fill, tip, Markup().join(texts))
    return Markup('<a href="{}" aria-label="{}">{}</a>').format(link, tip, drawn) if link else drawn


def fitted(line: str, room: int) -> str:
    """Return a line cut to `room` characters, with a mark where something is missing."""
    return line if len(line) <= room else f"{line[: room - 1]}…"


def path(steps: str, *, stroke: str, width: float = 1.0) -> Markup:
    """Return a line along `steps`, which are in SVG's path language."""
    return Markup('<path d="{}" fill="none" stroke="var(--{})" stroke-width="{}"/>').format(steps, stroke, width)


def image(x: float, y: float, width: float, height: float, png: bytes) -> Markup:
    """Return a PNG stretched over a rectangle."""
    return Markup(
        '<image x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" preserveAspectRatio="none" href="data:image/png;base64,{}"/>'
    ).format(x, y, width, height, base64.b64encode(png).decode())
