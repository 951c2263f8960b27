"""The page of a calibration: how reliable scores are before and after, the thresholds, and what post-processing was tried."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from markupsafe import Markup

from birdclef_core.ensemble.calibration.choice import Choice
from birdclef_core.ensemble.calibration.fitting import Quality
from birdclef_core.ensemble.calibration.thresholds import LEAST_SUPPORT
from birdclef_core.html import page
from birdclef_core.html.charts import HALF, reliability
from birdclef_core.html.table import Column, Table
from birdclef_core.html.theme import inline_svg
from birdclef_core.inference.results.calibration import Calibration


def calibration_page(
    calibration: Calibration,
    before: Quality,
    after: Quality,
    thresholds: pd.DataFrame,
    target: str,
    names: Mapping[str, str],
    *,
    is_cross_fitted: bool,
    choice: Choice | None,
) -> str:
    """Return the page as HTML; it asks nothing of the network. `names`: what people call species, as far as it is known."""
    return page.render(
        "calibration",
        model_id=calibration.model_id[:16],
        note=base_rate_note(calibration),
        calibration=calibration,
        is_cross_fitted=is_cross_fitted,
        figures=_figures(before, after),
        charts=(_chart(before, "before"), _chart(after, "after")),
        target=target,
        thresholds=_thresholds(thresholds, calibration, names),
        num_own=int((thresholds["chosen_by"] == "species").sum()),
        least_support=LEAST_SUPPORT,
        choice=choice,
        tried=None if choice is None else _tried(choice),
    )


def base_rate_note(calibration: Calibration) -> str:
    """Return what must be known of probabilities that were fitted on recordings; an empty text for soundscapes."""
    if calibration.fitted_on == "soundscapes":
        return ""
    share = np.sum(calibration.supports) / (calibration.num_rows * len(calibration.species))
    return (
        f"Fitted on recordings that were each made of one species: a species is in {share:.1%} of them on average. In soundscapes species "
        "are present at other rates, mostly lower, so there these probabilities are wrong. Calibrate on labelled soundscapes of your site if you can."
    )


def _figures(before: Quality, after: Quality) -> Table:
    names = {
        "nll": "negative log-likelihood",
        "brier": "Brier score",
        "ece": "expected calibration error",
        "macro_f1": "macro F1",
    }
    columns = [
        Column(title, [getattr(item, name) for name in names], True, shown=_four)
        for title, item in (("before", before), ("after", after))
    ]
    better = ["lower", "lower", "lower", "higher"]
    return Table("figures before and after", [Column("figure", list(names.values())), *columns, Column("better is", better)])


def _chart(quality: Quality, when: str) -> Markup:
    label = f"Share that was true, by probability, {when}"
    with inline_svg(HALF, HALF * 0.8, label) as canvas:
        axes = canvas.figure.add_subplot()
        reliability(axes, [item.predicted for item in quality.bins], [item.observed for item in quality.bins])
        axes.set(
            title=f"{when.capitalize()} (calibration error {quality.ece:.4f})", xlabel="probability", ylabel="share that was true"
        )
    return canvas.svg


def _thresholds(table: pd.DataFrame, calibration: Calibration, names: Mapping[str, str]) -> Table:
    def numbers(name: str) -> list[float | None]:
        return [None if np.isnan(value) else float(value) for value in table[name].astype(float)]

    return Table(
        "thresholds",
        [
            Column("species", list(table["species"])),
            Column("name", [names.get(code, "") for code in table["species"]]),
            Column("threshold", numbers("threshold"), True, shown=_four),
            Column("chosen by", list(table["chosen_by"])),
            Column("support", numbers("support"), True),
            Column("detections", numbers("detections"), True),
            Column("precision", numbers("precision"), True, shown=_two),
            Column("at least (95%)", numbers("precision_lower"), True, shown=_two),
            Column("recall", numbers("recall"), True, shown=_two),
            Column("intercept", list(calibration.intercepts), True, shown=_two),
        ],
        is_sortable=True,
    )


def _tried(choice: Choice) -> Table:
    best_first = sorted(choice.tried, key=lambda item: -item.auroc)
    return Table(
        "post-processing that was tried",
        [
            Column("smooth", [f"{item.postprocessing.smooth:g}" for item in best_first]),
            Column("peak", [f"{item.postprocessing.peak:g}" for item in best_first]),
            Column("macro AUROC", [item.auroc for item in best_first], True, shown=_four),
            Column("cmAP", [item.cmap for item in best_first], True, shown=_four),
        ],
    )


def _four(value: float) -> str:
    return f"{value:.4f}"


def _two(value: float) -> str:
    return f"{value:.2f}"
