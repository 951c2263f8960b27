"""The charts of a stage's card, as SVG that follows the page's theme. Shapes: C species."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from birdclef_core.evaluation.reliability import ReliabilityBin
from birdclef_core.html.theme import FIRST, MUTED, SECOND, quiet, themed

_WIDTH = 13.6
_HALF = 6.5
_FEW_EPOCHS = 40
_FEW_RECORDINGS = 20


def learning_chart(history: Sequence[Mapping[str, Any]]) -> str:
    """Loss and scores over a stage's epochs; `history` as a stage's record has it."""
    epochs = np.arange(1, len(history) + 1)
    marker = "o" if len(history) <= _FEW_EPOCHS else ""
    with themed(_WIDTH, 3.4, "training loss and validation scores of each epoch") as (figure, svg):
        loss_axes, score_axes = figure.subplots(1, 2)
        loss_axes.plot(epochs, [entry["train_loss"] for entry in history], color=FIRST, marker=marker, markersize=4)
        loss_axes.set_title("Training loss")
        for name, label, colour in (("cmap_pad5", "padded cmAP", FIRST), ("cmap", "cmAP", SECOND)):
            values = [_score(entry, name) for entry in history]
            score_axes.plot(epochs, values, color=colour, marker=marker, markersize=4, label=label)
        chance = [_score(entry, "cmap_chance") for entry in history]
        score_axes.plot(epochs, chance, color=MUTED, linewidth=1, linestyle=(0, (3, 2)), label="cmAP of chance")
        score_axes.set_title("Scores")
        score_axes.set_ylim(0, 1.02)
        score_axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, borderaxespad=0.2)
        for axes in (loss_axes, score_axes):
            axes.set_xlabel("epoch")
            axes.set_xlim(0.5, len(history) + 0.5)
            axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
            quiet(axes)
    return svg[0]


def species_chart(average_precision_C: NDArray[np.float64], support_C: NDArray[np.integer]) -> str:
    """How well each species is found against how many recordings it is scored on; species without any are left out."""
    scored = support_C > 0
    with themed(_HALF, 3.9, "average precision of each species against its validation recordings") as (figure, svg):
        axes = figure.subplots()
        few = int(scored.sum()) <= 60
        axes.scatter(support_C[scored], average_precision_C[scored], s=36 if few else 14, color=FIRST, alpha=0.55, linewidths=0)
        axes.set(ylim=(-0.02, 1.04), xlabel="validation recordings", ylabel="average precision")
        axes.set_title("Each dot is a species")
        if int(support_C.max()) > _FEW_RECORDINGS:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else ""))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.tick_params(which="both", length=0)
        axes.grid()
    return svg[0]


def reliability_chart(bins: Sequence[ReliabilityBin]) -> str:
    """Predicted against observed share, and how many predictions each bin holds."""
    predicted, counts = [item.predicted for item in bins], [item.count for item in bins]
    with themed(_HALF, 3.9, "how often what was predicted was true") as (figure, svg):
        curve, amount = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        curve.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (3, 2)))
        curve.plot(predicted, [item.observed for item in bins], color=FIRST, marker="o", markersize=5)
        curve.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04), ylabel="share that is true")
        curve.set_title("Dashed: what each probability promises")
        curve.grid()
        curve.tick_params(length=0)
        amount.bar(predicted, counts, width=0.06, color=SECOND)
        amount.set(yscale="log", xlabel="predicted probability", ylabel="number")
        amount.yaxis.set_minor_formatter(NullFormatter())
        amount.tick_params(which="both", length=0)
        quiet(amount)
    return svg[0]


def _score(entry: Mapping[str, Any], name: str) -> float:
    return float(entry["scores"].get(name, np.nan))
