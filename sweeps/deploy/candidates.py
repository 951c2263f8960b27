"""Finds the stages that an ensemble is chosen from: the last stages of sweeps' finished trials, and stages that the user names."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from birdclef_core.errors import InputError
from birdclef_core.recipes import RECIPES
from birdclef_core.store.stage_store import StageRecord, StageStore
from birdclef_core.store.storage import Storage
from birdclef_core.store.summary import IMPORTED
from sweeps.checkpoints.lineage import trace
from sweeps.checkpoints.references import known_record, resolve, store_of, sweeps_in
from sweeps.objective import Objective, Score
from sweeps.options import SweepOptions
from sweeps.replicates import replicate_of
from sweeps.schedule.records import SweepRecord, SweepRecords, TrialRecord

BEST_OF_A_RECIPE = 6
"""Candidates of a recipe that sweeps give: those with the best scores by the objective."""
_ON_SOUNDSCAPES, _ON_RECORDINGS = "val_soundscapes", "val"


@dataclass(frozen=True, kw_only=True)
class Network:
    """A stage, or the mean of the weights of several."""

    record: StageRecord
    souped_with: tuple[StageRecord, ...] = ()

    @property
    def stage_ids(self) -> tuple[str, ...]:
        """Ids of the stages whose weights it has."""
        return tuple(record.stage_id for record in self.records)

    @property
    def records(self) -> tuple[StageRecord, ...]:
        """The records of these stages."""
        return (self.record, *self.souped_with)


@dataclass(frozen=True, kw_only=True)
class FoldedTrial:
    """The trial that a candidate is, where it has a model for each of several folds."""

    sweep: str
    record: TrialRecord
    options: SweepOptions
    """Those of its sweep."""

    @property
    def reference(self) -> str:
        """What users call it."""
        return f"{self.sweep}/{self.record.trial}"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What may enter an ensemble: one network, or a trial with one for each of several folds."""

    networks: tuple[Network, ...]
    """What scores it. Of a trial with several folds, each scores the recordings of its own fold, in the order of folds."""
    score: Score
    """Its value of the objective, as it was scored in training; of a trial with several folds, the mean over these."""
    recipe_weight: float | None
    """The weight that its recipe gives it in the ensemble of the 2023 solution; None where the recipe is not known."""
    trial: FoldedTrial | None = None
    refit: StageRecord | None = None
    """The stage that hears in its place in an ensemble: the configuration of the trial, trained on all recordings."""

    @property
    def record(self) -> StageRecord:
        """The stage that its network is, or the first of them."""
        return self.networks[0].record

    @property
    def of_trial(self) -> FoldedTrial:
        """The trial with several folds that it is."""
        assert self.trial is not None
        return self.trial

    @property
    def stage_ids(self) -> tuple[str, ...]:
        """Ids of the stages whose weights score it."""
        return tuple(stage_id for network in self.networks for stage_id in network.stage_ids)

    @property
    def hearing(self) -> tuple[Network, ...]:
        """The networks that hear where it is a member of an ensemble."""
        return self.networks if self.refit is None else (Network(record=self.refit),)

    @property
    def key(self) -> str:
        """A short name that no other candidate has."""
        return self.trial.reference if self.trial else self.record.stage_id[:12]

    @property
    def title(self) -> str:
        """What to call it in a message."""
        souped = len(self.networks[0].souped_with)
        return f"{self.record.recipe} {self.record.stage} {self.key}{f' and {souped} more' if souped else ''}"


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
    gone: tuple[str, ...]
    """Finished trials whose stages on the target species are no longer in the store, or not of all folds."""

    @property
    def species(self) -> tuple[str, ...]:
        """Species codes, sorted."""
        return tuple(sorted(self.found[0].record.species))

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds that each of them has a model for, where they are trials with several folds."""
        trial = self.found[0].trial
        return trial.options.validating if trial else ()


@dataclass(kw_only=True)
class Gathered:
    """What was found for the references, before the best are taken."""

    storage: Storage
    sweeps: dict[str, SweepRecord] = field(default_factory=dict)
    explicit: list[Candidate] = field(default_factory=list)
    """Those that the user names: all take part."""
    offered: list[Candidate] = field(default_factory=list)
    """Those of sweeps."""
    gone: list[str] = field(default_factory=list)

    @property
    def first(self) -> SweepRecord | None:
        return next(iter(self.sweeps.values()), None)

    @property
    def objective(self) -> Objective:
        """What candidates are compared by."""
        return self.first.objective.of_score if self.first else Objective.of(None)

    def recipe_weight(self, recipe: str) -> float | None:
        """Return the weight that a recipe has in the ensemble of the 2023 solution, or in a search of the sweeps."""
        known = {name: make().ensemble_weight for name, make in RECIPES.items()}
        known |= {item.name: item.ensemble_weight for sweep in self.sweeps.values() for item in sweep.parts[-1].search.recipes}
        return known.get(recipe)

    def candidates(self) -> Candidates:
        """Return those that the user names and the best of each recipe. Raises InputError when they know different species."""
        best = _best_of_each_recipe(self.offered)
        found = (*self.explicit, *best)
        _require_same_species([item.record for item in found])
        return Candidates(
            found=found,
            objective=self.objective,
            touched=_touched(self.storage, found, self.sweeps),
            sweep=self.first,
            num_left_out=len(self.offered) - len(best),
            gone=tuple(self.gone),
        )


def find_candidates(storage: Storage, references: Sequence[str]) -> Candidates:
    """Return the candidates among what the user names: sweeps, or single stages by any REF.

    No reference stands for the newest sweep. Raises InputError for what does not exist, a sweep without a finished trial, a stage that is
    not on the target species, and stages that know different species.
    """
    store, gathered = store_of(storage), Gathered(storage=storage)
    sweeps = gathered.sweeps
    of_sweeps: dict[str, StageRecord] = {}
    of_references: dict[str, StageRecord] = {}
    for reference in list(references) or [newest_sweep(storage)]:
        if is_sweep(storage, reference):
            sweeps[reference] = SweepRecords(storage.at(reference)).load_sweep()
            records, gone = _last_stages(storage, store, reference)
            of_sweeps |= {record.stage_id: record for record in records}
            gathered.gone += gone
        else:
            record = known_record(store, resolve(storage, reference))
            _require_target(record)
            of_references[record.stage_id] = record
    for record in of_references.values():
        if (name := record.trained_by.partition("/")[0]) and name not in sweeps and is_sweep(storage, name):
            sweeps[name] = SweepRecords(storage.at(name)).load_sweep()

    def candidate(record: StageRecord) -> Candidate:
        score, weight = gathered.objective.of_record(record.metrics, "target"), gathered.recipe_weight(record.recipe)
        return Candidate(networks=(Network(record=record),), score=score, recipe_weight=weight)

    gathered.explicit = [candidate(record) for record in of_references.values()]
    gathered.offered = [candidate(record) for stage_id, record in of_sweeps.items() if stage_id not in of_references]
    return gathered.candidates()


def siblings(candidates: Iterable[Candidate]) -> list[list[Candidate]]:
    """Return the candidates that were trained from one parent stage with one model, where there are several, the best first.

    Trials with several folds are siblings where they are so in each fold.
    """
    families: defaultdict[tuple[str, ...], list[Candidate]] = defaultdict(list)
    for item in candidates:
        parents = [network.record.parent_id or "" for network in item.networks]
        if all(parents):
            families[*parents, repr(item.record.identity.get("model"))].append(item)
    return [sorted(family, key=_by_score, reverse=True) for family in families.values() if len(family) > 1]


def souped(family: Sequence[Candidate]) -> Candidate:
    """Return the candidate whose weights are the mean of those of a family of siblings, in each fold."""
    networks = tuple(
        Network(record=first.record, souped_with=tuple(network.record for network in others))
        for first, *others in zip(*(item.networks for item in family), strict=True)
    )
    return replace(family[0], networks=networks, refit=None)


def is_sweep(storage: Storage, reference: str) -> bool:
    """Return whether a reference is the name of a sweep, and not the beginning of a stage id."""
    if not re.fullmatch(r"[\w.-]+", reference) or not SweepRecords(storage.at(reference)).exists():
        return False
    may_be_id = re.fullmatch(r"[0-9a-f]{4,64}", reference) is not None
    return not may_be_id or not any(stage_id.startswith(reference) for stage_id in store_of(storage).known_ids())


def newest_sweep(storage: Storage) -> str:
    """Return the name of the sweep that began last. Raises InputError where there is none."""
    names = sweeps_in(storage)
    if not names:
        raise InputError(f"{storage.root} must have a sweep to choose an ensemble from, but has none: name stages instead.")
    return max(names, key=lambda name: SweepRecords(storage.at(name)).load_sweep().started_at)


def finished_trials(storage: Storage, sweep: str) -> list[TrialRecord]:
    """Return the finished trials of a sweep. Raises InputError where there is none."""
    trials = [trial for trial in SweepRecords(storage.at(sweep)).load_trials() if trial.status == "finished"]
    if not trials:
        raise InputError(f"A sweep must have a finished trial to give candidates, but {sweep} has none yet.")
    return trials


def is_candidate(record: StageRecord | None) -> bool:
    """Return whether a stage is in the store and hears target species."""
    return record is not None and not record.is_predictions and _is_target(record)


def _last_stages(storage: Storage, store: StageStore, sweep: str) -> tuple[list[StageRecord], list[str]]:
    """Return the last stage on target species of each replicate of each finished trial, each stage once, and the trials without one."""
    found: dict[str, StageRecord] = {}
    gone = []
    for trial in finished_trials(storage, sweep):
        by_replicate: dict[str, StageRecord] = {}
        for stage_id, name in zip(trial.stage_ids, trial.stages, strict=True):
            record = store.record(stage_id)
            if record is not None and is_candidate(record):
                by_replicate[replicate_of(name)] = record
        has_replicates = bool(replicate_of(trial.stages[-1]))
        lasts = [record for replicate, record in by_replicate.items() if bool(replicate) == has_replicates]
        gone += [] if lasts else [f"{sweep}/{trial.trial}"]
        found |= {record.stage_id: record for record in lasts}
    if not found:
        raise InputError(
            f"A sweep must have a stage on the target species to give candidates, but of the {len(gone)} finished trials of {sweep} the store "
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
            if name and name not in known and is_sweep(storage, name):
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
