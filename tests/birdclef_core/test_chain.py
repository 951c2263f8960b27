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
