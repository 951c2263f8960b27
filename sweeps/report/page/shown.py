"""What the sweep's page draws, as plain values: the script of the page has no other source."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any

from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from sweeps.objective import CPU_SECONDS, DEVICE_HOURS, Objective
from sweeps.report.page.importance import Importances, final_scores, importances
from sweeps.report.ranking import score_of
from sweeps.schedule.records import SweepRecord, SweepRecords, TrialRecord, best_trials
from sweeps.search.parameters import Choice, Parameter, Range

DIGITS = 6
"""Significant digits of numbers on the page: more would only make it larger."""
ALL_RECIPES = "all recipes"


@dataclass(frozen=True, kw_only=True)
class ShownSweep:
    """A sweep with what its page needs."""

    record: SweepRecord
    trials: Sequence[TrialRecord]
    store: StageStore
    storage: Storage
    """The sweep's own place in the storage."""

    @classmethod
    def load(cls, storage: Storage, name: str) -> "ShownSweep":
        """Read a sweep. Raises InputError when there is none of that name in the storage, or a record cannot be read."""
        records = SweepRecords(storage.at(name))
        return cls(
            record=records.load_sweep(),
            trials=tuple(records.load_trials()),
            store=StageStore(storage.at("store")),
            storage=records.storage,
        )

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def objective(self) -> Objective:
        """What its trials are compared by."""
        return self.record.objective

    @property
    def best(self) -> TrialRecord | None:
        """The finished trial with the best score."""
        return next(iter(best_trials(self.trials, self.objective)), None)

    @property
    def space(self) -> dict[str, Parameter]:
        """All parameters in which trials of any part differ."""
        return {key: parameter for part in self.record.parts for key, parameter in part.search.space.items()}

    def in_order(self) -> list[TrialRecord]:
        """Return the ended trials in the order in which they ended; of equal or unknown times, in the order in which they began."""
        return sorted((record for record in self.trials if record.ended), key=lambda record: _seconds(record.ended_at))

    def importances(self) -> dict[str, Importances]:
        """Return how much parameters matter, over all recipes and for each; without those of which nothing can be said."""
        scores, space = final_scores(self.trials), self.space
        recipes = sorted({record.recipe for record in self.trials})
        groups = {ALL_RECIPES: list(self.trials)} if len(recipes) > 1 else {}
        groups |= {recipe: [record for record in self.trials if record.recipe == recipe] for recipe in recipes}
        found = {name: importances(trials, scores, space) for name, trials in groups.items()}
        return {name: item for name, item in found.items() if item is not None}


def drawn(sweeps: Sequence[ShownSweep]) -> dict[str, Any]:
    """Return the values that the page's script draws: parameters, trials as columns, and what each sweep found."""
    trials = [(number, record) for number, sweep in enumerate(sweeps) for record in sweep.trials]
    records = [record for _, record in trials]
    first = sweeps[0].objective
    costs = [name for name in (DEVICE_HOURS, CPU_SECONDS) if any(math.isfinite(record.costs[name]) for record in records)]
    return {
        "sweeps": [_of_sweep(sweep) for sweep in sweeps],
        "objective": first.score_name,
        "costs": costs,
        "cost": first.cost,
        "soundscapes": any(_metric(record, "val_soundscapes/auroc") is not None for record in records),
        "params": _params(sweeps, records),
        "trials": {
            "sweep": [number for number, _ in trials],
            "trial": [record.trial for record in records],
            "recipe": [record.recipe for record in records],
            "status": [record.status for record in records],
            "score": [_number(record.score) for record in records],
            "error": [
                _number(score_of(record, sweeps[number].objective).error) if record.score is not None else None
                for number, record in trials
            ],
            "last_stage": [list(record.stage_scores)[-1] if record.stage_scores else record.stage for record in records],
            "last_score": [_number(_last_score(record)) for record in records],
            "reason": [record.reason for record in records],
            "spent_h": [_number(record.cost_s / 3600) for record in records],
            "saved_h": [_number(record.saved_s / 3600) for record in records],
            "by_recordings": [_metric(record, "val/cmap") for record in records],
            "by_soundscapes": [_metric(record, "val_soundscapes/auroc") for record in records],
            **{name: [_number(record.costs[name]) for record in records] for name in costs},
        },
    }


def _of_sweep(sweep: ShownSweep) -> dict[str, Any]:
    """The order in which trials ended, what had been spent by then, and how much parameters matter."""
    ended = sweep.in_order()
    start = _seconds(sweep.record.started_at)
    offset = {record.trial: number for number, record in enumerate(sweep.trials)}
    return {
        "name": sweep.name,
        "objective": sweep.objective.score_name,
        "ended": [offset[record.trial] for record in ended],
        "hours": [_number((_seconds(record.ended_at) - start) / 3600) if record.ended_at else None for record in ended],
        "device_hours": [_number(total / 3600) for total in accumulate(record.gpu_s or record.cost_s for record in ended)],
        "importances": {
            name: {
                "finished": item.num_finished,
                "stopped": item.num_stopped,
                "explained": _number(item.explained),
                "chance": _number(item.chance),
                "parameters": [
                    [parameter.name, _number(parameter.share), _number(parameter.low), _number(parameter.high)]
                    for parameter in item.parameters
                ],
            }
            for name, item in sweep.importances().items()
        },
    }


def _params(sweeps: Sequence[ShownSweep], records: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """Parameters whose values differ between trials, each with its values in the order of the trials; null where a trial lacks it.

    A number is itself; of a choice it is the number of the value.
    """
    space: dict[str, list[Parameter]] = {}
    for sweep in sweeps:
        for key, parameter in sweep.space.items():
            space.setdefault(key, []).append(parameter)
    params = []
    for key, kinds in space.items():
        values = [record.params.get(key) for record in records]
        if len({repr(value) for value in values}) < 2:
            continue
        ranges = [parameter for parameter in kinds if isinstance(parameter, Range)]
        if len(ranges) == len(kinds):
            shown: dict[str, Any] = {"log": all(parameter.log for parameter in ranges)}
            column = [_number(value) for value in values]
        else:
            choices = _choices(kinds, values)
            shown = {"values": [f"{value:g}" if isinstance(value, float) else str(value) for value in choices]}
            places = {repr(value): place for place, value in enumerate(choices)}
            column = [places.get(repr(record.params[key])) if key in record.params else None for record in records]
        params.append({"name": key, **shown, "column": column})
    return params


def _choices(kinds: Sequence[Parameter], values: Sequence[Any]) -> list[Any]:
    """All values that trials have or may have: numbers by size, others in the order of the search."""
    known = [value for parameter in kinds if isinstance(parameter, Choice) for value in parameter.values]
    known += [value for value in values if value is not None]
    distinct = list({repr(value): value for value in known}.values())
    numbers = [value for value in distinct if isinstance(value, (int, float)) and not isinstance(value, bool)]
    return sorted(distinct) if len(numbers) == len(distinct) else distinct


def _last_score(record: TrialRecord) -> float | None:
    """The score of a trial where it is now or has stopped, for that stage."""
    if record.stopped is not None:
        return record.stopped.score
    return list(record.stage_scores.values())[-1] if record.stage_scores else None


def _metric(record: TrialRecord, name: str) -> float | None:
    return _number(record.metrics.get(name)) if record.score is not None else None


def _number(value: float | None) -> float | int | None:
    """A number as the page has it; None for one that is not finite, which JSON has no form for."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")


def _seconds(time: str) -> float:
    """Seconds since 1970; 0 for a time that is not known."""
    return datetime.fromisoformat(time).timestamp() if time else 0.0
