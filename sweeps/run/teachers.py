"""Teachers from the store: which stages the predictions of a search's recipes are made of, where these name stored ones."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from birdclef_core.chain import teacher_in_chain
from birdclef_core.config import EMBEDS, ModelConfig, Recipe
from birdclef_core.ensemble.record import read_record
from birdclef_core.errors import InputError
from birdclef_core.identity import restore
from birdclef_core.stages.task import parse_teachers, teachers_text
from birdclef_core.store.stage_store import StageRecord
from birdclef_core.store.storage import Storage
from sweeps.checkpoints.references import existing_storage, known_record, resolve, store_of
from sweeps.checkpoints.start_stage import find_start
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


def stored_teachers(search: Search) -> dict[str, str]:
    """Return the ids of the stored stages whose predictions a search makes, each with the name of the stage that makes them."""
    found: dict[str, str] = {}
    for recipe in search.recipes:
        for index, stage in enumerate(recipe.stages):
            if stage.predicts and not stage.embeds and teacher_in_chain(recipe.stages, index) is None:
                found |= {stage_id: stage.name for stage_id, _ in parse_teachers(stage.predicts)}
    for key, parameter in search.space.items():
        if find_field(key).path == "predicts" and isinstance(parameter, Choice):
            for text in parameter.values:
                with suppress(InputError):  # the name of a stage of the chain
                    found |= {stage_id: key.partition(".")[0] for stage_id, _ in parse_teachers(str(text))}
    return found


def hears_unlabelled(search: Search) -> bool:
    """Return whether a search makes predictions of soundscapes without labels."""
    recipes = (stage for recipe in search.recipes for stage in recipe.stages)
    return any(stage.predicts and not stage.embeds and stage.predicts_on == "unlabelled" for stage in recipes) or any(
        find_field(key).path in ("predicts", "predicts_on") for key in search.space
    )


def teacher_records(search: Search, storage: Storage) -> list[StageRecord]:
    """Return the records of the stored teachers of a search. Raises InputError when one is gone or damaged."""
    return [find_start(storage, stage_id) for stage_id in stored_teachers(search)]


def teacher_models(records: list[StageRecord]) -> Mapping[str, ModelConfig]:
    """Return the models of stored teachers by their ids."""
    return {record.stage_id: restore(ModelConfig, record.identity["model"]) for record in records}


def _resolved(recipe: Recipe, storage: str) -> Recipe:
    stages = tuple(
        replace(stage, predicts=_ids(stage.predicts, recipe, stage.name, storage))
        if stage.predicts and not stage.embeds and teacher_in_chain(recipe.stages, index) is None
        else stage
        for index, stage in enumerate(recipe.stages)
    )
    return replace(recipe, stages=stages)


def _values(key: str, parameter: Parameter, recipes: tuple[Recipe, ...], storage: str) -> Parameter:
    if not isinstance(parameter, Choice) or find_field(key).path != "predicts":
        return parameter
    recipe = next((recipe for recipe in recipes if find_field(key).places(recipe)), recipes[0])
    names = {stage.name for stage in recipe.stages}
    values = tuple(
        value if value in names or str(value).startswith(EMBEDS) else _ids(str(value), recipe, key.partition(".")[0], storage)
        for value in parameter.values
    )
    return replace(parameter, values=values)


def _ids(text: str, recipe: Recipe, name: str, storage: str) -> str:
    with suppress(InputError):  # a reference otherwise
        return teachers_text(parse_teachers(text))
    try:
        return teachers_text(tuple(_found(text, storage)))
    except InputError as error:
        earlier = [stage.name for stage in recipe.stages if not stage.predicts]
        raise InputError(
            f"predicts of stage {name} of recipe {recipe.name!r} must be an earlier stage of the recipe ({', '.join(earlier)}), a stored "
            f"stage or an ensemble, but is {text!r}. {error}"
        ) from None


def _found(text: str, storage: str) -> Iterator[tuple[str, float]]:
    place = existing_storage(storage)
    if not text.endswith(ENSEMBLE_SUFFIX):
        yield resolve(place, text), 1.0
        return
    for member in read_record(Path(text)).members:
        if member.souped_with:
            raise InputError(f"{text} has a member whose weights are the mean of several stages, which cannot teach.")
        known_record(store_of(place), member.stage_id)
        yield member.stage_id, member.weight
