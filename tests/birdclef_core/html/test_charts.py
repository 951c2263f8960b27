"""The kinds of charts: what is stacked, what is labelled, and what is left out where there is too much."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from markupsafe import Markup
from matplotlib.axes import Axes

from birdclef_core.html.charts import Bars, Line, bars, curves, drawable, heat, label_some, plain_number, plain_numbers
from birdclef_core.html.theme import inline_svg


def texts(draw: Callable[[Axes], None]) -> list[str]:
    with inline_svg(4, 4, "a chart") as canvas:
        draw(canvas.figure.subplots())
    return [Markup(found).unescape() for found in re.findall(r"<text [^>]*>([^<]*)</text>", canvas.svg)]


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1,234"), (99.96, "100"), (12.5, "12.5"), (10, "10"), (0.25, "0.25"), (0, "0")]
)
def test_numbers_are_plain(value: float, text: str) -> None:
    assert plain_number(value) == text


@pytest.mark.parametrize(
    ("name", "shown"),
    [("Tit", "Tit"), ("a\nb\tc", "a b c"), ("x" * 60, "x" * 23 + "…"), ("caf\udce9", "caf\\udce9"), ("$\\frac{1$", "$\\frac{1$")],
)
def test_any_name_can_be_drawn(name: str, shown: str) -> None:
    assert drawable(name, 24) == shown
    assert shown in texts(lambda axes: label_some(axes, [name]))


def test_of_many_rows_a_few_are_labelled_with_their_ranks() -> None:
    names = [f"row{number}" for number in range(100)]
    few = [text for text in texts(lambda axes: label_some(axes, names[:40])) if text.startswith("row")]
    many = [text for text in texts(lambda axes: label_some(axes, names)) if "row" in text]
    assert few == names[:40] and len(many) == 8 and many[0] == "1. row0" and many[-1] == "100. row99"


def test_numbers_stand_in_the_cells_of_a_small_matrix_only() -> None:
    counts = np.zeros((12, 12), dtype=int)
    counts[2, 3] = 77
    assert "77" in texts(lambda axes: heat(axes, counts, ["a"] * 12, ["b"] * 12))
    assert "77" not in texts(lambda axes: heat(axes, np.pad(counts, (0, 1)), ["a"] * 13, ["b"] * 13))


def test_the_parts_of_bars_are_stacked_and_the_first_row_is_at_the_top() -> None:
    with inline_svg(4, 4, "bars") as canvas:
        upwards, across = canvas.figure.subplots(1, 2)
        parts = [Bars(values=[1, 2]), Bars(values=[3, 4])]
        bars(upwards, [0, 1], parts)
        bars(across, [0, 1], parts, across=True)
        assert [(patch.get_y(), patch.get_height()) for patch in upwards.patches] == [(0, 1), (0, 2), (1, 3), (2, 4)]
        assert [(patch.get_x(), patch.get_width()) for patch in across.patches] == [(0, 1), (0, 2), (1, 3), (2, 4)]
        assert across.yaxis_inverted() and not upwards.yaxis_inverted()


def test_points_are_marked_when_there_are_few_and_not_on_what_is_only_compared_with() -> None:
    with inline_svg(4, 4, "curves") as canvas:
        few, many = canvas.figure.subplots(1, 2)
        curves(few, range(40), [Line(values=range(40)), Line(values=range(40), is_reference=True)])
        curves(many, range(41), [Line(values=range(41))])
        assert [line.get_marker() for line in (*few.lines, *many.lines)] == ["o", "None", ""]


def test_a_logarithmic_axis_has_plain_numbers() -> None:
    def draw(axes: Axes) -> None:
        axes.set(yscale="log", ylim=(1, 2000))
        plain_numbers(axes.yaxis)

    assert {"1", "10", "100", "1,000"} <= set(texts(draw))
