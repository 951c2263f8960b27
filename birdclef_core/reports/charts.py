"""The charts of a trained stage. Shapes: C species."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from birdclef_core.evaluation.reliability import ReliabilityBin
from birdclef_core.html.charts import HALF, Bars, Line, bars, curves, dots, plain_numbers, reliability
from birdclef_core.html.theme import FIRST, FOURTH, MUTED, SECOND, THIRD, inline_svg

_SCORES = (
    ("cmap", "cmAP", FIRST),
    ("cmap_pad5", "padded cmAP (k = 5)", SECOND),
    ("cmap_chance", "cmAP of chance", MUTED),
    ("lrap", "LRAP", THIRD),
    ("auroc", "AUROC", FOURTH),
)
_FEW_RECORDINGS = 20


def learning_charts(history: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """Return the training loss and the scores of each epoch; `history` is that of a stage's record."""
    charts = []
    for draw, label in ((draw_loss, "training loss of each epoch"), (draw_scores, "validation scores of each epoch")):
        with inline_svg(HALF, 3.4, label) as canvas:
            draw(canvas.figure.subplots(), history)
        charts.append(canvas.svg)
    return charts


def draw_loss(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    """Draw the training loss of each epoch."""
    curves(axes, _epochs(history), [Line(values=[entry["train_loss"] for entry in history])])
    axes.set_title("Training loss")
    _label_epochs(axes, len(history))


def draw_scores(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    """Draw the validation scores of each epoch, without those that are nowhere defined, and the legend below the figure."""
    values = {name: [float(entry["scores"].get(name, np.nan)) for entry in history] for name, _, _ in _SCORES}
    lines = [
        Line(values=values[name], label=label, colour=colour, is_reference=name == "cmap_chance")
        for name, label, colour in _SCORES
        if not np.isnan(values[name]).all()
    ]
    curves(axes, _epochs(history), lines)
    axes.set_title("Validation scores")
    axes.set_ylim(0, 1.02)
    axes.get_figure(root=True).legend(loc="outside lower center", ncols=3)  # type: ignore[union-attr]
    _label_epochs(axes, len(history))


def species_chart(average_precision_C: NDArray[np.float64], support_C: NDArray[np.integer]) -> Markup:
    """Return how well each species is found against the number of its recordings; species without recordings are left out."""
    is_scored_C = support_C > 0
    with inline_svg(HALF, 3.6, "average precision of each species against its validation recordings") as canvas:
        axes = canvas.figure.subplots()
        dots(axes, support_C[is_scored_C], average_precision_C[is_scored_C])
        axes.set(ylim=(-0.02, 1.04), xlabel="validation recordings", ylabel="average precision")
        axes.set_title("Each dot is a species")
        if int(support_C.max()) > _FEW_RECORDINGS:
            axes.set_xscale("log")
            plain_numbers(axes.xaxis)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    return canvas.svg


def reliability_chart(bins: Sequence[ReliabilityBin]) -> Markup:
    """Return the share that was true against the predicted probability, above the number of predictions of each bin."""
    predicted = [item.predicted for item in bins]
    with inline_svg(HALF, 3.8, "how often what was predicted was true") as canvas:
        curve, amount = canvas.figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        reliability(curve, predicted, [item.observed for item in bins])
        curve.set_ylabel("share that is true")
        curve.set_title("Dashed: what each probability promises")
        amount.set_yscale("log")
        bars(amount, predicted, [Bars(values=[item.count for item in bins], colour=SECOND)], width=0.06)
        amount.set(xlabel="predicted probability", ylabel="number")
        plain_numbers(amount.yaxis)
    return canvas.svg


def _epochs(history: Sequence[Mapping[str, Any]]) -> NDArray[np.intp]:
    return np.arange(1, len(history) + 1)


def _label_epochs(axes: Axes, number: int) -> None:
    axes.set(xlabel="epoch", xlim=(0.5, number + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
