"""Chains with teachers: predictions have an id of their own, which everything that they depend on moves and nothing else does."""

from dataclasses import replace

import pytest
from made_up import make_chain_builder
from made_up_heads import taught_stages

from birdclef_core.config import Recipe
from birdclef_core.errors import InputError
from birdclef_core.recipes import cnn_resnet34d, predictions, sed_v2s
from birdclef_core.teacher_config import TeacherConfig
from sweeps.replicates import Replicate
from sweeps.search.chains import Teacher, first_replicate
from sweeps.search.parameters import Range
from sweeps.search.space import Search

OWN, OTHER = sed_v2s(), cnn_resnet34d()
STORED, SECOND = "0" * 64, "1" * 64


def recipe(name: str = "own", *, of: str = "train", model=OWN.model, student: str = "student", **of_predictions) -> Recipe:
    first = OWN.stages[2]
    before = (replace(first, name="pretrain"), replace(first, name="train")) if of == "train" else ()
    stages = (
        *before,
        predictions("labels", of=of, **of_predictions),
        replace(first, name=student, starts_from="pretrain" if before else "", teacher=TeacherConfig(predictions="labels")),
    )
    return Recipe(name=name, model=model, stages=stages)


def chain(own: Recipe, **changes):
    changes = {"unlabelled_fingerprint": "birds"} | changes
    return make_chain_builder(Search(name="one", recipes=(own,), space={}), **changes).chain(own.name, {})


def test_a_student_needs_its_parent_and_the_predictions_and_these_need_the_teacher():
    pretrain, train, labels, student = chain(recipe())
    assert (train.parent_id, train.predictions_id, train.teachers) == (pretrain.stage_id, None, ())
    assert (labels.parent_id, labels.teachers, labels.needs) == (train.stage_id, ((train.stage_id, 1.0),), (train.stage_id,))
    assert (student.parent_id, student.predictions_id) == (pretrain.stage_id, labels.stage_id)
    assert student.needs == (pretrain.stage_id, labels.stage_id)
    assert student.identity["teacher"] == labels.stage_id and "teacher" not in train.identity


def test_all_students_share_predictions_whatever_these_are_called():
    named = replace(
        recipe(), stages=tuple(replace(stage, name="guesses") if stage.predicts else stage for stage in recipe().stages)
    )
    named = replace(named, stages=(*named.stages[:-1], replace(named.stages[-1], teacher=TeacherConfig(predictions="guesses"))))
    assert chain(named)[2].stage_id == chain(recipe())[2].stage_id


@pytest.mark.parametrize(
    ("own", "changes"),
    [
        (recipe(window_s=10.0), {}),
        (recipe(on="recordings"), {}),
        (recipe(precision="bfloat16"), {}),
        (recipe(of=STORED), {}),
        (recipe(), {"unlabelled_fingerprint": "other"}),
        (recipe(), {"code_version": "other"}),
    ],
)
def test_what_predictions_depend_on_moves_their_id_and_that_of_the_student(own, changes):
    before, after = chain(recipe())[-2:], chain(own, **changes)[-2:]
    assert all(one.stage_id != other.stage_id for one, other in zip(before, after, strict=True))


def test_other_recordings_leave_predictions_of_unlabelled_sound_by_a_stored_teacher():
    before, after = (chain(recipe(of=STORED), data_fingerprint=data) for data in ("data", "other"))
    assert before[0].stage_id == after[0].stage_id and before[1].stage_id != after[1].stage_id


def test_students_of_different_models_share_the_predictions_of_a_stored_teacher():
    recipes = (recipe("a", of=STORED), recipe("b", of=STORED, model=OTHER.model))
    recipes = (recipes[0], replace(recipes[1], stages=tuple(replace(stage, clip_s=5.0) for stage in recipes[1].stages)))
    chains = make_chain_builder(Search(name="two", recipes=recipes, space={}), unlabelled_fingerprint="birds")
    one, other = (chains.chain(name, {}) for name in "ab")
    assert one[0].stage_id == other[0].stage_id and one[1].stage_id != other[1].stage_id


def test_an_ensemble_teaches_with_its_weights():
    labels, student = chain(recipe(of=f"{STORED}*0.25+{SECOND}*0.75"))
    assert labels.teachers == ((STORED, 0.25), (SECOND, 0.75)) and labels.parent_id is None
    assert set(labels.needs) == {STORED, SECOND}
    assert chain(recipe(of=f"{STORED}*0.5+{SECOND}*0.5"))[0].stage_id != labels.stage_id
    assert student.needs == (labels.stage_id,)


