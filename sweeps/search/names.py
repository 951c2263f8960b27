"""The names of fields that searches and `--set` use: a stage, a group of stages or the model, then the field, as in `train.clip_s`."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Any, get_origin

from birdclef_core.augment_config import NoiseGroup
from birdclef_core.config import STAGE_NAMES, ModelConfig, Recipe, StageConfig, check_stage_name, evolve
from birdclef_core.config_rules import types_of
from birdclef_core.errors import InputError

MODEL = "model"
"""The first part of the name of a model's field. The model is the same in all stages of a recipe."""
EVERY = "every"
"""The first part of the name of a field of all stages."""
GROUPS = (*STAGE_NAMES, "pretrain", "train", EVERY, MODEL)
"""The first parts of names that the stages of the 2023 solution have."""
OF_PREDICTIONS = (
    "name",
    "predicts",
    "predicts_on",
    "encoder_rate_hz",
    "encoder_output",
    "clip_s",
    "label_space",
    "precision",
    "evaluation_batch_size",
    "checkpoint_every_s",
)
"""The fields of a stage that count where it predicts and trains nothing."""
NOISE = "noise"
SOURCES = "sources"
ANY_SOURCE = "NAME"
"""Stands for the name of a source, as in `train.sources.NAME`, where names of fields are listed."""
ALL_NOISE = "*"
"""Stands for every group of noise, as in `train.noise.*.prob`."""
SIMILARITY = 0.5
"""How similar a known name must be to be suggested for a wrong one, from 0 to 1."""

NEARLY = 0.8
"""How similar the first part of a path must be to `sources`: what follows it may be anything."""
LONGEST_NAME = 200
"""No known name is so long, and to look for one that is like it would take seconds."""

Place = tuple[int, str]
"""One setting of a recipe: the index of its stage, or OF_MODEL, and the dotted path of the field, with the number of a noise group."""
OF_MODEL = -1


@dataclass(frozen=True)
class FieldName:
    """The name of a field, taken apart. Make it with `find_field`."""

    group: str
    """A stage, a group of stages (see `is_in_group`), or `model`."""
    path: str
    """The dotted name of the field, without the number or source of a noise group: `noise.prob`. With the name of a source:
    `sources.birdclef2023`."""
    noise: str
    """For a field of noise, which groups of noise: a number from 0, the source of a group, or `*`; else empty."""
    hint: Any
    """The field's annotation."""
    is_runtime: bool
    """Whether the field changes no result."""

    @property
    def kinds(self) -> tuple[type, ...]:
        """The plain types that its values may have."""
        return types_of(self.hint)

    @property
    def breadth(self) -> tuple[bool, int, bool]:
        """How much the name stands for; of two names of the same setting, the narrower one counts."""
        return self.group in (EVERY, MODEL), -len(self.group), self.noise == ALL_NOISE

    def places(self, recipe: Recipe) -> tuple[Place, ...]:
        """Return the settings of a recipe that the name stands for, first stage first; none when the recipe lacks them."""
        if self.group == MODEL:
            return ((OF_MODEL, self.path),)
        of_group = ((index, stage) for index, stage in enumerate(recipe.stages) if is_in_group(stage.name, self.group))
        return tuple(
            (index, path)
            for index, stage in of_group
            if not stage.predicts or self.path in OF_PREDICTIONS
            for path in self._paths_in(stage)
        )

    def _paths_in(self, stage: StageConfig) -> Iterator[str]:
        if not self.noise:
            yield self.path
            return
        for number, group in enumerate(stage.noise):
            if self.noise in (ALL_NOISE, str(number), group.source):
                yield f"{NOISE}.{number}.{self.path.partition('.')[2]}"


def of_predictions_alone(field: FieldName, recipes: Iterable[Recipe]) -> str:
    """Return why a name stands for nothing in recipes that have such stages: all of them predict, where most fields count nothing. Empty
    where that is not the reason."""
    stages = [stage for recipe in recipes for stage in recipe.stages if is_in_group(stage.name, field.group)]
    if not stages or field.path in OF_PREDICTIONS or not all(stage.predicts for stage in stages):
        return ""
    names = ", ".join(dict.fromkeys(stage.name for stage in stages))
    of = ", ".join(name for name in OF_PREDICTIONS if name != "name")
    return f"{names} trains nothing, so that of its fields only these count: {of}."


