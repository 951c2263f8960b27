"""The charts of a report: species, years, durations, ratings, labels that occur together, places, the split.

Each takes the tables of a dataset and returns SVG. Shapes: R recordings, S species.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray
from scipy.sparse import csr_array

from birdclef_core.html.theme import DENSITY, FIRST, INK, LINE, MUTED, SECOND, quiet, themed

FEW_SPECIES = 40
"""As many are drawn with their names; more as a curve over their ranks."""

_WIDTH = 13.6
_CLIP_MARKS_S = (5, 10, 15, 20, 60)
_DURATION_TICKS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600)
_MAX_YEARS = 26
_TOGETHER = 18  # Species in the picture of labels that occur together.
_MANY_POINTS = 4_000


@dataclass(frozen=True)
class Together:
    """Two species in one recording, how often."""

    first: str
    second: str
    count: int


def species_chart(species: pd.DataFrame) -> str:
    """`species` is the table of `species_table`: bars by name, or a curve by rank."""
    return _species_bars(species) if len(species) <= FEW_SPECIES else _species_curve(species)


def _species_bars(species: pd.DataFrame) -> str:
    with themed(_WIDTH, 1.1 + 0.27 * len(species), "recordings and minutes of each species") as (figure, svg):
        left, right = figure.subplots(1, 2, sharey=True)
        rows = np.arange(len(species))
        left.barh(rows, species["train"], color=FIRST, height=0.68, label="training")
        left.barh(rows, species["validation"], left=species["train"], color=SECOND, height=0.68, label="validation")
        right.barh(rows, species["minutes"], color=FIRST, height=0.68)
        left.set_yticks(rows, [_label(row) for row in species.itertuples()])
        left.tick_params(axis="y", labelcolor=INK)
        left.invert_yaxis()
        left.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.2)
        left.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        left.set_title("Recordings")
        right.set_title("Minutes")
        for axes in (left, right):
            quiet(axes, "x")
            axes.margins(y=0.02)
    return svg[0]


def _species_curve(species: pd.DataFrame) -> str:
    with themed(_WIDTH, 4.0, "recordings and minutes of the species by rank") as (figure, svg):
        panels = zip(figure.subplots(1, 2), ("recordings", "minutes"), strict=True)
        for axes, name in panels:
            values = np.sort(species[name].to_numpy(dtype=float))[::-1]
            ranks = np.arange(1, len(values) + 1)
            axes.fill_between(ranks, values, step="mid", color=FIRST, alpha=0.22, linewidth=0)
            axes.plot(ranks, values, color=FIRST, linewidth=1.6)
            axes.set(yscale="log", xlim=(1, len(values)), xlabel="species by rank")
            axes.set_title(f"{name.capitalize()} of each species")
            axes.yaxis.set_major_formatter(FuncFormatter(_plain_number))
            axes.yaxis.set_minor_formatter(NullFormatter())
            quiet(axes)
            half = len(values) // 2
            axes.plot([half], [values[half]], "o", color=SECOND, markersize=5)
            axes.annotate(
                f"half of the species have at most {_plain_number(values[half])}",
                (half, values[half]),
                xytext=(8, 12),
                textcoords="offset points",
            )
    return svg[0]


def year_chart(recordings: pd.DataFrame, species: pd.DataFrame) -> str:
    """Recordings and minutes by year, and when each species was recorded. `recordings` must have `year`."""
    known = recordings[recordings["year"].notna()]
    year, first, labels = _binned_years(known["year"].to_numpy(dtype=int))
    minutes = known["duration_s"].to_numpy() / 60
    height = 4.6 + min(4.2, 1.0 + 0.24 * len(species))
    with themed(_WIDTH, height, "recordings by year and species") as (figure, svg):
        top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(1.2, 1.2, height - 3.0))
        columns = np.arange(len(labels))
        for axes, weights, title in ((top, None, "Recordings by year of recording"), (middle, minutes, "Minutes")):
            axes.bar(columns, np.bincount(year - first, weights=weights, minlength=len(labels)), color=FIRST, width=0.78)
            axes.set_title(title)
            quiet(axes)
            axes.yaxis.set_major_locator(MaxNLocator(3))
            axes.yaxis.set_major_formatter(FuncFormatter(_plain_number))
        _draw_species_by_year(bottom, known, year - first, len(labels), list(species["code"]))
        bottom.set_xticks(columns, labels, rotation=0 if len(labels) <= 16 else 45)
    return svg[0]


def _binned_years(years: NDArray[np.int64]) -> tuple[NDArray[np.int64], int, list[str]]:
    """Years, those before the last `_MAX_YEARS` taken together; the first one; and their labels."""
    first = max(int(years.min()), int(years.max()) - _MAX_YEARS + 1)
    labels = [str(year) for year in range(first, int(years.max()) + 1)]
    if years.min() < first:
        labels[0] = f"to {first}"
    return np.maximum(years, first), first, labels


def _draw_species_by_year(axes: Axes, known: pd.DataFrame, column: NDArray, num_columns: int, codes: Sequence[str]) -> None:
    row = known["primary_label"].map({code: index for index, code in enumerate(codes)}).fillna(-1).to_numpy(dtype=int)
    counts = np.zeros((len(codes), num_columns))
    np.add.at(counts, (row[row >= 0], column[row >= 0]), 1)
    axes.imshow(np.log1p(counts), aspect="auto", cmap=DENSITY, interpolation="none")
    axes.set_title("When each species was recorded, the commonest at the top (stronger: more recordings)")
    if len(codes) <= FEW_SPECIES:
        axes.set_yticks(range(len(codes)), codes)
    else:
        ticks = np.unique(np.linspace(0, len(codes) - 1, 8).astype(int))
        axes.set_yticks(ticks, [f"{codes[index]}  {index + 1}" for index in ticks])
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def duration_chart(durations_s: NDArray[np.float64]) -> str:
    """Recordings by their length, on a logarithmic axis, with the lengths of clips and of what is scored."""
    low, high = max(0.1, float(durations_s.min())), max(1.0, float(durations_s.max()))
    bins = np.geomspace(low * 0.98, high * 1.02, 56)
    with themed(_WIDTH, 3.3, "recordings by duration") as (figure, svg):
        axes = figure.subplots()
        axes.hist(durations_s, bins=list(bins), color=FIRST, linewidth=0)
        axes.set(xscale="log", xlim=(bins[0], bins[-1]), xlabel="duration", ylabel="recordings")
        ticks = [value for value in _DURATION_TICKS_S if bins[0] <= value <= bins[-1]]
        axes.set_xticks(ticks, [f"{value:g} s" if value < 60 else f"{value / 60:.0f} min" for value in ticks])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(which="minor", length=0)
        axes.yaxis.set_major_formatter(FuncFormatter(_plain_number))
        quiet(axes)
        for mark_s in _CLIP_MARKS_S:
            if bins[0] < mark_s < bins[-1]:
                axes.axvline(mark_s, color=SECOND, linewidth=1, linestyle=(0, (3, 2)))
                axes.text(mark_s, 1.02, f"{mark_s} s", color=SECOND, ha="center", transform=axes.get_xaxis_transform())
    return svg[0]


def rating_chart(ratings: NDArray[np.float64]) -> str:
    """Recordings by rating, in halves."""
    halves = np.round(2 * ratings).astype(int)
    with themed(_WIDTH / 2 - 0.6, 3.0, "recordings by rating") as (figure, svg):
        axes = figure.subplots()
        axes.yaxis.set_major_formatter(FuncFormatter(_plain_number))
        axes.bar(np.arange(11) / 2, np.bincount(halves, minlength=11), width=0.4, color=FIRST)
        axes.set(xlabel="rating", ylabel="recordings")
        axes.set_xticks(range(6))
        quiet(axes)
    return svg[0]


def labels_together(primary: pd.Series, secondary: pd.Series) -> tuple[list[str], NDArray[np.int64]]:
    """The species that share most recordings with another (at most `_TOGETHER`, sorted by that), and how many each two share."""
    rows = np.concatenate([np.arange(len(primary)), np.repeat(np.arange(len(primary)), secondary.str.len())])
    labels = pd.concat([primary, secondary.explode().dropna()], ignore_index=True)
    column, codes = pd.factorize(labels)
    present_RS = csr_array((np.ones(len(column), dtype=np.int64), (rows, column)), shape=(len(primary), len(codes)))
    present_RS.data[:] = 1
    shared_SS = (present_RS.T @ present_RS).tolil()
    shared_SS.setdiag(0)
    shared_SS = csr_array(shared_SS)
    totals = np.asarray(shared_SS.sum(axis=1)).ravel()
    chosen = [int(index) for index in np.argsort(-totals, kind="stable")[:_TOGETHER] if totals[index]]
    return [str(codes[index]) for index in chosen], shared_SS[chosen][:, chosen].toarray()


def together_chart(codes: Sequence[str], shared_SS: NDArray[np.int64]) -> str:
    """A square for every two species."""
    size = _WIDTH / 2 - 0.6
    with themed(size, size, "labels that occur together") as (figure, svg):
        axes = figure.subplots()
        axes.imshow(np.log1p(shared_SS), cmap=DENSITY, interpolation="none")
        axes.set_xticks(range(len(codes)), codes, rotation=90)
        axes.set_yticks(range(len(codes)), codes)
        axes.tick_params(length=0)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        if len(codes) <= 12:
            for row, column in np.argwhere(shared_SS > 0):
                axes.text(column, row, str(shared_SS[row, column]), ha="center", va="center", fontsize=10)
    return svg[0]


def map_chart(latitude: NDArray[np.float64], longitude: NDArray[np.float64], is_validation: NDArray[np.bool_]) -> str:
    """Where the recordings were made: longitude and latitude, without coasts."""
    west, east = _extent(longitude, -180, 180)
    south, north = _extent(latitude, -90, 90)
    height = float(np.clip(_WIDTH * (north - south) / (east - west), 3.5, 6.5))
    few = len(latitude) <= _MANY_POINTS
    with themed(_WIDTH, height, "where the recordings were made") as (figure, svg):
        axes = figure.subplots()
        for inside, colour, label in ((False, FIRST, "training"), (True, SECOND, "validation")):
            chosen = is_validation == inside
            axes.scatter(
                *(longitude[chosen], latitude[chosen]),
                s=22 if few else 3,
                color=colour,
                alpha=0.65 if few else 0.3,
                linewidths=0,
                label=label,
                rasterized=not few,
            )
        axes.set(xlim=(west, east), ylim=(south, north), aspect="equal")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _degrees(value, "E", "W")))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _degrees(value, "N", "S")))
        axes.xaxis.set_major_locator(MaxNLocator(9, steps=[1, 1.5, 2, 3, 5, 6, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 1.5, 2, 3, 5, 6, 10]))
        axes.grid()
        axes.tick_params(length=0)
        for side in ("left", "bottom", "top", "right"):
            axes.spines[side].set(visible=True, color=LINE)
        legend = axes.legend(
            loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.2, markerscale=1 if few else 3
        )
        for handle in filter(None, legend.legend_handles):
            handle.set_alpha(1.0)
        figure.dpi = 144
    return svg[0]


def split_chart(species: pd.DataFrame, share: float) -> str:
    """Training against validation recordings of each species, and the share of each that is put aside."""
    with themed(_WIDTH, 4.2, "training and validation recordings of each species") as (figure, svg):
        left, right = figure.subplots(1, 2)
        _draw_sides(left, species, share)
        right.hist(species["validation"] / species["recordings"], bins=25, range=(0, 1), color=FIRST, linewidth=0)
        right.axvline(share, color=MUTED, linewidth=1, linestyle=(0, (3, 2)))
        right.set(xlabel="share of a species' recordings that is validation", ylabel="species", xlim=(0, 1))
        right.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        right.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        right.set_title("How evenly species are split")
        quiet(right)
    return svg[0]


def _draw_sides(axes: Axes, species: pd.DataFrame, share: float) -> None:
    """A dot a species; logarithmic axes, with a place for none, where there are many."""
    limit = max(4.0, float(species["train"].max())) * 1.25
    few = len(species) <= FEW_SPECIES
    line = np.array([0.0, limit]) if few else np.geomspace((1 - share) / share, limit, 2)
    axes.plot(line, line * share / (1 - share), color=MUTED, linewidth=1, linestyle=(0, (3, 2)), label=f"{share:.0%}")
    axes.scatter(species["train"], species["validation"], s=40 if few else 16, color=FIRST, alpha=0.5, linewidths=0)
    if not few:
        axes.set_xscale("symlog", linthresh=1)
        axes.set_yscale("symlog", linthresh=1)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(_plain_number))
    top = max(2.0, float(species["validation"].max())) * 1.25
    axes.set(
        xlim=(0, limit), ylim=(-0.02 * top if few else -0.2, top), xlabel="training recordings", ylabel="validation recordings"
    )
    axes.set_title("Each dot is a species; dashed: the share asked for")
    axes.grid()
    axes.tick_params(which="both", length=0)


def _label(row: object) -> str:
    code, name = str(getattr(row, "code", "")), str(getattr(row, "common_name", ""))
    return f"{name} ({code})" if name and name != code else code


def _extent(values: NDArray[np.float64], lowest: float, highest: float) -> tuple[float, float]:
    """The range of the values with a margin, not narrower than 10 degrees."""
    low, high = float(values.min()), float(values.max())
    margin = max(0.05 * (high - low), (10 - (high - low)) / 2, 1.0)
    return max(lowest, low - margin), min(highest, high + margin)


def _degrees(value: float, positive: str, negative: str) -> str:
    return f"{abs(value):g}°{positive if value > 0 else negative if value < 0 else ''}"


def _plain_number(value: float, _: object = None) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"
