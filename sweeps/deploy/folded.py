"""Trials with several folds as candidates of an ensemble: each recording scores the model of a trial that did not learn from its fold."""

import math
from collections.abc import Iterable, Sequence

from birdclef_core.errors import InputError
from birdclef_core.store.stage_store import StageRecord, StageStore
from birdclef_core.store.storage import Storage
from sweeps.checkpoints.references import store_of
from sweeps.deploy.candidates import (
    Candidate,
    Candidates,
    FoldedTrial,
    Gathered,
    Network,
    finished_trials,
    is_candidate,
    is_sweep,
    newest_sweep,
)
from sweeps.replicates import fold_of, levels, mean_score, replicate_of
from sweeps.schedule.records import SweepRecord, SweepRecords, TrialRecord

WAYS_OUT = "name these alone, or give --select-on soundscapes, which compares single models"
_TOLERANCE = 1e-6


def has_folds(storage: Storage, references: Sequence[str]) -> bool:
    """Return whether a reference is a sweep with `--folds` or a trial of one; no reference stands for the newest sweep."""
    return any(_folded_sweep(storage, reference) is not None for reference in list(references) or [newest_sweep(storage)])


def find_trials(storage: Storage, references: Sequence[str]) -> Candidates:
    """Return the finished trials among what the user names as candidates, each with a model for every fold.

    References are sweeps with `--folds` and SWEEP/TRIAL; none stands for the newest sweep. A trial without a model for every fold in the
    store is left out. Raises InputError for another reference, a sweep or trial without a finished trial, sweeps with different folds,
    and where no trial is left.
    """
    store, gathered = store_of(storage), Gathered(storage=storage)
    named, chosen = list(references) or [newest_sweep(storage)], dict[str, TrialRecord]()
    explicit: set[str] = set()
    for reference in named:
        sweep = _folded_sweep(storage, reference)
        if sweep is None:
            raise InputError(
                "Where recordings decide, candidates must all be trials with the same folds, as each recording is scored by models that "
                f"did not learn from it, but {reference} is none: it has a model of one fold alone, which learned from recordings of the "
                f"others. Ways out: {WAYS_OUT}; or name single stages of one fold (SWEEP/TRIAL/STAGE), which are compared on that fold."
            )
        gathered.sweeps[sweep.name] = sweep
        name = _trial_of(reference)
        trials = [trial for trial in finished_trials(storage, sweep.name) if name in ("", trial.trial)]
        if not trials:
            raise InputError(f"A trial must have finished to be a candidate, but {reference} has not.")
        chosen |= {f"{sweep.name}/{trial.trial}": trial for trial in trials}
        explicit |= {reference.strip("/")} if name else set()
    _require_same_folds(gathered.sweeps.values())
    for reference, trial in chosen.items():
        sweep = gathered.sweeps[reference.partition("/")[0]]
        models = _models(store, trial, sweep.options.validating)
        if not models:
            gathered.gone.append(reference)
            continue
        objective, networks = gathered.objective, tuple(Network(record=record) for record in models.values())
        scores = {name: objective.of_record(record.metrics, "target") for name, record in models.items()}
        candidate = Candidate(
            networks=networks,
            score=mean_score(scores, on_soundscapes=objective.on_soundscapes),
            recipe_weight=gathered.recipe_weight(networks[0].record.recipe),
            trial=FoldedTrial(sweep=sweep.name, record=trial, options=sweep.options),
        )
        (gathered.explicit if reference in explicit else gathered.offered).append(candidate)
    if not gathered.explicit and not gathered.offered:
        raise InputError(
            f"A trial must have a model for every fold in the store to be a candidate, but of the finished trials of {', '.join(named)} none has."
        )
    return gathered.candidates()


def other_scores(candidates: Candidates) -> list[str]:
    """Return a text for each trial whose stages in the store have other scores than its sweep was told."""
    objectives = {candidates.sweep.name: candidates.sweep.objective.of_score} if candidates.sweep else {}
    texts = []
    for item in candidates.found:
        if item.trial is None or objectives.get(item.trial.sweep) != candidates.objective:
            continue  # trials of other sweeps may have been compared by something else
        told = item.trial.record.score
        if told is not None and not math.isclose(told, item.score.value, abs_tol=_TOLERANCE):
            texts.append(
                f"{item.trial.reference} scored {told:.4f} in its sweep, but its stages in the store say {item.score.value:.4f}: they "
                "have been trained again."
            )
    return texts


def _folded_sweep(storage: Storage, reference: str) -> SweepRecord | None:
    """Return the record of the sweep that a reference names, or a trial of which it names, if that has several folds."""
    name, _, rest = reference.strip("/").partition("/")
    if "/" in rest or not is_sweep(storage, name):
        return None
    sweep = SweepRecords(storage.at(name)).load_sweep()
    return sweep if sweep.options.folds is not None else None


def _trial_of(reference: str) -> str:
    return reference.strip("/").partition("/")[2]


def _models(store: StageStore, trial: TrialRecord, folds: Sequence[int]) -> dict[str, StageRecord]:
    """Return the last stages on target species by name, one for each fold; nothing where one is no longer in the store."""
    for level in reversed(levels(trial.stages)):
        if not replicate_of(trial.stages[level[0]]):
            continue
        records = {trial.stages[index]: store.record(trial.stage_ids[index]) for index in level}
        if any(is_candidate(record) for record in records.values()):
            kept = {name: record for name, record in records.items() if record is not None}
            return kept if sorted(map(fold_of, kept)) == sorted(folds) else {}
    return {}


def _require_same_folds(sweeps: Iterable[SweepRecord]) -> None:
    first, *others = sweeps
    for other in others:
        if other.options.validating != first.options.validating:
            raise InputError(
                f"Where recordings decide, candidates must be trials with the same folds, but {first.name} has {first.options.folds} folds "
                f"and {other.name} has {other.options.folds}. Ways out: {WAYS_OUT}."
            )
