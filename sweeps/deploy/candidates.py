"""Finds the stages that an ensemble is chosen from: the last stages of sweeps' finished trials, and stages that the user names."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from birdclef_core.errors import InputError
from birdclef_core.recipes import RECIPES
from birdclef_core.store.stage_store import StageRecord, StageStore
from birdclef_core.store.storage import Storage
from birdclef_core.store.summary import IMPORTED
from sweeps.checkpoints.lineage import trace
from sweeps.checkpoints.references import known_record, resolve, store_of, sweeps_in
from sweeps.objective import Objective, Score
from sweeps.replicates import replicate_of
from sweeps.schedule.records import SweepRecord, SweepRecords

BEST_OF_A_RECIPE = 6
"""Candidates of a recipe that sweeps give: those with the best scores by the objective."""
_ON_SOUNDSCAPES, _ON_RECORDINGS = "val_soundscapes", "val"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A stage, or the mean of several, that may become a member."""

    record: StageRecord
    souped_with: tuple[StageRecord, ...] = ()
    score: Score
    """Its value of the objective, as it was scored in training."""
    recipe_weight: float | None
    """The weight that its recipe gives it in the ensemble of the 2023 solution; None where the recipe is not known."""
    has_folds: bool = False
    """Whether it is of one of several folds, so that it was trained on validation recordings of others of its trial."""

    @property
    def stage_ids(self) -> tuple[str, ...]:
        """Ids of the stages whose weights it has."""
        return tuple(record.stage_id for record in (self.record, *self.souped_with))

    @property
    def title(self) -> str:
        """What to call it in a message."""
        more = f" and {len(self.souped_with)} more" if self.souped_with else ""
        return f"{self.record.recipe} {self.record.stage} {self.record.stage_id[:12]}{more}"


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """What an ensemble is chosen from."""

    found: tuple[Candidate, ...]
    objective: Objective
    """What they are compared by: the objective of the first sweep."""
    touched: Mapping[str, str]
    """Why validation recordings (`val`) or labelled soundscapes (`val_soundscapes`) have influenced them, where they have."""
    sweep: SweepRecord | None
    """The first sweep that they are from; None where no sweep is known."""
    num_left_out: int
    """Candidates of the sweeps that were not among the best of their recipe."""
    num_gone: int
    """Finished trials whose stages on the target species are no longer in the store."""

    @property
    def species(self) -> tuple[str, ...]:
        """Species codes, sorted."""
        return tuple(sorted(self.found[0].record.species))


def find_candidates(storage: Storage, references: Sequence[str]) -> Candidates:
    """Return the candidates among what the user names: sweeps, or single stages by any REF.

    No reference stands for the newest sweep. Raises InputError for what does not exist, a sweep without a finished trial, a stage that is
    not on the target species, and stages that know different species.
    """
    store, named = store_of(storage), list(references) or [_newest(storage)]
    sweeps: dict[str, SweepRecord] = {}
    of_sweeps: dict[str, StageRecord] = {}
    of_references: dict[str, StageRecord] = {}
    of_folds: set[str] = set()
    num_gone = 0
    for reference in named:
        if _is_sweep(storage, reference):
            sweeps[reference] = SweepRecords(storage.at(reference)).load_sweep()
            records, gone = _last_stages(storage, store, reference)
            of_sweeps |= {record.stage_id: record for record in records}
            of_folds |= {record.stage_id for record in records if sweeps[reference].options.folds}
            num_gone += gone
        else:
            record = known_record(store, resolve(storage, reference))
            _require_target(record)
            of_references[record.stage_id] = record
    for record in of_references.values():
        if (name := record.trained_by.partition("/")[0]) and name not in sweeps and _is_sweep(storage, name):
            sweeps[name] = SweepRecords(storage.at(name)).load_sweep()
    first = next(iter(sweeps.values()), None)
    objective = first.objective.of_score if first else Objective.of(None)
    weights = _recipe_weights(sweeps.values())

    def candidate(record: StageRecord) -> Candidate:
        score = objective.of_record(record.metrics, "target")
        return Candidate(
            record=record,
            score=score,
            recipe_weight=weights.get(record.recipe),
            has_folds=record.stage_id in of_folds,
        )

    explicit = [candidate(record) for record in of_references.values()]
    offered = [candidate(record) for stage_id, record in of_sweeps.items() if stage_id not in of_references]
    best = _best_of_each_recipe(offered)
    found = (*explicit, *best)
    _require_same_species([item.record for item in found])
    return Candidates(
        found=found,
        objective=objective,
        touched=_touched(storage, found, sweeps),
        sweep=first,
        num_left_out=len(offered) - len(best),
        num_gone=num_gone,
    )


def siblings(candidates: Iterable[Candidate]) -> list[list[Candidate]]:
    """Return the candidates that were trained from one parent stage with one model, where there are several, the best first."""
    families: defaultdict[tuple[str, str], list[Candidate]] = defaultdict(list)
    for item in candidates:
        if item.record.parent_id:
            families[item.record.parent_id, repr(item.record.identity.get("model"))].append(item)
    return [sorted(family, key=_by_score, reverse=True) for family in families.values() if len(family) > 1]


def souped(family: Sequence[Candidate]) -> Candidate:
    """Return the candidate whose weights are the mean of those of a family of siblings."""
    first, *others = family
    return replace(first, souped_with=tuple(item.record for item in others))


