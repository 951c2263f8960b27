"""Pictures of a stage for people: how it learnt, and what it hears in a recording. Drawn without a display.

Shapes: F mel bins, N frames, C species.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

_SCORES = {
    "cmap_pad5": "padded cmAP (k = 5)",
    "cmap": "cmAP",
    "cmap_chance": "cmAP of chance",
    "lrap": "LRAP",
    "auroc": "AUROC",
}
_SHOWN_SPECIES = 10
_TRUE, _FALSE = "#2a7f4f", "#b0b0b0"
_DPI = 110


def save_curves(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A PNG of training loss and validation scores over epochs.

    Each entry of `history` is an epoch: `train_loss`, `scores` (as `metrics.summarise` gives them) and, if stages follow each
    other, `stage`.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    loss_axes, score_axes = figure.subplots(1, 2)
    epochs = np.arange(1, len(history) + 1)
    loss_axes.plot(epochs, [entry["train_loss"] for entry in history], color="#404040", marker=".")
    loss_axes.set(title="Training loss", xlabel="epoch")
    for name, label in _SCORES.items():
        values = [entry["scores"].get(name, np.nan) for entry in history]
        if not np.isnan(values).all():
            style = {"linestyle": "--", "color": "#808080"} if name == "cmap_chance" else {"marker": "."}
            score_axes.plot(epochs, values, label=label, **style)
    score_axes.set(title="Validation", xlabel="epoch", ylim=(0, 1.02))
    score_axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    for axes in (loss_axes, score_axes):
        axes.grid(alpha=0.25)
        axes.set_xlim(0.5, len(history) + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        _mark_stages(axes, history)
    figure.savefig(path, dpi=_DPI)


def save_predictions(
    mel_FN: NDArray[np.floating],
    truth_C: NDArray[Any],
    score_C: NDArray[np.floating],
    species: Sequence[str],
    path: Path,
) -> None:
    """A PNG of a recording's mel spectrogram (decibels) beside its likeliest species; those that are true are marked.

    Scores are probabilities. True species that are not among the likeliest are shown below them with their rank.
    """
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    mel_axes, bar_axes = figure.subplots(1, 2, width_ratios=(1.7, 1))
    image = mel_axes.imshow(mel_FN, origin="lower", aspect="auto", cmap="magma", interpolation="nearest")
    figure.colorbar(image, ax=mel_axes, label="dB", pad=0.01)
    mel_axes.set(title="Mel spectrogram", xlabel="frame", ylabel="mel bin")
    rows = _shown(np.asarray(truth_C) > 0, score_C)
    is_true = [bool(truth_C[column] > 0) for _, column in rows]
    bar_axes.barh(
        range(len(rows)), [score_C[column] for _, column in rows], color=[_TRUE if true else _FALSE for true in is_true]
    )
    labels = [f"{species[column]}  #{rank}" if rank > _SHOWN_SPECIES else species[column] for rank, column in rows]
    bar_axes.set_yticks(range(len(rows)), labels, fontsize=8)
    for tick, true in zip(bar_axes.get_yticklabels(), is_true, strict=True):
        tick.set(color=_TRUE if true else "#404040", fontweight="bold" if true else "normal")
    bar_axes.invert_yaxis()
    bar_axes.set(title="Predicted (true species in green)", xlabel="probability", xlim=(0, 1))
    figure.savefig(path, dpi=_DPI)


def _shown(is_true_C: NDArray[np.bool_], score_C: NDArray[np.floating]) -> list[tuple[int, int]]:
    """(rank from 1, column) of the likeliest species, then of the true ones below them, as many again at most."""
    ranked = list(enumerate(np.argsort(-score_C, kind="stable").tolist(), start=1))
    missed = [(rank, column) for rank, column in ranked[_SHOWN_SPECIES:] if is_true_C[column]]
    return ranked[:_SHOWN_SPECIES] + missed[:_SHOWN_SPECIES]


def _mark_stages(axes: Any, history: Sequence[Mapping[str, Any]]) -> None:
    stages = [entry.get("stage") for entry in history]
    for place, stage in enumerate(stages):
        if stage is not None and (place == 0 or stage != stages[place - 1]):
            axes.axvline(place + 0.5, color="#808080", linewidth=0.8, linestyle=":")
            label = axes.text(place + 0.6, 0.97, stage, transform=axes.get_xaxis_transform(), rotation=90, va="top", fontsize=7)
            label.set_bbox({"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1})
