"""Calibrates a detector on labelled rows, and writes what comes of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from birdclef_core.ensemble.calibration.choice import Choice, choose_postprocessing
from birdclef_core.ensemble.calibration.fitting import Quality, cross_fit, fit, quality
from birdclef_core.ensemble.calibration.labelled import HeardRows
from birdclef_core.ensemble.calibration.page import calibration_page
from birdclef_core.ensemble.calibration.thresholds import Target, Thresholds, choose, cross_fit_decisions, threshold_table
from birdclef_core.ensemble.parts import parts_of
from birdclef_core.inference.deployed import DeployedDetector
from birdclef_core.inference.results.calibration import CALIBRATION_FILE, Calibration, sigmoid, write_calibration
from birdclef_core.inference.results.postprocess import NO_POSTPROCESSING
from birdclef_core.inference.results.selection import DEFAULT_THRESHOLD
from birdclef_core.output_place import writing_to

THRESHOLDS_FILE, PAGE_FILE = "thresholds.csv", "reliability.html"


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """What came of calibrating a detector."""

    calibration: Calibration
    target: Target
    thresholds: Thresholds
    table: pd.DataFrame
    """See `threshold_table`."""
    before: Quality
    """Of the scores as they are, with the threshold .5."""
    after: Quality
    """Of calibrated probabilities and of the thresholds: cross-fitted, or apparent if `is_cross_fitted` is false."""
    is_cross_fitted: bool
    choice: Choice | None
    """None: no post-processing was tried."""


def calibrate(detector: DeployedDetector, rows: HeardRows, target: Target, *, tries_postprocessing: bool = False) -> Calibrated:
    """Return the calibration of a detector, with its thresholds.

    Raises InputError as `choose_postprocessing` does.
    """
    choice = choose_postprocessing(rows) if tries_postprocessing else None
    postprocessing = choice.chosen if choice else NO_POSTPROCESSING
    truth_RC, logits_RC, part_R = rows.truth_RC, rows.logits(postprocessing), parts_of(rows.group_R)
    score_RC = sigmoid(logits_RC)
    fitted, thresholds = fit(truth_RC, logits_RC), choose(truth_RC, score_RC, target)
    if part_R is None:
        probability_RC, decision_RC = fitted.apply(logits_RC), thresholds.decide(score_RC)
    else:
        probability_RC = cross_fit(truth_RC, logits_RC, part_R)
        decision_RC = cross_fit_decisions(truth_RC, score_RC, part_R, target)
    plain_RC = sigmoid(rows.logits(NO_POSTPROCESSING))
    return Calibrated(
        calibration=Calibration(
            model_id=detector.model_id,
            procedure=detector.procedure,
            species=detector.species,
            slope=fitted.slope,
            intercepts=tuple(fitted.intercept_C.tolist()),
            supports=tuple(thresholds.support_C.tolist()),
            postprocessing=postprocessing,
            fitted_on=rows.source,
            num_rows=len(truth_RC),
            num_files=len(rows.files),
        ),
        target=target,
        thresholds=thresholds,
        table=threshold_table(detector.species, thresholds, truth_RC, decision_RC),
        before=quality(truth_RC, plain_RC, plain_RC >= DEFAULT_THRESHOLD),
        after=quality(truth_RC, probability_RC, decision_RC),
        is_cross_fitted=part_R is not None,
        choice=choice,
    )


def write_calibrated(calibrated: Calibrated, out: Path, names: Mapping[str, str]) -> None:
    """Write the calibration, the thresholds and the page into a folder. Raises InputError when it cannot be written."""
    with writing_to(out, way_out="give another folder with -o"):
        out.mkdir(parents=True, exist_ok=True)
        aside = out / f".{THRESHOLDS_FILE}.tmp"
        calibrated.table.to_csv(aside, index=False, lineterminator="\n")
        aside.replace(out / THRESHOLDS_FILE)
        page = calibration_page(
            calibrated.calibration,
            calibrated.before,
            calibrated.after,
            calibrated.table,
            str(calibrated.target),
            names,
            is_cross_fitted=calibrated.is_cross_fitted,
            choice=calibrated.choice,
        )
        (out / PAGE_FILE).write_text(page, encoding="utf-8")
        write_calibration(calibrated.calibration, out / CALIBRATION_FILE)
