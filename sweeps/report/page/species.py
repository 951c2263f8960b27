"""Which species gain in a sweep: the best trial against the recipe's own settings."""

import io
import math
from dataclasses import dataclass

import pandas as pd

from birdclef_core.reports.stage_report import SPECIES
from birdclef_core.store.stage_store import StageStore
from sweeps.report.page.shown import ShownSweep
from sweeps.schedule.records import TrialRecord

MIN_FINISHED = 3
"""Without a trial of the recipe's own settings, the best is compared with the median of at least so many finished trials."""


@dataclass(frozen=True, kw_only=True)
class SpeciesGain:
    """The average precision of each species, before and after."""

    what: str
    """What is compared, as a sentence."""
    rows: list[tuple[str, int, float, float]]
    """Species, validation recordings, average precision of the trial it is compared with, and of the best; the largest gain first."""


def species_gain(sweep: ShownSweep) -> SpeciesGain | None:
    """Return the gain of the best trial over its recipe; None where there is nothing to compare, or the store has it no more."""
    best = sweep.best
    if best is None:
        return None
    other, name = _compared_with(sweep, best)
    if other is None:
        return None
    after, before = _table(sweep.store, best), _table(sweep.store, other)
    if after is None or before is None:
        return None
    joined = after.merge(before[["species", "average_precision"]], on="species", suffixes=("", "_before"))
    known = joined[(joined["support"] > 0) & joined["average_precision"].notna() & joined["average_precision_before"].notna()]
    rows = [
        (str(row.species), int(row.support), float(row.average_precision_before), float(row.average_precision))
        for row in known.itertuples()
    ]
    rows.sort(key=lambda row: row[2] - row[3])
    if not rows:
        return None
    better, worse = (sum(sign * (row[3] - row[2]) > 0 for row in rows) for sign in (1, -1))
    what = (
        f"{best.trial}, the best trial, against {other.trial}, {name}: {better} of {len(rows)} species that have validation recordings "
        f"are found better, {worse} worse. The bars are average precision on recordings."
    )
    return SpeciesGain(what=what, rows=rows)


def _compared_with(sweep: ShownSweep, best: TrialRecord) -> tuple[TrialRecord | None, str]:
    finished = [record for record in sweep.trials if record.score is not None and record.recipe == best.recipe]
    for part in sweep.record.parts:
        for recipe in part.search.recipes:
            own = part.search.baseline(recipe) if recipe.name == best.recipe else None
            for record in finished:
                if record.params == own and record is not best:
                    return record, f"which has the own settings of {best.recipe}"
    others = sorted((record for record in finished if record is not best), key=lambda record: record.score or 0.0)
    if len(others) < MIN_FINISHED:
        return None, ""
    return others[
        len(others) // 2
    ], f"the median of the finished trials of {best.recipe} (no finished trial has its own settings)"


def _table(store: StageStore, record: TrialRecord) -> pd.DataFrame | None:
    stage_id = record.stage_ids[-1]
    attempt = store.published_attempt(stage_id)
    content = store.storage.read_bytes(f"stages/{stage_id}/{attempt}/{SPECIES}") if attempt else None
    if content is None:
        return None
    table = pd.read_csv(io.BytesIO(content))
    return table if not table.empty and math.isfinite(table["support"].sum()) else None
