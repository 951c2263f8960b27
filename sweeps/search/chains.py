"""From the parameters of a trial to its chain of stages with their ids. Two trials that share a prefix have the same ids there."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from birdclef_core.config import ModelConfig, StageConfig
from birdclef_core.identity import canonical, fingerprint
from birdclef_core.models.encoders import PretrainedWeights
from birdclef_core.stages.training import StageTask
from birdclef_core.taxonomy import LabelSpace
from sweeps.search.space import Search

Chain = tuple[StageTask, ...]


@dataclass(frozen=True, kw_only=True)
class ChainBuilder:
    """Makes chains of stages. It holds everything that stage ids depend on besides a trial's parameters. Picklable."""

    search: Search
    seed: int
    """Random seed of the sampler."""
    pretrained: Mapping[str, PretrainedWeights]
    """First weights by encoder."""
    all_species: LabelSpace
    target_species: LabelSpace
    data_fingerprint: str
    code_version: str
    start: str | None = None
    """Id of the stage that every trial starts from, or None to start from the encoders' first weights. The ids of the stages that
    follow are those of the complete chain."""

    def chain(self, recipe_name: str, params: Mapping[str, Any]) -> Chain:
        """Return the stages of one trial, first to last. Raises InputError for parameters that the model cannot take."""
        recipe = self.search.recipe(recipe_name)
        model, stages = self.search.of_recipe(recipe).configs(params)
        pretrained = self.pretrained[model.encoder]
        tasks: list[StageTask] = []
        parent_id = self.start
        for config in stages:
            space = self.all_species if config.label_space == "all" else self.target_species
            stage_id, identity = _identify(
                model, config, parent_id or pretrained.name, space.fingerprint, self.data_fingerprint, self.code_version
            )
            tasks.append(
                StageTask(
                    stage_id=stage_id,
                    parent_id=parent_id,
                    recipe=recipe.name,
                    model=model,
                    config=config,
                    pretrained=pretrained,
                    identity=identity,
                )
            )
            parent_id = stage_id
        return tuple(tasks)


@lru_cache(maxsize=8192)
def _identify(
    model: ModelConfig, config: StageConfig, parent: str, label_space: str, data: str, code: str
) -> tuple[str, dict[str, Any]]:
    """A stage's id and what it is the hash of. Cached because ten thousand trials share a few prefixes."""
    identity = {
        "model": _canonical_model(model),
        "stage": canonical(config),
        "label_space": label_space,
        "data": data,
        "parent": parent,
        "code": code,
    }
    return fingerprint(identity), identity


@lru_cache(maxsize=64)
def _canonical_model(model: ModelConfig) -> Any:
    return canonical(model)


def config_fingerprint(chain: Chain) -> str:
    """Hash of a chain's configuration and start stage, independent of data, code and first weights."""
    return fingerprint([chain[0].parent_id, *(_config_fingerprint(task.model, task.config) for task in chain)])


@lru_cache(maxsize=8192)
def _config_fingerprint(model: ModelConfig, config: StageConfig) -> str:
    return fingerprint([_canonical_model(model), canonical(config)])
