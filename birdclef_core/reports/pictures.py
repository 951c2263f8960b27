"""The PNG pictures of a stage, for tracking servers: how it learnt, and what it hears in a recording.

Shapes: F mel bins, N frames, C species.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birdclef_core.html.charts import SHORT, Bars, bars, label_rows, loudness
from birdclef_core.html.theme import FIRST, MUTED, png_file
from birdclef_core.reports.charts import draw_loss, draw_scores

_SHOWN_SPECIES = 10


def save_curves(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a PNG of the training loss and the validation scores of each epoch; `history` is that of a stage's record."""
    with png_file(9, 4.0, path) as figure:
        loss_axes, score_axes = figure.subplots(1, 2)
        draw_loss(loss_axes, history)
        draw_scores(score_axes, history)


def save_predictions(
    mel_FN: NDArray[np.floating],
    truth_C: NDArray[Any],
    score_C: NDArray[np.floating],
    species: Sequence[str],
    path: Path,
) -> None:
    """Write a PNG of a recording's mel spectrogram (decibels) beside its likeliest species.

    `score_C` are probabilities. Species that are true are in another colour; those that are not among the likeliest are shown
    below them with their rank.
    """
    rows = _shown(np.asarray(truth_C) > 0, score_C)
    is_true = np.array([bool(truth_C[column] > 0) for _, column in rows])
    scores = np.array([score_C[column] for _, column in rows])
    with png_file(10, 3.8, path) as figure:
        mel_axes, bar_axes = figure.subplots(1, 2, width_ratios=(1.7, 1))
        figure.colorbar(loudness(mel_axes, mel_FN), ax=mel_axes, label="dB", pad=0.01)
        mel_axes.set(title="Mel spectrogram", xlabel="frame", ylabel="mel bin")
        parts = [Bars(values=scores * is_true, colour=FIRST), Bars(values=scores * ~is_true, colour=MUTED)]
        bars(bar_axes, np.arange(len(rows)), parts, across=True)
        names = [f"{rank}. {species[column]}" if rank > _SHOWN_SPECIES else species[column] for rank, column in rows]
        label_rows(bar_axes, names, SHORT)
        for tick, true in zip(bar_axes.get_yticklabels(), is_true, strict=True):
            if true:
                tick.set(color=FIRST, fontweight="bold")
        bar_axes.set(title="Predicted", xlabel="probability (true species in bold)", xlim=(0, 1))


def _shown(is_true_C: NDArray[np.bool_], score_C: NDArray[np.floating]) -> list[tuple[int, int]]:
    """Return (rank from 1, column) of the likeliest species, then of the true species below them, as many again at most."""
    ranked = list(enumerate(np.argsort(-score_C, kind="stable").tolist(), start=1))
    missed = [(rank, column) for rank, column in ranked[_SHOWN_SPECIES:] if is_true_C[column]]
    return ranked[:_SHOWN_SPECIES] + missed[:_SHOWN_SPECIES]
