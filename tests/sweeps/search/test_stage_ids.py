"""A stage's id holds every field that changes the result and no other; the ids of a fixed chain are pinned."""

from dataclasses import fields, is_dataclass, replace

import pytest
from made_up import make_chain_builder

from birdclef_core.augment_config import NoiseGroup
from birdclef_core.config import Recipe, StageConfig
from birdclef_core.models.encoders import PretrainedWeights
from birdclef_core.recipes import sed_v2s
from birdclef_core.taxonomy import LabelSpace
from sweeps.search.space import Search

GOLDEN = {
    "pretrain_ce": "b20ddbf08f6c5521",
    "pretrain_bce": "a2c70d41ed68361f",
    "train_ce": "26b10546effa30b3",
    "train_bce": "af30120339e0b692",
    "finetune": "65c52b2d0a94f4e2",
}
"""A change here means that every stage that anybody has trained is trained again: it must be meant, and seen in review."""

RUNTIME = {"stage.compared_with", "stage.evaluation_batch_size", "stage.checkpoint_every_s", "stage.compile_encoder"}
"""All that may be changed without training anew. A new field is in the id unless it is added here on purpose."""

OTHER_VALUES = {
    "stage.name": "train_bce",
    "stage.compared_with": "students",
    "stage.label_space": "all",
    "stage.loss": "bce",
    "stage.head_transfer": "drop",
    "stage.precision": "bfloat16",
    "stage.optimizer": "adamw",
    "stage.schedule": "one_cycle",
    "stage.class_balance": "none",
    "stage.clips_per_epoch": 5000,
    "stage.micro_batch_size": 7,
    "stage.clip_gradient_norm": 1.0,
    "stage.early_stop_epochs": 3,
    "stage.ema_decay": 0.5,
    "stage.starts_from": "first_weights",
    "stage.teacher.mode": "distillation",
    "stage.teacher.resampling": "confidence",
    "stage.noise": (NoiseGroup(prob=0.1),),
    "stage.sources": (("birdclef2023", 1.0),),
    "stage.augment.coloured_noise": "cnn",
    "stage.augment.mask_fill": "mean",
    "model.head": "cnn",
    "model.encoder_axes": "time_frequency",
    "model.encoder": "resnet34d.ra2_in1k",
    "model.spectrogram.db_scale": "over_255",
}
"""Where another value does not follow from the type of the field."""


GRAPH = {"stage.teacher.predictions", "stage.predicts", "stage.predicts_on", "stage.embeddings", "stage.encoder_output"}
"""Fields that need another stage, which a chain of one stage does not have: test_chains.py tries them."""


def tree_of(recipe: Recipe, **changes):
    return make_chain_builder(Search(name="one", recipes=(recipe,), space={}), **changes)


def last_id(recipe: Recipe, **changes) -> str:
    return tree_of(recipe, **changes).chain(recipe.name, {})[-1].stage_id


def one_stage() -> Recipe:
    recipe = sed_v2s()
    return replace(recipe, stages=(next(stage for stage in recipe.stages if stage.name == "train_ce"),))


def test_the_ids_of_a_recipes_chain_are_pinned():
    chain = tree_of(sed_v2s()).chain("sed_v2s", {})
    assert {task.config.name: task.stage_id[:16] for task in chain} == GOLDEN


def leaves(config, prefix: str):
    """Dotted names of every plain field, with the value."""
    for item in fields(config):
        value, name = getattr(config, item.name), f"{prefix}.{item.name}"
        if is_dataclass(value):
            yield from leaves(value, name)
        else:
            yield name, value


def changed(config, path: list[str], value):
    head, *rest = path
    return replace(config, **{head: changed(getattr(config, head), rest, value) if rest else value})


def other_value(name: str, value):
    if name in OTHER_VALUES:
        return OTHER_VALUES[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return value * 0.9 if value else 0.1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(leaf for leaf in leaves(one_stage().stages[0], "stage") if leaf[0] not in GRAPH),
        *leaves(one_stage().model, "model"),
        *leaves(NoiseGroup(), "noise"),
    ],
)
def test_every_field_moves_the_id_but_those_that_change_no_result(name, value):
    recipe = one_stage()
    part, *path = name.split(".")
    if part == "model":
        other = replace(recipe, model=changed(recipe.model, path, other_value(name, value)))
    elif part == "noise":
        stage = recipe.stages[0]
        group = replace(NoiseGroup(), **{path[0]: "birds" if path[0] == "source" else other_value(name, value)})
        recipe = replace(recipe, stages=(replace(stage, noise=(NoiseGroup(),)),))
        other = replace(recipe, stages=(replace(stage, noise=(group,)),))
    else:
        other = replace(recipe, stages=(changed(recipe.stages[0], path, other_value(name, value)),))
    assert other != recipe, "the value was not changed"
    assert (last_id(other) == last_id(recipe)) == (name in RUNTIME)


def test_names_that_are_only_shown_do_not_move_the_id():
    recipe = one_stage()
    assert last_id(replace(recipe, name="mine", ensemble_weight=3.0)) == last_id(recipe)
    assert last_id(recipe, seed=7) == last_id(recipe), "the sampler's seed"
    assert last_id(recipe, target_species=LabelSpace.of("other name", "ab")) == last_id(recipe)


@pytest.mark.parametrize(
    "changes",
    [
        {"data_fingerprint": "other"},
        {"code_version": "other"},
        {"target_species": LabelSpace.of("target", "abc")},
        {"pretrained": {one_stage().model.encoder: PretrainedWeights("hub")}},
    ],
)
def test_data_code_species_and_first_weights_move_the_id(changes):
    assert last_id(one_stage(), **changes) != last_id(one_stage())


def test_which_recording_came_in_which_source_moves_the_id_of_a_stage_that_draws_by_sources_alone():
    recipe = one_stage()
    by_source = replace(recipe, stages=tuple(replace(stage, sources=(("a", 1.0),)) for stage in recipe.stages))
    plain, other = ([last_id(item, sources_fingerprint=text) for text in ("1", "2")] for item in (recipe, by_source))
    assert plain[0] == plain[1] == last_id(recipe) and len({*other, last_id(by_source), plain[0]}) == 4


def test_a_change_moves_the_ids_of_all_later_stages_and_of_no_earlier_one():
    recipe = sed_v2s()
    stages = tuple(replace(stage, seed=1) if stage.name == "train_ce" else stage for stage in recipe.stages)
    before, after = (tree_of(item).chain("sed_v2s", {}) for item in (recipe, replace(recipe, stages=stages)))
    assert [a.stage_id == b.stage_id for a, b in zip(before, after, strict=True)] == [True, True, False, False, False]


def test_the_configuration_has_the_fields_that_were_looked_at():
    assert {item.name for item in fields(StageConfig) if item.metadata.get("runtime")} == {name.split(".")[1] for name in RUNTIME}
