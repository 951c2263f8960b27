"""Search a noisy student: a stage that learns from labels and from what an earlier stage hears in soundscapes without labels.

The second recipe trains as many epochs without a teacher, so that the first has to be better by more than its longer training.
Source: Xie et al., Self-training with Noisy Student improves ImageNet classification, CVPR 2020.
"""

from dataclasses import replace

from birdclef_core.config import Recipe
from birdclef_core.recipes import predictions, sed_seresnext26t
from birdclef_core.teacher_config import TeacherConfig
from sweeps.search import Choice, Range, Search

_RECIPE = sed_seresnext26t()
_PRETRAIN = replace(_RECIPE.stages[0], name="pretrain", epochs=60)
_TRAIN = replace(_RECIPE.stages[2], name="train", loss="bce", learning_rate=1e-3, epochs=40)
_PSEUDO_LABEL = predictions("pseudo_label", of="train")
_STUDENT = replace(
    _TRAIN, name="student", starts_from="pretrain", teacher=TeacherConfig(predictions="pseudo_label", share=0.5), seed=1
)
_ALONE = replace(_TRAIN, name="train_alone", starts_from="pretrain", epochs=_TRAIN.epochs + _STUDENT.epochs)

SEARCH = Search(
    name="noisy_student",
    recipes=(
        Recipe(name="noisy_student", model=_RECIPE.model, stages=(_PRETRAIN, _TRAIN, _PSEUDO_LABEL, _STUDENT)),
        Recipe(name="no_teacher", model=_RECIPE.model, stages=(_PRETRAIN, _ALONE)),
    ),
    space={
        "student.teacher.share": Choice((0.25, 0.5, 0.75)),
        "student.teacher.threshold": Range(0.05, 0.5),
        "student.teacher.power": Choice((1.0, 2.0)),
        "student.learning_rate": Range(3e-4, 3e-3, log=True),
        "train_alone.learning_rate": Range(3e-4, 3e-3, log=True),
    },
    small_space={
        "student.learning_rate": Range(3e-4, 1.5e-3, log=True),
        "train_alone.learning_rate": Range(3e-4, 1.5e-3, log=True),
    },
)
