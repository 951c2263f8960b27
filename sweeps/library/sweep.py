"""A sweep that has run, or is running: its trials as a table, its stages with their predictions, its study.

Nothing is kept up to date: `load_sweep` reads the records as they are at that moment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from birdclef_core.errors import InputError
from birdclef_core.store.stage_store import StageRecord, StageStore
from birdclef_core.store.storage import Storage
from sweeps.checkpoints.references import existing_storage, known_record, resolve, store_of
from sweeps.objective import Objective
from sweeps.options import DEFAULT_STORAGE
from sweeps.replicates import are_folds, fold_of, level_of
from sweeps.report.table import trials_table
from sweeps.sampling.draws import Told
from sweeps.sampling.study import finished_study
from sweeps.schedule.records import SweepRecord, SweepRecords, TrialRecord, best_trials
from sweeps.search.parameters import Choice, Parameter, Range
from sweeps.search.space import Search

if TYPE_CHECKING:
    import optuna

    from birdclef_core.inference.run.predictor import Predictor


@dataclass(frozen=True)
class Stage:
    """A stored stage."""

    record: StageRecord
    """What it was made of, its scores, its cost, its history."""
    store: StageStore

    @property
    def id(self) -> str:
        """Its stage id."""
        return self.record.stage_id

    @property
    def scores(self) -> dict[str, float]:
        """Its scores in its own label space, each with its standard error as `<score>_se`."""
        return dict(self.record.metrics)

    @property
    def folder(self) -> Path:
        """A folder on this machine with its verified files; of a remote storage, a copy. Raises InputError for a damaged stage."""
        from sweeps.checkpoints.replay import whole_stage  # imports timm, which takes seconds

        return whole_stage(self.store, self.id).folder

    def predictions(self) -> pd.DataFrame:
        """Return its probabilities of the validation recordings: a row for each recording id, a column for each species."""
        from birdclef_core.reports.stage_report import PREDICTIONS

        return pd.read_parquet(self.folder / PREDICTIONS)

    def species(self) -> pd.DataFrame:
        """Return a row for each species, with its recordings and its average precision."""
        from birdclef_core.reports.stage_report import SPECIES

        return pd.read_csv(self.folder / SPECIES)


@dataclass(frozen=True)
class Trial:
    """A trial of a sweep."""

    record: TrialRecord
    """Its configuration and its results."""
    sweep: "Sweep"

    @property
    def params(self) -> dict[str, Any]:
        """Its sampled parameters by name."""
        return dict(self.record.params)

    @property
    def score(self) -> float | None:
        """Its objective; None if it has not finished."""
        return self.record.score

    def stage(self, name: str = "") -> Stage:
        """Return one of its stages by name, by default the last one that has ended. Raises InputError when it has not ended."""
        return self.sweep.stage("/".join(part for part in (self.sweep.name, self.record.trial, name) if part))

    def out_of_fold(self) -> pd.DataFrame:
        """Return the predictions of a trial with `--folds`, each recording's by the model that did not train on its fold.

        A row for each recording that validates in one of the folds, by its id; a column for each species, with probabilities, and `fold`.
        With `--folds 5` these are all recordings but those that always train. Raises InputError for a trial that has not finished or has no
        folds.
        """
        record = self.record
        names = [record.stages[index] for index in level_of(record.stages, -1)]
        if self.score is None or len(names) < 2 or not are_folds(names):
            raise InputError(
                f"Predictions out of fold are of a finished trial of a sweep with --folds, but {record.trial} is none."
            )
        folds = [self.stage(name).predictions().assign(fold=fold_of(name)) for name in names]
        return pd.concat(folds, verify_integrity=True)

    def model(self, **options: Any) -> "Predictor":
        """Return its last stage, ready to predict files; `options` are those of `sweeps.deploy.load_detector`."""
        from sweeps.deploy.loading import load_detector

        return load_detector(f"{self.sweep.name}/{self.record.trial}", storage=self.sweep.place, **options)


@dataclass(frozen=True)
class Sweep:
    """A sweep as its records were when it was loaded."""

    record: SweepRecord
    """Its options, its parts with their searches, and its state."""
    trial_records: tuple[TrialRecord, ...]
    """The records of its trials, in the order in which they began."""
    place: str
    """Its storage, a folder or URI."""
    storage: Storage

    @property
    def name(self) -> str:
        """Its name."""
        return self.record.name

    @property
    def objective(self) -> Objective:
        """What its trials are compared by."""
        return self.record.objective

    def trials(self) -> pd.DataFrame:
        """Return a row for each trial: the finished ones from the best to the worst (those of a Pareto front first), then the others.

        The index is the trial's name. Columns: `recipe`, `status`, `reason` (why it did not finish), `score` and `score_se` (the objective
        and its standard error; missing if it has not finished), `last_stage` and `last_score` (of a trial that was stopped, too), `epochs`,
        `epochs_trained`, `device_hours` and `saved_hours` (what its reused stages would have cost), `stage_id` of the last stage that
        ended, every sampled parameter under its name, and every tracked score of a finished trial. Where trials are compared by a cost
        too, also `front` (whether it is on the Pareto front) and the cost under its name.
        """
        return trials_table(self.trial_records, self.objective)

    def best(self) -> Trial:
        """Return the finished trial with the best score. Raises InputError when no trial has finished."""
        best = self.front()
        if not best:
            raise InputError(f"Sweep {self.name} has no finished trial.")
        return best[0]

    def front(self) -> list[Trial]:
        """Return the trials of the Pareto front, the best score first; where trials are compared by a score alone, the best one."""
        return [Trial(record, self) for record in best_trials(self.trial_records, self.objective)]

    def trial(self, name: str) -> Trial:
        """Return a trial by its name, such as `t0003`. Raises InputError when there is none of that name."""
        for record in self.trial_records:
            if record.trial == name:
                return Trial(record, self)
        raise InputError(f"Sweep {self.name} has no trial {name!r}; it has t0000 to t{len(self.trial_records) - 1:04d}.")

    def stage(self, reference: str) -> Stage:
        """Return a stored stage: REF is what the commands take, such as the beginning of a stage id. Raises InputError when there is none."""
        store = store_of(self.storage)
        return Stage(known_record(store, resolve(self.storage, reference)), store)

    def study(self, file: Path | None = None) -> "optuna.Study":
        """Return an Optuna study with all trials that have ended, for `optuna.visualization`, `optuna.importance` and the like.

        It is in memory, or in `file`, a database of SQLite such as `study.db` that Optuna's dashboard opens. Several sweeps may be in one
        file; a study of the same name in it is replaced. Raises InputError for a file that is something else, or a folder that is not there.

        The value of a trial is its score, which is maximised, and its cost where the objective has one. One that was stopped is PRUNED, and its last score is an intermediate
        value at the number of stages that it had ended; with a cost it is FAIL. `user_attrs` have its name and the id of its last stage.
        """
        told = [
            (
                Told(recipe=record.recipe, params=record.params, outcome=draw.outcome),
                {"trial": record.trial, "stage_id": record.stage_ids[max(0, len(record.stage_scores) - 1)]},
            )
            for record in self.trial_records
            for draw in record.told[-1:]
        ]
        search = joined_search([part.search for part in self.record.parts], [item.params for item, _ in told])
        return finished_study(self.name, search, told, file)


def joined_search(searches: Sequence[Search], points: Sequence[Mapping[str, Any]]) -> Search:
    """Return a search with the recipes of all these, and with parameters that hold the values of all, and those of points."""
    recipes = {recipe.name: recipe for search in searches for recipe in search.recipes}
    space: dict[str, Parameter] = {}
    pools: dict[str, int] = {}
    for search in searches:
        for key, parameter in search.space.items():
            space[key] = _joined(space[key], parameter) if key in space else parameter
        for name, count in search.pools.items():
            pools[name] = max(count, pools.get(name, 0))
    for key, parameter in space.items():
        if isinstance(parameter, Choice):  # in one part a Choice, in another a Range
            drawn = [point[key] for point in points if key in point]
            space[key] = Choice(tuple(dict.fromkeys((*parameter.values, *drawn))))
    return replace(searches[-1], recipes=tuple(recipes.values()), space=space, pools=pools, constraints=())


def _joined(first: Parameter, second: Parameter) -> Parameter:
    if isinstance(first, Range) and isinstance(second, Range):
        step = first.step if (first.step, first.low) == (second.step, second.low) else None
        return Range(min(first.low, second.low), max(first.high, second.high), log=first.log and second.log, step=step)
    values = [value for item in (first, second) for value in (item.values if isinstance(item, Choice) else ())]
    return Choice(tuple(dict.fromkeys(values)))


def load_sweep(name: str, *, storage: str = DEFAULT_STORAGE) -> Sweep:
    """Return a sweep of a storage. Raises InputError when there is no such sweep or storage, or a record cannot be read."""
    place = existing_storage(storage)
    records = SweepRecords(place.at(name))
    return Sweep(records.load_sweep(), tuple(records.load_trials()), storage, place)
