"""A chain as a graph: whose weights and predictions each stage needs, and which chains cannot be trained."""

from dataclasses import replace

import pytest

from birdclef_core.chain import check_chain, predictions_from, teacher_in_chain, weights_from
from birdclef_core.errors import InputError
from birdclef_core.recipes import predictions, sed_v2s
from birdclef_core.teacher_config import TeacherConfig

OWN = sed_v2s().stages[2]


def stage(name: str, *, learns_from: str = "", **changes):
    return replace(OWN, name=name, teacher=TeacherConfig(predictions=learns_from), **changes)


STUDENT = (
    stage("pretrain"),
    stage("train"),
    predictions("labels", of="train"),
    stage("student", starts_from="pretrain", learns_from="labels"),
)


def test_a_stage_starts_from_the_last_one_that_trains_or_the_one_that_it_names():
    assert [weights_from(STUDENT, index) for index in (0, 1, 3)] == [None, 0, 0]
    unnamed = (*STUDENT[:3], stage("student", learns_from="labels"))
    assert weights_from(unnamed, 3) == 1, "predictions have no weights"
    anew = (*STUDENT[:3], stage("student", starts_from="first_weights", learns_from="labels"))
    assert weights_from(anew, 3) is None
    assert [predictions_from(STUDENT, index) for index in (0, 1, 3)] == [None, None, 2]
    assert teacher_in_chain(STUDENT, 2) == 1
    assert teacher_in_chain((predictions("labels", of="a/t0001"),), 0) is None
    check_chain(STUDENT)


def test_rounds_of_students_and_a_recipe_of_2023_are_allowed():
    second = (predictions("more_labels", of="student"), stage("student_two", starts_from="pretrain", learns_from="more_labels"))
    check_chain((*STUDENT, *second))
    check_chain(sed_v2s().stages)


EMBED = predictions("embed", of="encoder:timm", on="recordings")
HEADS = (
    EMBED,
    stage("head_all", embeddings="embed", label_space="all"),
    stage("head", embeddings="embed", starts_from="head_all"),
    predictions("labels", of="head"),
    stage("student", learns_from="labels"),
)


def test_a_head_teaches_and_starts_from_another_head_if_it_says_so():
    check_chain(HEADS)
    assert [weights_from(HEADS, index) for index in (1, 2, 4)] == [None, 1, None], "a student does not start from a head"
    assert teacher_in_chain(HEADS, 3) == 2
    alone = (*HEADS[:2], replace(HEADS[2], starts_from=""))
    assert weights_from(alone, 2) is None


@pytest.mark.parametrize(
    ("stages", "problem"),
    [
        ((stage("a"), stage("b", starts_from="c")), r"starts_from of stage b .* is 'c'; before it there is a"),
        ((stage("a", starts_from="b"), stage("b")), "before it there are none"),
        ((*STUDENT[:3], stage("b", starts_from="labels", learns_from="labels")), "earlier stage that trains, but is 'labels'"),
        ((*STUDENT[:2], stage("b", learns_from="labels")), "earlier stage that predicts, but is 'labels'"),
        ((*STUDENT[:2], stage("b", learns_from="train")), "earlier stage that predicts, but is 'train'"),
        (STUDENT[:3], "last stage must train, but labels makes predictions"),
        ((stage("a"), stage("b", starts_from="first_weights")), "of use to a later one.*but a is not"),
        ((*STUDENT[:3], stage("b")), "of use to a later one.*but labels is not"),
        ((stage("a", label_space="all"), predictions("l", of="a"), stage("b", learns_from="l")), "label space of stage a"),
        (
            (replace(stage("a"), loss="soft_auc"), predictions("l", of="a"), stage("b", learns_from="l")),
            "predictions of a, whose loss 'soft_auc'",
        ),
        ((*HEADS[:2], predictions("l", of="head_all"), stage("b", learns_from="l")), "label space of stage head_all"),
        ((EMBED, predictions("l", of="embed"), stage("b", learns_from="l")), "predictions of embed, which keeps embeddings"),
        (
            (*HEADS[:2], stage("b", starts_from="head_all")),
            "but is 'head_all', a head on embeddings, which has no encoder; before",
        ),
        (
            (stage("a"), *HEADS[:1], stage("h", embeddings="embed", starts_from="a")),
            "earlier head on these.*but is 'a'; before it there are none",
        ),
        (
            (EMBED, stage("h", embeddings="embed", starts_from="first_weights")),
            "or empty for random weights, but is 'first_weights'",
        ),
        (
            (*HEADS[:2], replace(EMBED, name="other"), stage("h", embeddings="other", starts_from="head_all")),
            "a head on the embeddings of other, must be an earlier head on these",
        ),
        (
            (*HEADS[:2], stage("h", embeddings="embed", starts_from="head_all", head_hidden=8)),
            "head_hidden of stage h is 8 and that of head_all is 0",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_with_the_stage(stages, problem):
    with pytest.raises(InputError, match=problem):
        check_chain(stages)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "guess"},
        {"resampling": "often"},
        {"share": 0.0},
        {"share": 1.5},
        {"threshold": 1.0},
        {"power": 0.0},
        {"label_share": -0.1},
        {"weight": 0.0},
        {"share": "half"},
    ],
)
def test_a_teacher_cannot_have_every_setting(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        TeacherConfig(**wrong)


def test_shares_of_a_batch_are_at_most_all_of_it():
    with pytest.raises(InputError, match=r"soundscape_share \+ teacher\.share <= 1"):
        replace(OWN, soundscape_share=0.6, teacher=TeacherConfig(predictions="labels", share=0.5))
    replace(OWN, soundscape_share=0.6)
