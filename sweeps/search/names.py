"""The names of fields that searches and `--set` use: a stage, a group of stages or the model, then the field, as in `train.clip_s`."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Any, get_args, get_origin

from birdclef_core.augment_config import NoiseGroup
from birdclef_core.config import STAGE_NAMES, ModelConfig, Recipe, StageConfig, StageName, evolve
from birdclef_core.config_rules import types_of
from birdclef_core.errors import InputError

MODEL = "model"
"""The first part of the name of a model's field. The model is the same in all stages of a recipe."""
STAGE_GROUPS: dict[str, tuple[StageName, ...]] = {
    **{name: (name,) for name in get_args(StageName)},
    "pretrain": ("pretrain_ce", "pretrain_bce"),
    "train": ("train_ce", "train_bce"),
    "every": STAGE_NAMES,
}
"""Groups of stages, which the first part of a name may be, and the stages that each stands for."""
GROUPS = (*STAGE_GROUPS, MODEL)
NOISE = "noise"
ALL_NOISE = "*"
"""Stands for every group of noise, as in `train.noise.*.prob`."""
SIMILARITY = 0.5
"""How similar a known name must be to be suggested for a wrong one, from 0 to 1."""

LONGEST_NAME = 200
"""No known name is so long, and to look for one that is like it would take seconds."""

Place = tuple[int, str]
"""One setting of a recipe: the index of its stage, or OF_MODEL, and the dotted path of the field, with the number of a noise group."""
OF_MODEL = -1


@dataclass(frozen=True)
class FieldName:
    """The name of a field, taken apart. Make it with `find_field`."""

    group: str
    """A stage, a group of stages, or `model`."""
    path: str
    """The dotted name of the field, without the number or source of a noise group: `noise.prob`."""
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
    def breadth(self) -> tuple[int, bool]:
        """How much the name stands for; of two names of the same setting, the narrower one counts."""
        return len(STAGE_GROUPS.get(self.group, STAGE_NAMES)), self.noise == ALL_NOISE

    def places(self, recipe: Recipe) -> tuple[Place, ...]:
        """Return the settings of a recipe that the name stands for, first stage first; none when the recipe lacks them."""
        if self.group == MODEL:
            return ((OF_MODEL, self.path),)
        of_group = ((index, stage) for index, stage in enumerate(recipe.stages) if stage.name in STAGE_GROUPS[self.group])
        return tuple((index, path) for index, stage in of_group for path in self._paths_in(stage))

    def _paths_in(self, stage: StageConfig) -> Iterator[str]:
        if not self.noise:
            yield self.path
            return
        for number, group in enumerate(stage.noise):
            if self.noise in (ALL_NOISE, str(number), group.source):
                yield f"{NOISE}.{number}.{self.path.partition('.')[2]}"


@lru_cache(maxsize=4096)
def find_field(name: str) -> FieldName:
    """Return what a name such as `train.mixing.wave_prob` stands for. Raises InputError, with the nearest right name, for others."""
    group, _, path = str(name).partition(".")
    if group not in GROUPS:
        raise InputError(
            f"{name!r} names no field: a name is <group>.<field>, with one of the groups {', '.join(GROUPS)}{suggestion(name)}"
        )
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
    if is_dataclass(hint) or (get_origin(hint) is tuple and path == NOISE):
        inside = [full for full in all_names(group) if full.startswith(f"{name}.")]
        raise InputError(f"{name!r} must be a single field, but has fields of its own: {', '.join(inside)}.")
    return FieldName(group, path, noise, hint, is_runtime)


def suggestion(name: str) -> str:
    """Return ". Perhaps '...' is meant." with the known name that is most like a wrong one; just "." when none is like it."""
    if len(str(name)) > LONGEST_NAME:
        return "."
    group, _, path = str(name).partition(".")
    near_groups = [group] if group in GROUPS else difflib.get_close_matches(group, GROUPS, n=1)
    wanted = path if path and near_groups else str(name)
    of_stages = [one for one in near_groups if path and one != MODEL] or ["every"]
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
        else:
            yield f"{prefix}{item.name}"


def full_name(key: str) -> str:
    """Return the complete name of a key of `--set`, which may lack its group: `epochs` is `every.epochs`, and `drop_rate` is
    `model.drop_rate`."""
    first, dot, _ = key.partition(".")
    if first in GROUPS:
        return key
    if any(item.name == first for item in fields(ModelConfig)):
        return f"{MODEL}.{key}"
    of_stage = any(item.name == first for item in fields(StageConfig))
    return f"every.{key}" if of_stage or not dot else key


def value_at(recipe: Recipe, place: Place) -> Any:
    """Return one setting of a recipe."""
    index, path = place
    value: Any = recipe.model if index == OF_MODEL else recipe.stages[index]
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
