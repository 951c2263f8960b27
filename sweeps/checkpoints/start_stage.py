"""Trials that start from a stored stage (`--from-stage`): which recipes can, and which of their stages remain."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from birdclef_core.config import STAGE_NAMES, Recipe, StageConfig, evolve, flatten
from birdclef_core.errors import InputError
from birdclef_core.identity import canonical
from birdclef_core.stages.embeddings.recorded import encoders_of
from birdclef_core.store.leakage import AUTHOR_OR_PLACE, RecordingsReader, find_leak
from birdclef_core.store.stage_store import StageRecord
from birdclef_core.store.storage import Storage
from sweeps.checkpoints.explain import differences
from sweeps.checkpoints.lineage import trace, trained_stages
from sweeps.checkpoints.references import resolve, store_of
from sweeps.execution.recordings_list import RecordingsList
from sweeps.search.names import MODEL, find_field
from sweeps.search.space import Search

SHOWN_FIELDS = 3


def find_start(storage: Storage, reference: str) -> StageRecord:
    """Return the record of the stage that a reference names. Raises InputError when there is none, it is no stage that trials can start from,
    or its files are damaged."""
    stage_id = resolve(storage, reference)
    record = store_of(storage).record(stage_id)
    if record is not None:
        record.require_encoder()
    return _whole(storage, stage_id, "the stage that trials start from")


def find_teacher(storage: Storage, stage_id: str) -> StageRecord:
    """Return the record of a stage that makes predictions. Raises InputError when it has no weights, or its files or those of the embeddings
    with whose encoder it hears are damaged or gone."""
    record = _whole(storage, stage_id, "a teacher")
    record.require_weights()
    for encoder_id in encoders_of([record]):
        _whole(storage, encoder_id, f"the embeddings of the teacher {stage_id[:16]}")
    return record


def _whole(storage: Storage, stage_id: str, what: str) -> StageRecord:
    store = store_of(storage)
    problem, record = store.check(stage_id), store.record(stage_id)
    if problem or record is None:
        raise InputError(
            f"The files of {what} must be undamaged, but those of {stage_id[:16]} are not: {problem.rstrip('.') or 'it has no record'}. "
            "Import it again, or run a sweep that needs it, which trains it again."
        )
    return record


def start_after(search: Search, start: StageRecord) -> Search:
    """Return the search with the recipes that have the stage's model, and only the stages that come after it.

    These are the stages after the one of the same name; where a recipe has none of that name, those that come later in the usual
    order. Raises InputError when no recipe has the model, none has a stage left, or one that is left needs one that is not.
    """
    fitting = with_model_of(search, start)
    rest = {recipe.name: _after(recipe, start.stage) for recipe in fitting.recipes}
    if not any(rest.values()):
        ends = ", ".join(f"{recipe.name} ends with {recipe.stages[-1].name}" for recipe in fitting.recipes)
        raise InputError(
            f"Stages must remain after {_title(start)}, but {ends}. Start from an earlier stage, or with a search that has more stages."
        )
    for recipe in fitting.recipes:
        _check_needs(recipe, rest[recipe.name], start)
    recipes = tuple(replace(recipe, stages=rest[recipe.name]) for recipe in fitting.recipes if rest[recipe.name])
    return replace(fitting, recipes=recipes)


def with_model_of(search: Search, start: StageRecord) -> Search:
    """Return the search with only the recipes that have the stage's model, or have it for some values of the model's parameters.

    The model's parameters are no longer sampled. Raises InputError, with the differences, when no recipe has the model.
    """
    model = start.identity.get("model", {})
    sampled = [key for key in search.space if find_field(key).group == MODEL]
    recorded = {f"{MODEL}.{path}": value for path, value in flatten(model)}
    settings = {key: recorded[key] for key in sampled if key in recorded}
    alike = [(recipe, _with_model(recipe, settings)) for recipe in search.recipes]
    recipes = tuple(changed for _, changed in alike if changed is not None and canonical(changed.model) == model)
    if not recipes:
        others = "; ".join(f"{recipe.name}: {_why_other(changed or recipe, start)}" for recipe, changed in alike)
        raise InputError(
            f"A recipe must have the model of {_title(start)} to start from it, but none of search {search.name!r} has ({others}). "
            "Give the search, --budget and --set that it was trained with."
        )
    return replace(
        search,
        recipes=recipes,
        space={key: parameter for key, parameter in search.space.items() if key not in sampled},
        pools={group: size for group, size in search.pools.items() if group != MODEL},
    )


def _with_model(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe | None:
    """The recipe with settings of its model; None when it cannot have them."""
    try:
        return replace(recipe, model=evolve(recipe.model, {key.partition(".")[2]: value for key, value in settings.items()}))
    except InputError:
        return None


class StartLeak:
    """The leak from the stages that trials start or learn from, and from all their ancestors, into the validation recordings of a dataset."""

    def __init__(
        self, storage: Storage, start: StageRecord | None, teachers: Sequence[StageRecord], recordings: RecordingsList
    ) -> None:
        """`storage` holds the sweeps and their store."""
        store, records = store_of(storage), [*([start] if start else []), *teachers]
        self._what = "start stage" if start and not teachers else "teacher" if not start else "start stage or a teacher"
        self._title, self._recordings = " or ".join(_title(record) for record in records), recordings
        self._stages = list(
            {stage.title: stage for record in records for stage in trained_stages(trace(record.stage_id, store.record))}.values()
        )
        self._reader = RecordingsReader(store.storage)
        leak = self._reader.leak(lambda: recordings.table, recordings.data_fingerprint, self._stages)
        heard = self._reader.trained_soundscapes(lambda: recordings.scored_soundscapes, recordings.data_fingerprint, self._stages)
        self.leak = replace(leak, num_soundscapes=int(heard.sum()), source=f"{'the' if start else 'a'} {self._what}")

    def refusal(self, fold: int, *, may_change_fold: bool) -> InputError:
        """Return the error for a sweep whose scores would be leaked, with the numbers and the ways out."""
        leak, least = self.leak, "at least " if self.leak.unknown else ""
        validation = f"of the {leak.num_validation} validation recordings of fold {fold}"
        source = f"{self._title} or a stage that it was trained from"
        if leak.num_trained:
            more = (
                f", and {leak.num_by_author} more have {AUTHOR_OR_PLACE} in common with recordings that did"
                if leak.num_by_author
                else ""
            )
            fault = (
                f"A {self._what} must not have been trained on recordings that score the stages after it, but "
                f"{least}{leak.num_trained} {validation} trained {source}{more}. A model does better on what it was trained on"
            )
        elif not leak.num_by_author:
            fault = (
                f"A {self._what} must not have been trained on labelled soundscapes that score the stages after it, but "
                f"{leak.num_soundscapes} of them trained {source}. A model does better on what it was trained on"
            )
        else:
            fault = (
                f"A {self._what} must not have been trained on authors whose recordings score the stages after it, but "
                f"{least}{leak.num_by_author} {validation} have {AUTHOR_OR_PLACE} in common with recordings that trained {source}. "
                "Such recordings are alike (birds, microphone)"
            )
        ways = [f"another {self._what}", "or --allow-leaked-scores (marks every score as leaked)"]
        if may_change_fold and (free := list(self._free_folds())):
            ways.insert(0, f"--fold {' or '.join(map(str, free))} (no{' known' if leak.unknown else ''} leak)")
        return InputError(
            f"{fault}, so all scores would be too high and could not be compared with others. Ways out: {', '.join(ways)}."
        )

    def _free_folds(self) -> Iterator[int]:
        """The folds of the recordings into which there is no leak."""
        if self.leak.num_soundscapes:
            return  # the same soundscapes score in every fold
        trained = self._reader.trained(self._stages)
        for fold, table in self._recordings.folds():
            if table["is_validation"].any() and not find_leak(table, trained).is_found:
                yield fold


def describe_start(search: Search, start: StageRecord) -> str:
    """One line for the user: where trials start, and which stages follow."""
    chains = "; ".join(f"{recipe.name}: {' → '.join(stage.name for stage in recipe.stages)}" for recipe in search.recipes)
    return f"Every trial starts from {_title(start)} and continues with {chains}."


def _after(recipe: Recipe, name: str) -> tuple[StageConfig, ...]:
    names = [stage.name for stage in recipe.stages]
    if name in names:
        return recipe.stages[names.index(name) + 1 :]
    if name not in STAGE_NAMES:
        return recipe.stages
    later = STAGE_NAMES[STAGE_NAMES.index(name) + 1 :]
    return tuple(stage for stage in recipe.stages if stage.name in later or stage.name not in STAGE_NAMES)


def _check_needs(recipe: Recipe, rest: Sequence[StageConfig], start: StageRecord) -> None:
    gone = {stage.name for stage in recipe.stages} - {stage.name for stage in rest}
    for stage in rest:
        needs = {
            "starts_from": stage.starts_from,
            "predicts": stage.predicts,
            "teacher.predictions": stage.teacher.predictions,
            "embeddings": stage.embeddings,
        }
        for field, name in needs.items():
            if name in gone:
                raise InputError(
                    f"Trials that start from {_title(start)} have only the stages after it, but {field} of stage {stage.name} of recipe "
                    f"{recipe.name!r} is {name!r}, which is none of them. Start from an earlier stage, or leave --from-stage out: stages that are "
                    "stored are reused."
                )


def _why_other(recipe: Recipe, start: StageRecord) -> str:
    found = differences(start.identity.get("model", {}), canonical(recipe.model))
    named = [f"{item.field} is {item.second!r} and not {item.first!r}" for item in found[:SHOWN_FIELDS]]
    return ", ".join(named) + (f" and {len(found) - SHOWN_FIELDS} more" if len(found) > SHOWN_FIELDS else "")


def _title(record: StageRecord) -> str:
    return f"{record.recipe} {record.stage} {record.stage_id[:12]}"
