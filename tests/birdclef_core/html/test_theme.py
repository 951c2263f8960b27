"""Pictures follow the page's theme, text stays text, and both themes can be read."""

import re
import warnings
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pages import HOSTILE, MATHEMATICS

from birdclef_core.html.theme import FIRST, PALETTE, inline_svg, palette_css, png_file

TEXT = ("ink", "muted", "first", "second", "warn")
BACKGROUNDS = ("page", "panel")
BOXES = ("stored", "shared", "own", "best", "line")


def luminance(colour: str) -> float:
    """Of WCAG 2."""
    parts = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def drawn(name: str) -> str:
    with inline_svg(4, 3, f"a picture of {name}") as canvas:
        axes = canvas.figure.subplots()
        axes.plot([0, 1], [0, 1], color=FIRST)
        axes.set_yticks([0, 1], [name, "b"])
        axes.set_title(name)
    return str(canvas.svg)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_can_be_read_on_everything_it_stands_on(theme: int) -> None:
    value = {name: values[theme] for name, values in PALETTE.items()}
    pairs = [(text, behind) for text in TEXT for behind in BACKGROUNDS] + [("ink", box) for box in BOXES]
    assert {pair: contrast(*map(value.get, pair)) for pair in pairs if contrast(*map(value.get, pair)) < 4.5} == {}


def test_both_themes_have_every_variable() -> None:
    light, dark = palette_css().split("@media screen and (prefers-color-scheme: dark)")
    assert all(f"--{name}: {values[0]}" in light and f"--{name}: {values[1]}" in dark for name, values in PALETTE.items())


def test_colours_and_fonts_are_those_of_the_page() -> None:
    svg = drawn("a")
    assert {"var(--first)", "var(--ink)", "var(--muted)", "var(--line)"} <= set(re.findall(r"var\(--\w+\)", svg))
    assert not re.search(r"font-family: (?!var\(--font\))|#[0-9a-f]{6}", svg)
    assert 'viewBox="0 0 288 216"' in svg and not re.search(r"<svg[^>]* width=", svg), "as wide as its place allows"


@pytest.mark.parametrize("name", [HOSTILE, MATHEMATICS, "sp_$a_{b", f' id="text_1" {FIRST} font-family: x', "燕"])
def test_text_is_shown_as_it_is(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        root = ElementTree.fromstring(drawn(name))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count(name) == 2 and root.get("aria-label") == f"a picture of {name}"


def test_no_id_repeats_in_the_figures_of_a_page() -> None:
    first, second = (set(re.findall(r' id="([^"]+)"', drawn(name))) for name in "ab")
    assert first and not first & second


def test_a_picture_is_the_same_when_it_is_drawn_again() -> None:
    assert drawn("a") == drawn("a")


def test_a_png_does_not_read_mathematics(tmp_path: Path) -> None:
    with png_file(4, 3, tmp_path / "picture.png") as figure:
        figure.subplots().set_title(MATHEMATICS)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
