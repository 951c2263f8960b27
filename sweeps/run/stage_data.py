"""Checks before a sweep that its data have what its stages are to learn from: sources of recordings, soundscapes for training."""

import difflib
from collections.abc import Iterator, Sequence

from birdclef_core.config import Recipe, StageConfig
from birdclef_core.data.dataset import TRAINING_SOUNDSCAPES_NAME, Dataset
from birdclef_core.data.targets import training_table
from birdclef_core.errors import BirdclefError, InputError
from birdclef_core.taxonomy import LabelSpace
from sweeps.search.names import SIMILARITY, SOURCES, find_field
from sweeps.search.parameters import Choice, Parameter
from sweeps.search.space import Search

MAX_SOURCES = 10
"""How many sources of recordings an error names, the largest first."""


def check_stage_data(search: Search, dataset: Dataset) -> None:
    """Raise InputError for a stage that may draw clips from what the data do not have: from a source without a training recording with a
    species of the stage, or from soundscapes for training where there are none."""
    for recipe in search.recipes:
        for index, stage in enumerate(recipe.stages):
            space = dataset.all_species if stage.label_space == "all" else dataset.target_species
            parameters = list(_parameters_of(search, recipe, index))
            shares = [
                stage.soundscape_share,
                *(value for path, item in parameters if path == "soundscape_share" for value in _ends(item)),
            ]
            if any(shares) and dataset.training_soundscapes is None:
                raise InputError(
                    f"soundscape_share of stage {stage.name} of recipe {recipe.name!r} can be {max(shares):g}, but no labelled soundscape of "
                    f"{dataset.root} is for training: name some in {TRAINING_SOUNDSCAPES_NAME}, which then score nothing."
                )
            if names := _sources(stage, [path for path, _ in parameters]):
                try:
                    _check_sources(names, space, dataset)
                except BirdclefError as error:
                    raise InputError(f"sources of stage {stage.name} of recipe {recipe.name!r}: {error}") from None


def _parameters_of(search: Search, recipe: Recipe, index: int) -> Iterator[tuple[str, Parameter]]:
    """The parameters of one stage, each with the path of its field."""
    for key, parameter in search.of_recipe(recipe).parameters.items():
        for place, path in find_field(key).places(recipe):
            if place == index:
                yield path, parameter


def _ends(parameter: Parameter) -> tuple[float, ...]:
    return parameter.values if isinstance(parameter, Choice) else (parameter.low, parameter.high)


def _sources(stage: StageConfig, paths: Sequence[str]) -> list[str]:
    sampled = [path.removeprefix(f"{SOURCES}.") for path in paths if path.startswith(f"{SOURCES}.")]
    return sorted({*(name for name, _ in stage.sources), *sampled})


def _check_sources(names: Sequence[str], space: LabelSpace, dataset: Dataset) -> None:
    if "source" not in dataset.recordings:
        raise InputError(
            f"the recordings of {dataset.root} must say which source they came in, but only those of a collected data set do: see "
            "birdclef data collect."
        )
    known = dataset.recordings["source"].value_counts()
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, map(str, known.index), n=1, cutoff=SIMILARITY)
            shown = ", ".join(f"{source} ({count:,})" for source, count in known.head(MAX_SOURCES).items())
            more = f" and {len(known) - MAX_SOURCES} more" if len(known) > MAX_SOURCES else ""
            raise InputError(
                f"{name!r} must be a source of {dataset.root}, with its number of recordings: {shown}{more}."
                + (f" Perhaps {near[0]!r} is meant." if near else "")
            )
    table = training_table(dataset, space, sources=tuple((name, 1.0) for name in names))
    table.shared(table.sampling_weight_R)