def is_in_group(stage: str, group: str) -> bool:
    """Return whether a group, such as `train`, stands for a stage: the one of this name, those whose names begin with it and `_`, such
    as `train_ce`, and every stage for `every`."""
    return group in (EVERY, stage) or stage.startswith(f"{group}_")


def groups_of(recipes: Iterable[Recipe]) -> tuple[str, ...]:
    """Return the first parts that names of the recipes' fields can have: each stage, each group of stages, `every` and `model`."""
    stages = dict.fromkeys(stage.name for recipe in recipes for stage in recipe.stages)
    begins = [name[:place] for name in stages for place, letter in enumerate(name) if letter == "_"]
    return (*dict.fromkeys([*stages, *begins]), EVERY, MODEL)


def stage_order(chains: Iterable[Sequence[str]]) -> list[str]:
    """Return the names of the stages of chains, each once, so that every chain goes forward, as far as that is possible."""
    after: dict[str, set[str]] = {}
    for chain in chains:
        for place, name in enumerate(chain):
            after.setdefault(name, set()).update(chain[:place])
    order: list[str] = []
    while len(order) < len(after):
        left = [name for name in after if name not in order]
        order.append(next((name for name in left if not after[name] & {*left} - {name}), left[0]))
    return order


@lru_cache(maxsize=4096)
def find_field(name: str) -> FieldName:
    """Return what a name such as `train.mixing.wave_prob` stands for. Raises InputError, with the nearest right name, for others.

    Which stages there are is the recipes' business: `FieldName.places` says it, and is empty where a recipe has none of the group.
    """
    group, _, path = str(name).partition(".")
    try:
        if group not in GROUPS:
            check_stage_name(group)
    except InputError:
        raise InputError(f"{name!r} names no field: a name is <stage or group>.<field>{suggestion(name)}") from None
    if not path and group not in GROUPS:
        raise InputError(f"{name!r} names no field: a name is <stage or group>.<field>{suggestion(name)}")
    if group != MODEL and path.startswith(f"{SOURCES}.") and path != f"{SOURCES}.":
        return FieldName(group, path, "", float, is_runtime=False)
    noise = ""
    if group != MODEL and path.startswith(f"{NOISE}."):
        *middle, last = path.removeprefix(f"{NOISE}.").split(".")
        noise, path = ".".join(middle), f"{NOISE}.{last}"
    hint: Any = ModelConfig if group == MODEL else StageConfig
    is_runtime, seen = False, group
    for part in path.split("."):
        within = NoiseGroup if seen == f"{group}.{NOISE}" else hint
        known = {item.name: item for item in fields(within)} if is_dataclass(within) else {}
        if part not in known or (within is NoiseGroup and not noise):
            problem = f"{seen} has no field {part!r}" if known else f"{seen} is a single value"
            meant = suggestion(name)
            known_ones = f" It has: {', '.join(known)}." if known and meant == "." else ""
            raise InputError(f"{name!r} names no field: {problem}{meant}{known_ones}")
        hint, is_runtime, seen = known[part].type, bool(known[part].metadata.get("runtime")), f"{seen}.{part}"
    if is_dataclass(hint) or get_origin(hint) is tuple:
        inside = [full for full in all_names(group) if full.startswith(f"{name}.")]
        raise InputError(f"{name!r} must be a single field, but has fields of its own: {', '.join(inside)}.")
    return FieldName(group, path, noise, hint, is_runtime)


def find_field_of(name: str, recipes: Iterable[Recipe]) -> FieldName:
    """Return what a name stands for, as `find_field` does, if recipes have such a stage, or the 2023 solution had one.

    Raises InputError, with the groups of the recipes and the nearest right name, for others.
    """
    found, groups = find_field(name), groups_of(recipes)
    if found.group not in (*groups, *GROUPS):
        raise InputError(
            f"{name!r} names no field: a name is <group>.<field>, with one of the groups {', '.join(groups)}{suggestion(name, groups)}"
        )
    return found


