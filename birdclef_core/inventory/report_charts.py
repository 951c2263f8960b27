"""The charts of a data report. Each takes tables of a dataset and returns SVG. Shapes: R recordings, S species."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from birdclef_core.html.charts import (
    DASHED,
    FEW_ROWS,
    HALF,
    WIDE,
    Bars,
    area,
    bars,
    dots,
    heat,
    histogram,
    label_rows,
    legend_above,
    mark,
    plain_number,
    plain_numbers,
)
from birdclef_core.html.theme import FIRST, LINE, MUTED, SECOND, inline_svg
from birdclef_core.inventory.coasts import coast_lines

_CLIP_MARKS_S = (5, 10, 15, 20, 60)
_DURATION_TICKS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600)
_MAX_YEARS = 26
_MANY_POINTS = 4_000


def species_bars(species: pd.DataFrame) -> Markup:
    """Return the recordings and minutes of each species by name. `species` is the table of `species_table`."""
    with inline_svg(WIDE, 1.1 + 0.27 * len(species), "recordings and minutes of each species") as canvas:
        left, right = canvas.figure.subplots(1, 2, sharey=True)
        rows = np.arange(len(species))
        sides = (("training", "train", FIRST), ("validation", "validation", SECOND))
        bars(left, rows, [Bars(values=species[name], label=label, colour=colour) for label, name, colour in sides], across=True)
        bars(right, rows, [Bars(values=species["minutes"])], across=True)
        label_rows(left, [_full_name(row) for row in species.itertuples()])
        legend_above(left, 2)
        plain_numbers(left.xaxis, 6)
        left.set_title("Recordings")
        right.set_title("Minutes")
        for axes in (left, right):
            axes.margins(y=0.02)
    return canvas.svg


def rank_curve(values_S: NDArray[np.float64], name: str) -> Markup:
    """Return a curve of a value of every species, from the largest to the smallest; `name` is what the value counts."""
    with inline_svg(HALF, 3.2, f"{name} of the species by rank") as canvas:
        axes = canvas.figure.subplots()
        ranked_S = np.sort(values_S)[::-1]
        axes.set(yscale="log", xlim=(1, len(ranked_S)), xlabel="species by rank")
        area(axes, np.arange(1, len(ranked_S) + 1), ranked_S, base=float(ranked_S[-1]) / 2, step="mid")
        axes.set_title(f"{name.capitalize()} of each species")
        plain_numbers(axes.yaxis)
        half = len(ranked_S) // 2
        axes.plot([half + 1], [ranked_S[half]], "o", color=SECOND, markersize=5)
        text = f"half of the species have at most {plain_number(ranked_S[half])}"
        axes.annotate(text, (half + 1, ranked_S[half]), xytext=(0, 12), textcoords="offset points", ha="center")
    return canvas.svg


def year_chart(recordings: pd.DataFrame, species: pd.DataFrame) -> Markup:
    """Return recordings and minutes by year, and when each species was recorded. `recordings` must have `year`."""
    known = recordings[recordings["year"].notna()]
    year, first, labels = _binned_years(known["year"].to_numpy(dtype=int))
    minutes = known["duration_s"].to_numpy() / 60
    height = 4.6 + min(4.2, 1.0 + 0.24 * len(species))
    with inline_svg(WIDE, height, "recordings by year and species") as canvas:
        top, middle, bottom = canvas.figure.subplots(3, 1, sharex=True, height_ratios=(1.2, 1.2, height - 3.0))
        columns = np.arange(len(labels))
        for axes, weights, title in ((top, None, "Recordings by year of recording"), (middle, minutes, "Minutes")):
            amounts = np.bincount(year - first, weights=weights, minlength=len(labels))
            bars(axes, columns, [Bars(values=amounts)])
            axes.set_title(title)
            axes.yaxis.set_major_locator(MaxNLocator(3))
            plain_numbers(axes.yaxis)
        heat(bottom, _counts_by_year(known, year - first, len(labels), list(species["code"])), list(species["code"]))
        bottom.set_title("When each species was recorded, the commonest species at the top (stronger: more recordings)")
        bottom.set_xticks(columns, labels, rotation=0 if len(labels) <= 16 else 45)
    return canvas.svg


def _binned_years(years: NDArray[np.int64]) -> tuple[NDArray[np.int64], int, list[str]]:
    """Return the years, those before the last `_MAX_YEARS` as one, the first year, and a label for each."""
    first = max(int(years.min()), int(years.max()) - _MAX_YEARS + 1)
    labels = [str(year) for year in range(first, int(years.max()) + 1)]
    if years.min() < first:
        labels[0] = f"to {first}"
    return np.maximum(years, first), first, labels


def _counts_by_year(known: pd.DataFrame, column: NDArray, num_columns: int, codes: Sequence[str]) -> NDArray[np.int64]:
    """Return the number of recordings of each species in each year."""
    row = known["primary_label"].map({code: index for index, code in enumerate(codes)}).fillna(-1).to_numpy(dtype=int)
    counts = np.zeros((len(codes), num_columns), dtype=np.int64)
    np.add.at(counts, (row[row >= 0], column[row >= 0]), 1)
    return counts


def duration_chart(durations_s: NDArray[np.float64]) -> Markup:
    """Return recordings by their length on a logarithmic axis, with the lengths of clips and of what is scored marked."""
    low, high = max(0.1, float(durations_s.min())), max(1.0, float(durations_s.max()))
    edges = np.geomspace(low * 0.98, high * 1.02, 57)
    with inline_svg(WIDE, 3.3, "recordings by duration") as canvas:
        axes = canvas.figure.subplots()
        axes.set_xscale("log")
        histogram(axes, durations_s, list(edges))
        axes.set(xlim=(edges[0], edges[-1]), xlabel="duration", ylabel="recordings")
        ticks = [value for value in _DURATION_TICKS_S if edges[0] <= value <= edges[-1]]
        axes.set_xticks(ticks, [f"{value:g} s" if value < 60 else f"{value / 60:.0f} min" for value in ticks])
        axes.xaxis.set_minor_formatter(NullFormatter())
        plain_numbers(axes.yaxis, 6)
        for mark_s in _CLIP_MARKS_S:
            if edges[0] < mark_s < edges[-1]:
                mark(axes, mark_s, f"{mark_s} s")
    return canvas.svg


def rating_chart(ratings: NDArray[np.float64]) -> Markup:
    """Return rated recordings by rating, in halves from 0 to 5."""
    halves = np.round(2 * ratings).astype(int)
    with inline_svg(HALF, 2.7, "recordings by rating") as canvas:
        axes = canvas.figure.subplots()
        bars(axes, np.arange(11) / 2, [Bars(values=np.bincount(halves, minlength=11))], width=0.4)
        plain_numbers(axes.yaxis, 6)
        axes.set(xlabel="rating", ylabel="recordings")
        axes.set_xticks(range(6))
    return canvas.svg


def together_chart(codes: Sequence[str], shared_SS: NDArray[np.int64]) -> Markup:
    """Return a matrix with a square for every two species."""
    with inline_svg(HALF, HALF, "labels that occur together") as canvas:
        axes = canvas.figure.subplots()
        heat(axes, shared_SS, codes, codes)
        axes.set_aspect("equal")
    return canvas.svg


def is_wide_map(latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> bool:
    """Return whether the map of these places is wide enough to fill the page."""
    (west, east), (south, north) = _extents(latitude, longitude)
    return east - west > 1.5 * (north - south)


def map_chart(latitude: NDArray[np.float64], longitude: NDArray[np.float64], is_validation: NDArray[np.bool_]) -> Markup:
    """Return where the recordings were made: longitude and latitude in degrees, and coasts."""
    (west, east), (south, north) = _extents(latitude, longitude)
    width = WIDE if is_wide_map(latitude, longitude) else HALF
    height = float(np.clip(width * (north - south) / (east - west), 3.5, 6.5))
    is_crowded = len(latitude) > _MANY_POINTS
    with inline_svg(width, height, "where the recordings were made") as canvas:
        axes = canvas.figure.subplots()
        axes.add_collection(LineCollection(coast_lines(west, east, south, north), colors=MUTED, linewidths=0.7))
        for inside, colour, label in ((False, FIRST, "training"), (True, SECOND, "validation")):
            chosen = is_validation == inside
            axes.scatter(
                *(longitude[chosen], latitude[chosen]),
                s=3 if is_crowded else 22,
                color=colour,
                alpha=0.3 if is_crowded else 0.65,
                linewidths=0,
                label=label,
                rasterized=is_crowded,
            )
        _draw_degrees(axes)
        axes.set(xlim=(west, east), ylim=(south, north), aspect="equal")
        for handle in filter(None, legend_above(axes, 2).legend_handles):
            handle.set_alpha(1.0)
            handle.set_sizes([22.0])
        canvas.figure.dpi = 144
    return canvas.svg


def _draw_degrees(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _degrees(value, "E", "W")))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _degrees(value, "N", "S")))
    axes.xaxis.set_major_locator(MaxNLocator(9, steps=[1, 1.5, 2, 3, 5, 6, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 1.5, 2, 3, 5, 6, 10]))
    axes.grid()
    axes.tick_params(length=0)
    for side in ("left", "bottom", "top", "right"):
        axes.spines[side].set(visible=True, color=LINE)


def sides_chart(species: pd.DataFrame, share: float) -> Markup:
    """Return training against validation recordings, a dot for each species. `share` is the share that should be validation."""
    top, right = max(2.0, float(species["validation"].max())) * 1.25, max(4.0, float(species["train"].max())) * 1.25
    with inline_svg(HALF, 3.5, "training and validation recordings of each species") as canvas:
        axes = canvas.figure.subplots()
        is_small = len(species) <= FEW_ROWS
        line = np.array([0.0, right]) if is_small else np.geomspace((1 - share) / share, right, 2)
        axes.plot(line, line * share / (1 - share), color=MUTED, linewidth=1, linestyle=DASHED)
        dots(axes, species["train"], species["validation"])
        if not is_small:
            axes.set_xscale("symlog", linthresh=1)  # With a place for none.
            axes.set_yscale("symlog", linthresh=1)
            for axis in (axes.xaxis, axes.yaxis):
                plain_numbers(axis)
        axes.set(xlim=(0, right), ylim=(-0.2 if is_small else -0.02 * top, top))
        axes.set(xlabel="training recordings", ylabel="validation recordings")
        axes.set_title("Each dot is a species; dashed: the share asked for")
    return canvas.svg


def shares_chart(species: pd.DataFrame, share: float) -> Markup:
    """Return the number of species by the share of their recordings that is validation."""
    with inline_svg(HALF, 3.5, "species by the share of their recordings that is validation") as canvas:
        axes = canvas.figure.subplots()
        histogram(axes, species["validation"] / species["recordings"], list(np.linspace(0, 1, 26)))
        mark(axes, share, colour=MUTED)
        axes.set(xlabel="share of a species' recordings that is validation", ylabel="species", xlim=(0, 1))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        plain_numbers(axes.yaxis, 6)
        axes.set_title("How evenly the species are split")
    return canvas.svg


def _full_name(row: object) -> str:
    code, name = str(getattr(row, "code", "")), str(getattr(row, "common_name", ""))
    return f"{name} ({code})" if name and name != code else code


Range = tuple[float, float]


def _extents(latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> tuple[Range, Range]:
    """Return the west and the east end of a map, and its south and north end."""
    return _extent(longitude, -180, 180), _extent(latitude, -90, 90)


def _extent(values: NDArray[np.float64], lowest: float, highest: float) -> Range:
    """Return the range of the values with a margin, at least 10 degrees."""
    low, high = float(values.min()), float(values.max())
    margin = max(0.05 * (high - low), (10 - (high - low)) / 2, 1.0)
    return max(lowest, low - margin), min(highest, high + margin)


def _degrees(value: float, positive: str, negative: str) -> str:
    return f"{abs(value):g}°{positive if value > 0 else negative if value < 0 else ''}"