def test_data_without_unlabelled_soundscapes_and_texts_that_are_no_teachers_are_refused():
    with pytest.raises(InputError, match="predicts soundscapes without labels, but the data have none"):
        chain(recipe(), unlabelled_fingerprint="")
    assert len(chain(recipe(on="recordings"), unlabelled_fingerprint="")) == 4
    with pytest.raises(InputError, match="ids of stored stages"):
        chain(recipe(of="a/t0001"))
    with pytest.raises(InputError, match="weight of a teacher must be a number"):
        chain(recipe(of=f"{STORED}*much+{SECOND}"))


def test_a_parameter_of_every_stage_leaves_predictions_as_they_are():
    search = Search(name="one", recipes=(recipe(of=STORED),), space={"every.learning_rate": Range(1e-4, 1e-2)})
    chains = make_chain_builder(search, unlabelled_fingerprint="birds")
    one, other = (chains.chain("own", {"every.learning_rate": rate}) for rate in (1e-3, 2e-3))
    assert one[0].stage_id == other[0].stage_id and one[1].stage_id != other[1].stage_id


def test_folds_are_the_chains_of_their_data_stage_by_stage_and_what_is_the_same_for_all_is_there_once():
    search = Search(name="one", recipes=(recipe(of=STORED),), space={})
    alone = [
        make_chain_builder(search, unlabelled_fingerprint="birds", data_fingerprint=data).chain("own", {})
        for data in ("d0", "d1")
    ]
    replicates = (Replicate.of_fold(0, "d0"), Replicate.of_fold(1, "d1"))
    tasks = make_chain_builder(search, unlabelled_fingerprint="birds", replicates=replicates).chain("own", {})
    assert [task.name for task in tasks] == ["labels", "student@fold0", "student@fold1"]
    assert [task.fold for task in tasks] == [None, 0, 1]
    assert [task.stage_id for task in tasks] == [alone[0][0].stage_id, alone[0][1].stage_id, alone[1][1].stage_id]
    assert first_replicate(tasks) == tasks[:2]


def test_repetitions_have_other_random_seeds_and_the_first_is_the_trial_itself():
    search = Search(name="one", recipes=(Recipe(name="own", model=OWN.model, stages=OWN.stages[:2]),), space={})
    builder = make_chain_builder(search)
    replicates = tuple(Replicate.of_repeat(number, builder.data_fingerprint) for number in range(3))
    alone, tasks = builder.chain("own", {}), replace(builder, replicates=replicates).chain("own", {})
    assert [task.stage_id for task in tasks[::3]] == [task.stage_id for task in alone]
    assert len({task.stage_id for task in tasks}) == 6
    assert [task.config.seed - alone[0].config.seed for task in tasks[:3]] == [0, 1, 2]
    assert {task.fold for task in tasks} == {None}
    assert [task.parent_id for task in tasks[3:]] == [task.stage_id for task in tasks[:3]]


def heads(*, seed: int = 1) -> Recipe:
    embed = replace(predictions("embed", of="encoder:timm", on="recordings", window_s=5.0), seed=seed)
    return Recipe(
        name="own", model=OWN.model, stages=(embed, replace(OWN.stages[2], name="head", embeddings="embed", clip_s=5.0))
    )


def test_embeddings_are_made_once_for_all_folds_and_repetitions_under_the_id_that_they_have_without_them():
    """They hear all recordings whatever the fold is, and nothing of them is drawn."""
    builder = make_chain_builder(Search(name="one", recipes=(heads(),), space={}), data_fingerprint="d0")
    embed, head = builder.chain("own", {})
    folds = replace(builder, replicates=(Replicate.of_fold(0, "d0"), Replicate.of_fold(1, "d1"))).chain("own", {})
    assert [(task.name, task.fold) for task in folds] == [("embed", None), ("head@fold0", 0), ("head@fold1", 1)]
    assert [task.stage_id for task in folds[:2]] == [embed.stage_id, head.stage_id]
    assert {task.needs for task in folds[1:]} == {(embed.stage_id,)}
    repeats = replace(builder, replicates=(Replicate.of_repeat(0, "d0"), Replicate.of_repeat(1, "d0"))).chain("own", {})
    assert [task.name for task in repeats] == ["embed", "head@repeat0", "head@repeat1"]
    assert [task.stage_id for task in repeats[:2]] == [embed.stage_id, head.stage_id]
    assert len({task.stage_id for task in (*folds, *repeats)}) == 4, "each head is another one"
    others = make_chain_builder(Search(name="one", recipes=(heads(seed=2),), space={})).chain("own", {})
    assert others[0].stage_id != embed.stage_id, "without replicates a seed counts, as random first weights come from it"