def suggestion(name: str, groups: Sequence[str] = GROUPS) -> str:
    """Return ". Perhaps '...' is meant." with the known name that is most like a wrong one; just "." when none is like it."""
    if len(str(name)) > LONGEST_NAME:
        return "."
    group, _, path = str(name).partition(".")
    near_groups = [group] if group in groups else difflib.get_close_matches(group, groups, n=1)
    first, _, source = path.partition(".")
    if source and near_groups and difflib.get_close_matches(first, [SOURCES], cutoff=NEARLY):
        return f". Perhaps {f'{near_groups[0]}.{SOURCES}.{source}'!r} is meant."
    wanted = path if path and near_groups else str(name)
    of_stages = [one for one in near_groups if path and one != MODEL] or [EVERY]
    near = max((full for one in (MODEL, *of_stages) for full in all_names(one)), key=lambda full: _similarity(wanted, full))
    return f". Perhaps {near!r} is meant." if _similarity(wanted, near)[0] >= SIMILARITY else "."


def _similarity(path: str, full_name: str) -> tuple[float, float]:
    """How similar the last parts of a path and a name are, then how similar they are as a whole."""
    other = full_name.partition(".")[2]
    last, other_last = path.rpartition(".")[2], other.rpartition(".")[2]
    return difflib.SequenceMatcher(None, last, other_last).ratio(), difflib.SequenceMatcher(None, path, other).ratio()


def all_names(group: str) -> list[str]:
    """Return the names of all fields of a stage, of a group of stages, or of the model."""
    return [f"{group}.{path}" for path in _paths(ModelConfig if group == MODEL else StageConfig)]


def _paths(config: Any, prefix: str = "") -> Iterator[str]:
    for item in fields(config):
        if is_dataclass(item.type):
            yield from _paths(item.type, f"{prefix}{item.name}.")
        elif item.name == NOISE:
            yield from _paths(NoiseGroup, f"{prefix}{NOISE}.{ALL_NOISE}.")
        elif item.name == SOURCES:
            yield f"{prefix}{SOURCES}.{ANY_SOURCE}"
        else:
            yield f"{prefix}{item.name}"


def full_name(key: str, groups: Sequence[str] = GROUPS) -> str:
    """Return the complete name of a key of `--set`, which may lack its group: `epochs` is `every.epochs`, and `drop_rate` is
    `model.drop_rate`. `groups`: the first parts that names can have."""
    first, dot, _ = key.partition(".")
    if first in groups:
        return key
    if any(item.name == first for item in fields(ModelConfig)):
        return f"{MODEL}.{key}"
    of_stage = any(item.name == first for item in fields(StageConfig))
    return f"{EVERY}.{key}" if of_stage or not dot else key


def value_at(recipe: Recipe, place: Place) -> Any:
    """Return one setting of a recipe."""
    index, path = place
    value: Any = recipe.model if index == OF_MODEL else recipe.stages[index]
    if path.startswith(f"{SOURCES}."):
        return dict(value.sources).get(path.removeprefix(f"{SOURCES}."), 0.0)
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, tuple) else getattr(value, part)
    return value


def changed(recipe: Recipe, changes: Mapping[Place, Any]) -> tuple[ModelConfig, tuple[StageConfig, ...]]:
    """Return a recipe's model and stages with other settings. Raises InputError when they break a rule of their configuration."""
    by_stage: dict[int, list[_Change]] = {}
    for (index, path), value in changes.items():
        by_stage.setdefault(index, []).append((path, type(value), value))
    model = _evolved_model(recipe.model, tuple(by_stage.get(OF_MODEL, ())))
    stages = (_evolved_stage(stage, tuple(by_stage.get(index, ()))) for index, stage in enumerate(recipe.stages))
    return model, tuple(stages)


_Change = tuple[str, type, Any]
"""A path, and its new value with the value's type: to a cache, True is 1."""


@lru_cache(maxsize=1024)
def _evolved_model(model: ModelConfig, changes: tuple[_Change, ...]) -> ModelConfig:
    return evolve(model, {path: value for path, _, value in changes})


@lru_cache(maxsize=4096)
def _evolved_stage(stage: StageConfig, changes: tuple[_Change, ...]) -> StageConfig:
    # Cached because ten thousand trials share a few prefixes.
    of_noise: dict[int, dict[str, Any]] = {}
    others: dict[str, Any] = {}
    for path, _, value in changes:
        if path.startswith(f"{NOISE}."):
            number, _, field = path.removeprefix(f"{NOISE}.").partition(".")
            of_noise.setdefault(int(number), {})[field] = value
        else:
            others[path] = value
    if of_noise:
        others[NOISE] = tuple(evolve(group, of_noise.get(number, {})) for number, group in enumerate(stage.noise))
    return evolve(stage, others)
