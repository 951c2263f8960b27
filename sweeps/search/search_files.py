"""Search files: a search by its name, or a file of the user's own, and settings that the user has given by `--set`."""

import ast
import importlib.util
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from birdclef_core.config import Recipe
from birdclef_core.errors import InputError
from sweeps.search.names import FieldName, Place, changed, find_field, find_field_of, full_name, groups_of, of_predictions_alone
from sweeps.search.parameters import Parameter
from sweeps.search.space import Search

SEARCHES_DIR = Path(__file__).parents[1] / "searches"


def load_search(name: str) -> Search:
    """Load a search by its name in `sweeps/searches/`, or from a user's own file that defines SEARCH.

    Raises InputError for an unknown name (listing the known ones), a file that cannot be imported, or one without a Search.
    """
    path = Path(name) if name.endswith(".py") else SEARCHES_DIR / f"{name}.py"
    if not path.is_file():
        known = sorted(file.stem for file in SEARCHES_DIR.glob("*.py") if not file.stem.startswith("_"))
        raise InputError(
            f"There is no search {name!r}; those that exist: {', '.join(known)}, or the path of a .py file of your own."
        )
    try:
        importlib.util.decode_source(source := path.read_bytes())
        if b"\0" in source:
            raise ValueError("it has zero bytes")
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{path} must be Python source, as text in UTF-8, but cannot be read: {error}.") from None
    spec = importlib.util.spec_from_file_location(f"search_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        search = getattr(module, "SEARCH", None)
        if not isinstance(search, Search):
            raise InputError(f"it must define SEARCH = Search(...), but {_instead(module, search)}.")
    except InputError as error:
        raise InputError(f"{path}{_line_of(error, path, ', line {}')}: {error}") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        line = _line_of(error, path, " in line {}")
        raise InputError(f"{path} must be importable, but raised {type(error).__name__}{line}: {error}") from error
    return search


def _instead(module: ModuleType, search: object) -> str:
    """What a search file has in place of a SEARCH."""
    if search is Search:
        return "SEARCH is the class Search itself: call it"
    if search is not None:
        return f"SEARCH is {type(search).__name__}"
    others = [name for name, value in vars(module).items() if isinstance(value, Search)]
    return f"has none. Perhaps {others[0]!r} is meant" if others else "has none"


def _line_of(error: BaseException, path: Path, text: str) -> str:
    """The line of a search file in which an error was raised, put into a text, and the key of the parameter that it made there.

    Empty when the error was raised elsewhere.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    if not frames:
        return ""
    place = (frames[-1].lineno, frames[-1].colno)
    dicts = (node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Dict))
    items = [item for node in dicts for item in zip(node.keys, node.values, strict=True)]
    keys = [ast.unparse(key) for key, value in items if key is not None and (value.lineno, value.col_offset) == place]
    return text.format(place[0]) + (f", {keys[0]}" if keys else "")


def override(search: Search, settings: Mapping[str, Any]) -> Search:
    """Return the search with configuration fields that the user has set (`--set key=value`); these are no longer sampled.

    A key is the name of a field as a space has it (`train_ce.epochs`, `model.drop_rate`), or the field alone: of the model
    (`spectrogram.num_mels`) or of every stage (`epochs`). Where two keys stand for the same setting, the narrower one counts. Raises
    InputError for a key that names no field or nothing that a recipe has, for a value that a recipe cannot have, and for a part of
    what a parameter of the space stands for.
    """
    fixed: dict[FieldName, Any] = {}
    for key, value in settings.items():
        try:
            name = find_field_of(full_name(key, groups_of(search.recipes)), search.recipes)
            if name.path == "name":
                raise InputError("the name of a stage cannot be set, because it says which stage it is.")
            if not any(name.places(recipe) for recipe in search.recipes):
                problem = of_predictions_alone(name, search.recipes)
                raise InputError(problem or f"no recipe of search {search.name!r} has such a setting.")
            space, small_space = (_without(space, search.recipes, name) for space in (search.space, search.small_space))
        except InputError as error:
            raise InputError(f"--set {key}={value!r}: {error}") from None
        search = replace(search, space=space, small_space=small_space)
        fixed[name] = value
    try:
        return replace(search, recipes=tuple(_with_settings(recipe, fixed) for recipe in search.recipes))
    except InputError as error:
        given = " ".join(f"--set {key}={value!r}" for key, value in settings.items())
        raise InputError(f"{given}: {error}") from None


def _with_settings(recipe: Recipe, fixed: Mapping[FieldName, Any]) -> Recipe:
    changes: dict[Place, Any] = {}
    for name in sorted(fixed, key=lambda name: name.breadth, reverse=True):
        changes |= {place: fixed[name] for place in name.places(recipe)}
    try:
        model, stages = changed(recipe, changes)  # all at once: rules hold between settings
    except InputError as error:
        raise InputError(f"recipe {recipe.name!r} cannot have this: {error}") from None
    return replace(recipe, model=model, stages=stages)


def _without(space: Mapping[str, Parameter], recipes: tuple[Recipe, ...], name: FieldName) -> dict[str, Parameter]:
    """The space without the parameters whose settings all have the name that the user has set."""
    kept: dict[str, Parameter] = {}
    for key, parameter in space.items():
        shared = {_shared(find_field(key).places(recipe), name.places(recipe)) for recipe in recipes}
        if "a part" in shared:
            raise InputError(
                f"the search samples {key!r}, which stands for more settings than these. Set {key}, or change the search."
            )
        if "all" not in shared:
            kept[key] = parameter
    return kept


def _shared(sampled: tuple[Place, ...], fixed: tuple[Place, ...]) -> str:
    """Which of a parameter's settings the user has set: all, none, or a part."""
    both = {*sampled} & {*fixed}
    return "none" if not both else "all" if both == {*sampled} else "a part"