def _is_sweep(storage: Storage, reference: str) -> bool:
    """Return whether a reference is the name of a sweep, and not the beginning of a stage id."""
    if not re.fullmatch(r"[\w.-]+", reference) or not SweepRecords(storage.at(reference)).exists():
        return False
    may_be_id = re.fullmatch(r"[0-9a-f]{4,64}", reference) is not None
    return not may_be_id or not any(stage_id.startswith(reference) for stage_id in store_of(storage).known_ids())


def _newest(storage: Storage) -> str:
    names = sweeps_in(storage)
    if not names:
        raise InputError(f"{storage.root} must have a sweep to choose an ensemble from, but has none: name stages instead.")
    return max(names, key=lambda name: SweepRecords(storage.at(name)).load_sweep().started_at)


def _last_stages(storage: Storage, store: StageStore, sweep: str) -> tuple[list[StageRecord], int]:
    """Return the last stage on target species of each replicate of each finished trial, each stage once, and the number of trials without one."""
    trials = [trial for trial in SweepRecords(storage.at(sweep)).load_trials() if trial.status == "finished"]
    if not trials:
        raise InputError(f"A sweep must have a finished trial to give candidates, but {sweep} has none yet.")
    found: dict[str, StageRecord] = {}
    gone = 0
    for trial in trials:
        by_replicate: dict[str, StageRecord] = {}
        for stage_id, name in zip(trial.stage_ids, trial.stages, strict=True):
            record = store.record(stage_id)
            if record is not None and _is_target(record):
                by_replicate[replicate_of(name)] = record
        has_replicates = bool(replicate_of(trial.stages[-1]))
        lasts = [record for replicate, record in by_replicate.items() if bool(replicate) == has_replicates]
        gone += not lasts
        found |= {record.stage_id: record for record in lasts}
    if not found:
        raise InputError(
            f"A sweep must have a stage on the target species to give candidates, but of the {gone} finished trials of {sweep} the store "
            "has none."
        )
    return list(found.values()), gone


def _is_target(record: StageRecord) -> bool:
    return record.identity.get("stage", {}).get("label_space", "target") == "target"


def _require_target(record: StageRecord) -> None:
    if not _is_target(record):
        raise InputError(
            f"A member of an ensemble must be a stage on the target species, but {record.recipe} {record.stage} {record.stage_id[:12]} is on "
            "all species."
        )


def _require_same_species(records: Sequence[StageRecord]) -> None:
    first = records[0]
    for other in records[1:]:
        if set(other.species) != set(first.species):
            raise InputError(
                f"The members of an ensemble must know the same species, but {first.stage_id[:12]} knows {len(first.species)} and "
                f"{other.stage_id[:12]} knows {len(other.species)}, of which {len(set(first.species) & set(other.species))} are the same."
            )


def _recipe_weights(sweeps: Iterable[SweepRecord]) -> dict[str, float]:
    known = {name: recipe().ensemble_weight for name, recipe in RECIPES.items()}
    return known | {recipe.name: recipe.ensemble_weight for sweep in sweeps for recipe in sweep.parts[-1].search.recipes}


def _by_score(item: Candidate) -> float:
    return item.score.value if item.score.value == item.score.value else float("-inf")


def _best_of_each_recipe(offered: Sequence[Candidate]) -> list[Candidate]:
    by_recipe: defaultdict[str, list[Candidate]] = defaultdict(list)
    for item in sorted(offered, key=_by_score, reverse=True):
        by_recipe[item.record.recipe].append(item)
    return [item for items in by_recipe.values() for item in items[:BEST_OF_A_RECIPE]]


def _touched(storage: Storage, found: Sequence[Candidate], sweeps: Mapping[str, SweepRecord]) -> dict[str, str]:
    """Return why each kind of data has influenced the candidates, where it has or where that is not known."""
    known, touched, store = dict(sweeps), dict[str, str](), store_of(storage)
    for item in found:
        for record in (ancestor.record for stage_id in item.stage_ids for ancestor in trace(stage_id, store.record)):
            name = "" if record is None else record.trained_by.partition("/")[0]
            if name and name not in known and _is_sweep(storage, name):
                known[name] = SweepRecords(storage.at(name)).load_sweep()
            for kind, text in _influence(record, known).items():
                touched.setdefault(kind, f"{text} ({item.title})")
    for sweep in known.values():
        for term in (term for part in sweep.parts for term in Objective.of(part.search.objective).terms):
            kind = _ON_SOUNDSCAPES if term.kind == _ON_SOUNDSCAPES else _ON_RECORDINGS
            touched[kind] = f"{term.name} is the objective of {sweep.name}"
    return touched


def _influence(record: StageRecord | None, sweeps: Mapping[str, SweepRecord]) -> dict[str, str]:
    """Return why each kind of data has influenced a stage, apart from the objectives of known sweeps."""
    if record is None or record.identity.get("data") == IMPORTED or record.trained_by.partition("/")[0] not in sweeps:
        text = "it is not known what a stage was chosen by"
        return {_ON_RECORDINGS: text, _ON_SOUNDSCAPES: text}
    stage = record.identity.get("stage", {})
    if stage.get("early_stop_epochs") is not None:
        return {_ON_RECORDINGS: "validation recordings ended the training of a stage"}
    if stage.get("label_space") == "all":
        return {_ON_RECORDINGS: "stages on all species are compared by validation recordings"}
    return {}
