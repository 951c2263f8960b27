"""Teachers from the store: which stages the predictions of a search's recipes are made of, where these name stored ones."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from birdclef_core.chain import check_teaches, teacher_in_chain
from birdclef_core.config import EMBEDS, ModelConfig, Recipe
from birdclef_core.ensemble.record import read_record
from birdclef_core.errors import InputError
from birdclef_core.identity import restore
from birdclef_core.stages.task import parse_teachers, teachers_text
from birdclef_core.store.stage_store import StageRecord
from birdclef_core.store.storage import Storage
from birdclef_core.store.summary import work_of_embeddings
from sweeps.checkpoints.references import existing_storage, known_record, resolve, store_of
from sweeps.checkpoints.start_stage import find_teacher
from sweeps.search.chains import Teacher
from sweeps.search.names import find_field
from sweeps.search.parameters import Choice, Parameter
from sweeps.search.space import Search

ENSEMBLE_SUFFIX = ".json"


def resolve_teachers(search: Search, storage: str) -> Search:
    """Return the search with the ids of stages in place of references and ensembles, in recipes and in parameters.

    A reference, such as a sweep's best trial, may mean another stage later, and a sweep is resumed from its record. Raises InputError for a
    reference that stands for nothing, naming the stages of the recipe, and for an ensemble that cannot teach.
    """
    recipes = tuple(_resolved(recipe, storage) for recipe in search.recipes)
    spaces = (
        {key: _values(key, item, recipes, storage) for key, item in space.items()} for space in (search.space, search.small_space)
    )
    space, small_space = spaces
    return replace(search, recipes=recipes, space=space, small_space=small_space)


def hears_unlabelled(search: Search) -> bool:
    """Return whether a search makes predictions of soundscapes without labels."""
    recipes = (stage for recipe in search.recipes for stage in recipe.stages)
    return any(stage.predicts and not stage.embeds and stage.predicts_on == "unlabelled" for stage in recipes) or any(
        find_field(key).path in ("predicts", "predicts_on") for key in search.space
    )


def teacher_records(search: Search, storage: Storage) -> list[StageRecord]:
    """Return the records of the stored teachers of a search. Raises InputError when one is gone or damaged, or gives no probabilities."""
    records = [find_teacher(storage, stage_id) for stage_id in search.stored_teachers()]
    for record in records:
        check_teaches(
            record.identity.get("stage", {}).get("loss", ""), "that predicts", f"the stored {record.stage} {record.stage_id[:16]}"
        )
    return records


def teachers_by_id(records: list[StageRecord], storage: Storage) -> Mapping[str, Teacher]:
    """Return what chains need to know of stored teachers, by their ids."""
    return {record.stage_id: _teacher(record, storage) for record in records}


def _teacher(record: StageRecord, storage: Storage) -> Teacher:
    model, embeddings_id = restore(ModelConfig, record.identity["model"]), record.identity.get("embeddings")
    work = work_of_embeddings(known_record(store_of(storage), embeddings_id).identity) if embeddings_id else ""
    compares = record.identity.get("stage", {}).get("loss") == "ce"
    return Teacher(model=model, embeddings_id=embeddings_id, encoder_work=work, compares=compares)


def _resolved(recipe: Recipe, storage: str) -> Recipe:
    stages = tuple(
        replace(stage, predicts=_ids(stage.predicts, recipe, index, storage))
        if stage.predicts and not stage.embeds and teacher_in_chain(recipe.stages, index) is None
        else stage
        for index, stage in enumerate(recipe.stages)
    )
    return replace(recipe, stages=stages)


def _values(key: str, parameter: Parameter, recipes: tuple[Recipe, ...], storage: str) -> Parameter:
    if not isinstance(parameter, Choice) or find_field(key).path != "predicts":
        return parameter
    place, recipe = next(((place, recipe) for recipe in recipes for place, _ in find_field(key).places(recipe)), (0, recipes[0]))
    values = tuple(
        value
        if value in _teachers_in(recipe, place) or str(value).startswith(EMBEDS)
        else _ids(str(value), recipe, place, storage)
        for value in parameter.values
    )
    return replace(parameter, values=values)


def _teachers_in(recipe: Recipe, index: int) -> list[str]:
    """The names of the stages of a recipe whose predictions one of its stages can make."""
    return [stage.name for stage in recipe.stages[:index] if not stage.predicts]


def _ids(text: str, recipe: Recipe, index: int, storage: str) -> str:
    with suppress(InputError):  # a reference otherwise
        return teachers_text(parse_teachers(text))
    rule = (
        f"predicts of stage {recipe.stages[index].name} of recipe {recipe.name!r} must be an earlier stage that trains "
        f"({', '.join(_teachers_in(recipe, index)) or 'there is none'}), a stored stage or an ensemble, but is {text!r}"
    )
    for place, stage in enumerate(recipe.stages):
        if stage.name == text:
            why = "the stage itself" if place == index else "a stage that predicts" if stage.predicts else "a later stage"
            raise InputError(f"{rule}, {why}.")
    try:
        return teachers_text(tuple(_found(text, storage)))
    except InputError as error:
        raise InputError(f"{rule}. {error}") from None


def _found(text: str, storage: str) -> Iterator[tuple[str, float]]:
    if not text.endswith(ENSEMBLE_SUFFIX):
        yield resolve(existing_storage(storage), text), 1.0
        return
    ensemble, place = read_record(Path(text).expanduser()), existing_storage(storage)
    for member in ensemble.members:
        if member.souped_with:
            raise InputError(f"{text} has a member whose weights are the mean of several stages, which cannot teach.")
        try:
            known_record(store_of(place), member.stage_id)
        except InputError as error:
            raise InputError(f"{error} The ensemble was chosen from the stages of {ensemble.storage}.") from None
        yield member.stage_id, member.weight
