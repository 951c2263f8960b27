"""Writes what people and tools read about a trained stage: predictions, a table of species, pictures and the card."""

import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from birdclef_core.evaluation.metrics import per_class_ap
from birdclef_core.reports.card import stage_card
from birdclef_core.reports.outcome import StageOutcome
from birdclef_core.reports.pictures import save_curves, save_predictions

PREDICTIONS = "predictions.parquet"
SPECIES = "species.csv"
CARD = "card.html"
FAILURE = "report-error.txt"


def write_stage_report(folder: Path, outcome: StageOutcome, on_note: Callable[[str], None]) -> None:
    """Write the tables, then the pictures and the card.

    A picture or page that cannot be drawn does not cost the stage: it is reported to `on_note`, and the traceback is kept in `FAILURE`.
    Where no recording was scored, there is only an empty table of predictions.
    """
    species = list(outcome.record.species)
    predictions = pd.DataFrame(outcome.score_RC.astype(np.float32), columns=species, index=outcome.recordings["recording_id"])
    predictions.to_parquet(folder / PREDICTIONS)
    if predictions.empty:
        return
    average_precision_C, support_C = per_class_ap(outcome.truth_RC, outcome.score_RC)
    table = pd.DataFrame({"species": species, "average_precision": average_precision_C, "support": support_C})
    table.to_csv(folder / SPECIES, index=False)
    try:
        save_curves(outcome.record.history, folder / "curves.png")
        db_FN, _ = outcome.spectrogram(0)
        save_predictions(db_FN, outcome.truth_RC[0], outcome.score_RC[0], species, folder / "predictions.png")
        (folder / CARD).write_text(stage_card(outcome), encoding="utf-8")
    except Exception as error:
        (folder / FAILURE).write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
        on_note(
            f"Stage {outcome.config.name} is trained, but its report is incomplete ({type(error).__name__}: {error}); see {FAILURE}."
        )
