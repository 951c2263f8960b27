"""A Pareto front as a picture: a mark for each thing that is compared, cheap ones at the left and good ones at the top."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from birdclef_core.html.svg import box, drawing, path, text

WIDTH, HEIGHT = 720.0, 340.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 70.0, 20.0, 30.0, 46.0
_MARK = 9.0


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A thing that is compared."""

    cost: float
    """Above 0; less is better."""
    score: float
    """More is better."""
    error: float | None
    """Standard error of the score; None where it is not known."""
    on_front: bool
    tip: str
    """What is shown under the mouse pointer."""


def front_svg(marks: Sequence[Mark], *, cost_title: str, score_title: str, shown: Callable[[float], str]) -> Markup:
    """Return the marks with the front as steps. Costs are on a logarithmic scale; `shown` writes them."""
    x_of = _scale([math.log(mark.cost) for mark in marks], _LEFT + _MARK, WIDTH - _RIGHT - _MARK)
    low = [mark.score - (mark.error or 0.0) for mark in marks]
    high = [mark.score + (mark.error or 0.0) for mark in marks]
    y_of = _scale([*low, *high], HEIGHT - _BOTTOM - _MARK, _TOP + _MARK)
    floor = HEIGHT - _BOTTOM
    parts = [
        path(f"M{_LEFT:.1f} {_TOP:.1f} V{floor:.1f} H{WIDTH - _RIGHT:.1f}", stroke="muted"),
        text(_LEFT, 14, score_title, colour="muted"),
        text(WIDTH - _RIGHT, HEIGHT - 6, f"{cost_title} (logarithmic)", anchor="end", colour="muted"),
    ]
    if marks:
        costs = sorted({min(mark.cost for mark in marks), max(mark.cost for mark in marks)})
        scores = sorted({min(low), max(high)})
        parts += [text(x_of(math.log(cost)), floor + 16, shown(cost), anchor="middle", colour="muted") for cost in costs]
        parts += [text(_LEFT - 6, y_of(score) + 4, f"{score:.3f}", anchor="end", colour="muted") for score in scores]
    front = sorted((mark for mark in marks if mark.on_front), key=lambda mark: (mark.cost, mark.score))
    if front:
        steps = "".join(f" H{x_of(math.log(mark.cost)):.1f} V{y_of(mark.score):.1f}" for mark in front)
        start = f"M{x_of(math.log(front[0].cost)):.1f} {floor:.1f}"
        parts.append(path(f"{start}{steps} H{WIDTH - _RIGHT:.1f}", stroke="best", width=2))
    for mark in sorted(marks, key=lambda mark: mark.on_front):
        x, y, colour = x_of(math.log(mark.cost)), y_of(mark.score), "best" if mark.on_front else "own"
        if mark.error:
            ends = y_of(mark.score - mark.error), y_of(mark.score + mark.error)
            parts.append(path(f"M{x:.1f} {ends[0]:.1f} V{ends[1]:.1f}", stroke=colour))
        parts.append(box(x - _MARK / 2, y - _MARK / 2, _MARK, _MARK, fill=colour, lines=(), tip=mark.tip))
    label = f"{len(marks)} marks, of which {len(front)} are on the Pareto front; the table below has the front"
    return drawing(WIDTH, HEIGHT, parts, label)


def _scale(values: Sequence[float], start: float, end: float) -> Callable[[float], float]:
    """What places values between `start` and `end`; in the middle where they are all equal."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    if low == high:
        return lambda value: (start + end) / 2
    return lambda value: start + (end - start) * (value - low) / (high - low)
