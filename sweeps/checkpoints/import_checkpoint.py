"""Imports a user's checkpoint into the store (`birdclef store import`). Its recipe says which model it is of."""

from collections.abc import Mapping
from pathlib import Path

from birdclef_core.data.dataset import read_target_list
from birdclef_core.errors import InputError
from birdclef_core.recipes import small_budget
from birdclef_core.stages.import_checkpoint import ImportedStage, import_checkpoint
from birdclef_core.store.storage import Storage
from sweeps.checkpoints.references import store_of
from sweeps.search.search_files import load_search, override


def import_stage(
    storage: Storage,
    path: Path,
    *,
    search: str,
    recipe: str,
    stage: str,
    species: Path,
    small: bool,
    settings: Mapping[str, object],
) -> ImportedStage:
    """Import a checkpoint into the store, and return its stage.

    `small`: its model is that of the small budget. `settings` are as in `--set`. Raises InputError when a file or the recipe does not exist,
    and as `import_checkpoint` does.
    """
    for what, file in (("checkpoint", path), ("list of species", species)):
        if not file.is_file():
            raise InputError(f"The {what} must be a file that exists, but {file} is not.")
    found = override(load_search(search), settings)
    known = [item.name for item in found.recipes]
    if recipe not in known:
        raise InputError(f"--recipe must be one of search {search}: {', '.join(known)}, but got {recipe!r}.")
    chosen = small_budget(found.recipe(recipe)) if small else found.recipe(recipe)
    classes = read_target_list(species)
    return import_checkpoint(store_of(storage), path, recipe=recipe, model=chosen.model, stage=stage, classes=classes)
