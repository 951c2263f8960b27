"""From the parameters of a trial to its chain of stages with their ids. Two trials that share a prefix have the same ids there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from birdclef_core.chain import embeddings_from, predictions_from, teacher_in_chain, weights_from
from birdclef_core.config import ModelConfig, StageConfig
from birdclef_core.errors import InputError
from birdclef_core.identity import canonical, fingerprint, fingerprint_of_canonical
from birdclef_core.models.detector import check_clip_s
from birdclef_core.models.encoders import PretrainedWeights
from birdclef_core.stages.embeddings.encoders import onnx_file, onnx_hash
from birdclef_core.stages.task import StageTask, Teachers, parse_teachers, teachers_text
from birdclef_core.store.summary import work_of_embeddings
from birdclef_core.taxonomy import LabelSpace
from sweeps.replicates import Replicate
from sweeps.search.space import Search

Chain = tuple[StageTask, ...]

_OF_PREDICTIONS = ("predicts_on", "clip_s", "label_space", "precision")
_OF_EMBEDDINGS = ("clip_s", "precision", "encoder_rate_hz", "encoder_output")
"""The settings of a stage that predicts, or keeps embeddings, which are in its id."""


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """What a chain needs to know of a stage whose predictions are made."""

    model: ModelConfig
    embeddings_id: str | None = None
    """Of a head the stage of its embeddings, which keeps the encoder."""
    encoder_work: str = ""
    """Of a head the kind of work of that encoder, see `work_of_embeddings`."""
    compares: bool = False
    """Whether it was trained by cross-entropy, so that its softmax is predicted (`Together`)."""


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
    unlabelled_fingerprint: str = ""
    """Fingerprint of the soundscapes without labels."""
    sources_fingerprint: str = ""
    """Hash of which recording came in which source."""
    teachers: Mapping[str, Teacher] = field(default_factory=dict)
    """The stored stages whose predictions are made, by stage id."""
    replicates: tuple[Replicate, ...] = ()
    """The replicates in which each trial is trained; empty: there is one, with the data and the random seeds as they are."""
    embedded_fingerprint: str = ""
    """Fingerprint of the recordings that embeddings are made of, which are all of them whatever the fold is; empty: `data_fingerprint`."""

    def chain(self, recipe_name: str, params: Mapping[str, Any]) -> Chain:
        """Return the stages of one trial, first to last. Raises InputError for parameters that the model cannot take.

        Of several replicates, each stage comes for all replicates before the next one, so that a stage in the store has all levels before it there. A
        stage that is the same in all replicates, such as embeddings or predictions of a stored teacher, is there once.
        """
        recipe = self.search.recipe(recipe_name)
        model, stages = self.search.of_recipe(recipe).configs(params)
        if not self.replicates:
            return tuple(self._of_replicate(recipe.name, model, stages))
        whole = [
            replace(
                self,
                replicates=(),
                data_fingerprint=replicate.data_fingerprint,
                embedded_fingerprint=self.data_fingerprint,
            )._of_replicate(recipe.name, model, [_seeded(stage, replicate) for stage in stages])
            for replicate in self.replicates
        ]
        return tuple(task for level in zip(*whole, strict=True) for task in self._of_level(level))

    def _of_level(self, level: Sequence[StageTask]) -> list[StageTask]:
        """The same stage of all replicates, each with its replicate; once where it is the same for all."""
        if len({task.stage_id for task in level}) == 1:
            return [level[0]]
        return [
            replace(task, replicate=replicate.name, fold=replicate.fold)
            for task, replicate in zip(level, self.replicates, strict=True)
        ]

    def _of_replicate(self, recipe: str, model: ModelConfig, stages: Sequence[StageConfig]) -> list[StageTask]:
        tasks: list[StageTask] = []
        for index, stage in enumerate(stages):
            make = self._embedding if stage.embeds else self._predicting if stage.predicts else self._training
            tasks.append(make(recipe, model, stages, index, tasks))
        return tasks

    def _training(
        self, recipe: str, model: ModelConfig, stages: Sequence[StageConfig], index: int, before: Sequence[StageTask]
    ) -> StageTask:
        config, pretrained = stages[index], self.pretrained[model.encoder]
        source, predictions = weights_from(stages, index), predictions_from(stages, index)
        parent_id = (
            before[source].stage_id if source is not None else None if config.starts_from or config.embeddings else self.start
        )
        predictions_id = before[predictions].stage_id if predictions is not None else None
        embeddings = embeddings_from(stages, index)
        embeddings_id = before[embeddings].stage_id if embeddings is not None else None
        stage_id, identity = _identify(
            model,
            config,
            parent_id or ("random" if embeddings_id else pretrained.name),
            self._space(config).fingerprint,
            self.data_fingerprint,
            self.code_version,
            predictions_id,
            embeddings_id,
            self.sources_fingerprint if config.sources else "",
        )
        return StageTask(
            stage_id=stage_id,
            parent_id=parent_id,
            recipe=recipe,
            model=model,
            config=config,
            pretrained=pretrained,
            identity=identity,
            predictions_id=predictions_id,
            embeddings_id=embeddings_id,
        )

    def _predicting(
        self, recipe: str, model: ModelConfig, stages: Sequence[StageConfig], index: int, before: Sequence[StageTask]
    ) -> StageTask:
        config, source = stages[index], teacher_in_chain(stages, index)
        teachers = ((before[source].stage_id, 1.0),) if source is not None else parse_teachers(config.predicts)
        if config.predicts_on == "unlabelled" and not self.unlabelled_fingerprint:
            raise InputError(
                f"Stage {config.name} predicts soundscapes without labels, but the data have none: see docs/teachers.md. Add a folder "
                "unlabelled_soundscapes, or set predicts_on='recordings'."
            )
        own = _teacher(before[source], before) if source is not None else Teacher(model=model)
        hearing = [self.teachers.get(stage_id, own) for stage_id, _ in teachers]
        stage_id, identity = _identify_predictions(
            config,
            teachers,
            self._space(config).fingerprint if source is not None else "",
            self.unlabelled_fingerprint if config.predicts_on == "unlabelled" else self.data_fingerprint,
            self.code_version,
            any(teacher.compares for teacher in hearing),
        )
        for teacher in hearing:
            if teacher.embeddings_id is None:  # a head hears windows of any length
                check_clip_s(teacher.model, config.clip_s)
        encoders = (teacher.embeddings_id for teacher in hearing)
        return StageTask(
            stage_id=stage_id,
            parent_id=teachers[0][0] if len(teachers) == 1 else None,
            recipe=recipe,
            model=hearing[0].model,
            config=config,
            pretrained=self.pretrained[model.encoder],
            identity=identity,
            teachers=teachers,
            encoders=tuple(dict.fromkeys(stage_id for stage_id in encoders if stage_id is not None)),
            encoder_work=hearing[0].encoder_work,
        )

    def _embedding(
        self, recipe: str, model: ModelConfig, stages: Sequence[StageConfig], index: int, before: Sequence[StageTask]
    ) -> StageTask:
        """A stage of embeddings: neither its name nor the heads are part of its id, so that all heads share it."""
        config, path, pretrained = stages[index], onnx_file(stages[index]), self.pretrained[model.encoder]
        stage = {name: canonical(getattr(config, name)) for name in _OF_EMBEDDINGS}
        if path is None:
            stage["embeds"] = [model.encoder, model.encoder_axes, canonical(model.spectrogram), config.seed]
        identity: dict[str, Any] = {
            "model": {},
            "stage": {"embeds": "onnx"} | stage,
            "label_space": "",
            "data": fingerprint([self.embedded_fingerprint or self.data_fingerprint, self.all_species.fingerprint]),
            "parent": pretrained.name if path is None else onnx_hash(path),
            "code": self.code_version,
        }
        return StageTask(
            stage_id=fingerprint_of_canonical(identity),
            parent_id=None,
            recipe=recipe,
            model=model,
            config=config,
            pretrained=pretrained,
            identity=identity,
        )

    def _space(self, config: StageConfig) -> LabelSpace:
        return self.all_species if config.label_space == "all" else self.target_species


def _teacher(task: StageTask, before: Sequence[StageTask]) -> Teacher:
    """A stage of the chain as a teacher. `before`: the stages before its predictions."""
    made = next((other for other in before if other.stage_id == task.embeddings_id), None)
    work = work_of_embeddings(made.identity) if made is not None else ""
    return Teacher(model=task.model, embeddings_id=task.embeddings_id, encoder_work=work, compares=task.config.loss == "ce")


def _seeded(stage: StageConfig, replicate: Replicate) -> StageConfig:
    """A stage with the random seed of a replicate. Embeddings keep theirs: nothing of them is drawn but random first weights."""
    return stage if stage.embeds else replace(stage, seed=stage.seed + replicate.seed)


@lru_cache(maxsize=8192)
def _identify(
    model: ModelConfig,
    config: StageConfig,
    parent: str,
    label_space: str,
    data: str,
    code: str,
    predictions: str | None,
    embeddings: str | None,
    sources: str,
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
    if predictions is not None:
        identity["teacher"] = predictions
    if embeddings is not None:
        identity["embeddings"] = embeddings
    if sources:
        identity["sources"] = sources
    return fingerprint_of_canonical(identity), identity


@lru_cache(maxsize=8192)
def _identify_predictions(
    config: StageConfig, teachers: Teachers, label_space: str, data: str, code: str, has_softmax: bool
) -> tuple[str, dict[str, Any]]:
    """The id of predictions: neither the student nor what it is called is part of it, so that all students share them.

    It says where a softmax is predicted, because the same code version once predicted the sigmoid of such teachers.
    """
    identity: dict[str, Any] = {
        "model": {},
        "stage": {name: canonical(getattr(config, name)) for name in _OF_PREDICTIONS},
        "label_space": label_space,
        "data": data,
        "parent": teachers[0][0] if len(teachers) == 1 else teachers_text(teachers),
        "code": code,
    } | ({"probabilities": "softmax"} if has_softmax else {})
    return fingerprint_of_canonical(identity), identity


@lru_cache(maxsize=64)
def _canonical_model(model: ModelConfig) -> Any:
    return canonical(model)


def settings_in_ids(model: ModelConfig, stages: Sequence[StageConfig]) -> Any:
    """Return the settings that the ids of a chain depend on, in canonical form: equal ones make the same stages."""
    return [_canonical_model(model), *map(_settings_in_id, stages)]


def _settings_in_id(stage: StageConfig) -> Any:
    if not stage.predicts:
        return canonical(stage)
    seed = ("seed",) if stage.embeds and onnx_file(stage) is None else ()
    names = (*_OF_EMBEDDINGS, *seed) if stage.embeds else _OF_PREDICTIONS
    return {name: canonical(getattr(stage, name)) for name in ("predicts", *names)}


def first_replicate(chain: Chain) -> Chain:
    """Return the stages of a chain's first replicate: all of them where there is one."""
    first = next((task.replicate for task in chain if task.replicate), "")
    return tuple(task for task in chain if task.replicate in ("", first))


def config_fingerprint(chain: Chain) -> str:
    """Hash of a chain's configuration and start stage, independent of data, code and first weights."""
    return fingerprint([chain[0].parent_id, *(_config_fingerprint(task.model, task.config) for task in chain)])


@lru_cache(maxsize=8192)
def _config_fingerprint(model: ModelConfig, config: StageConfig) -> str:
    return fingerprint_of_canonical([_canonical_model(model), canonical(config)])