HEADS = taught_stages(replace(OWN, stages=OWN.stages[1:4]), "timm", window_s=5.0)
"""Of these, the last three are a head, its predictions and a student."""


def test_predictions_of_a_head_need_its_embeddings_too_and_a_head_the_one_that_it_starts_from():
    embed, first, head, labels, student = chain(replace(OWN, name="own", stages=HEADS))
    assert (first.parent_id, first.identity["parent"], first.needs) == (None, "random", (embed.stage_id,))
    assert (head.parent_id, head.needs) == (first.stage_id, (first.stage_id, embed.stage_id))
    assert head.identity["parent"] == first.stage_id and head.identity["stage"]["starts_from"] == "head_all"
    assert (labels.teachers, labels.encoders) == (((head.stage_id, 1.0),), (embed.stage_id,))
    assert labels.needs == (head.stage_id, embed.stage_id)
    assert student.parent_id is None and student.needs == (labels.stage_id,)


def test_stored_heads_teach_beside_other_stages_with_the_encoders_that_they_need():
    own = recipe(of=f"{STORED}*0.25+{SECOND}*0.75", window_s=7.0)
    known = {STORED: Teacher(model=OTHER.model, embeddings_id="e" * 64), SECOND: Teacher(model=OWN.model)}
    labels, _ = chain(own, teachers=known)
    assert labels.needs == (STORED, SECOND, "e" * 64) and labels.model == OTHER.model
    with pytest.raises(InputError, match="clip_s % 5 == 0 must hold for the head 'cnn'"):
        chain(own, teachers={STORED: Teacher(model=OWN.model), SECOND: Teacher(model=OTHER.model)})


def test_predictions_of_a_teacher_by_cross_entropy_say_that_they_are_its_softmax():
    own = recipe(of=STORED, window_s=5.0)
    (labels, _), (of_softmax, _) = (
        chain(own, teachers={STORED: Teacher(model=OWN.model, compares=by_ce)}) for by_ce in (False, True)
    )
    assert "probabilities" not in labels.identity and of_softmax.identity["probabilities"] == "softmax"
    assert labels.stage_id != of_softmax.stage_id
    stages = (replace(OWN.stages[0], name="teacher", label_space="target", loss="ce"), *own.stages)
    stages = (stages[0], replace(stages[1], predicts="teacher"), *stages[2:])
    assert chain(replace(own, stages=stages))[1].identity["probabilities"] == "softmax"


def test_each_fold_has_its_own_head_and_predictions():
    search = Search(name="one", recipes=(replace(OWN, name="own", stages=HEADS),), space={})
    replicates = (Replicate.of_fold(0, "d0"), Replicate.of_fold(1, "d1"))
    tasks = make_chain_builder(search, unlabelled_fingerprint="birds", replicates=replicates).chain("own", {})
    place = {task.name: task for task in tasks}
    for fold in ("fold0", "fold1"):
        assert place[f"labels@{fold}"].needs == (place[f"head@{fold}"].stage_id, place["embed"].stage_id)
    assert len({task.stage_id for task in tasks}) == len(tasks) == 9, "all folds have the same embeddings"


def test_a_head_hears_windows_that_the_recipes_own_model_could_not():
    model = replace(OTHER.model, spectrogram=OWN.model.spectrogram)
    stages = (*HEADS[:3], replace(HEADS[3], clip_s=3.0), replace(HEADS[4], clip_s=10.0))
    space = Search(name="one", recipes=(Recipe(name="own", model=model, stages=stages),), space={}).of_recipe
    own = space(Recipe(name="own", model=model, stages=stages))
    assert own.configs({})[1][3].clip_s == 3.0
    with pytest.raises(InputError, match="stage student: clip_s % 5"):
        space(Recipe(name="own", model=model, stages=(*stages[:4], replace(HEADS[4], clip_s=3.0)))).configs({})
