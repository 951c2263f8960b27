"""The trials of a sweep as a table: for notebooks, and as CSV."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from sweeps.objective import STANDARD_ERROR, Objective
from sweeps.report.ranking import ranking
from sweeps.schedule.records import TrialRecord, best_trials

_HOUR_S = 3600


def trials_table(trials: Sequence[TrialRecord], objective: Objective) -> pd.DataFrame:
    """Return a row for each trial, the best first. `Sweep.trials` has the columns."""
    ranked = ranking(list(trials), objective)
    table = pd.DataFrame(
        [_row(record, objective) for record in ranked], index=pd.Index([record.trial for record in ranked], name="trial")
    )
    if objective.cost is not None:
        table.insert(5, "front", table.index.isin([record.trial for record in best_trials(trials, objective)]))
        costs = [record.costs[objective.cost] if record.score is not None else math.nan for record in ranked]
        table.insert(6, objective.cost, costs)
    return table


def _row(record: TrialRecord, objective: Objective) -> dict[str, Any]:
    ended = list(record.stage_scores)
    row = {
        "recipe": record.recipe,
        "status": record.status,
        "reason": record.reason,
        "score": record.score,
        f"score{STANDARD_ERROR}": objective.score(record.metrics).error if record.score is not None else None,
        "last_stage": ended[-1] if ended else "",
        "last_score": record.stage_scores[ended[-1]] if ended else None,
        "epochs": record.epochs_done,
        "epochs_trained": record.epochs_trained,
        "device_hours": record.cost_s / _HOUR_S,
        "saved_hours": record.saved_s / _HOUR_S,
        "stage_id": record.stage_ids[len(ended) - 1] if ended else "",
    }
    return row | record.params | (record.metrics if record.score is not None else {})
