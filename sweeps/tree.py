"""From a trial's parameters to its chain of stages with their ids: where two trials share a prefix, the ids are equal."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from birdclef_core.identity import canonical, fingerprint
from birdclef_core.models.detector import check_clip_s
from birdclef_core.models.encoders import PretrainedWeights
from birdclef_core.stages.training import StageTask
from birdclef_core.taxonomy import LabelSpace
from sweeps.search import Search

Chain = tuple[StageTask, ...]


@dataclass(frozen=True, kw_only=True)
class StageTree:
    """Everything that stage ids depend on besides a trial's parameters. Picklable."""

    search: Search
    seed: int
    """Fixes what the variants of the search's pools are."""
    pretrained: Mapping[str, PretrainedWeights]
    """By encoder."""
    all_species: LabelSpace
    target_species: LabelSpace
    data_fingerprint: str
    code_version: str

    def chain(self, recipe_name: str, params: Mapping[str, Any]) -> Chain:
        """The stages of one trial, first to last. Raises InputError for parameters that no model can take."""
        recipe = self.search.recipe(recipe_name)
        pretrained = self.pretrained[recipe.model.encoder]
        tasks: list[StageTask] = []
        parent_id: str | None = None
        for config in self.search.stages(recipe, params, self.seed):
            check_clip_s(recipe.model, config.clip_s)
            space = self.all_species if config.label_space == "all" else self.target_species
            identity = {
                "model": canonical(recipe.model),
                "stage": canonical(config),
                "label_space": space.fingerprint,
                "data": self.data_fingerprint,
                "parent": parent_id or pretrained.name,
                "code": self.code_version,
            }
            task = StageTask(
                stage_id=fingerprint(identity),
                parent_id=parent_id,
                recipe=recipe.name,
                model=recipe.model,
                config=config,
                pretrained=pretrained,
                identity=identity,
            )
            tasks.append(task)
            parent_id = task.stage_id
        return tuple(tasks)
