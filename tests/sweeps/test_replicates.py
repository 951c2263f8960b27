"""The replicates of a trial: names, levels, and means with their standard errors."""

import math

import numpy as np
import pytest

from sweeps.objective import Score
from sweeps.replicates import level_of, levels, mean_metrics, mean_score, replicate_of, stage_of

NAMES = ["labels", "train@fold0", "train@fold1", "finetune@fold0", "finetune@fold1"]


def test_names_say_stage_and_part():
    assert [stage_of(name) for name in NAMES] == ["labels", "train", "train", "finetune", "finetune"]
    assert [replicate_of(name) for name in NAMES] == ["", "fold0", "fold1", "fold0", "fold1"]
    assert levels(NAMES) == [[0], [1, 2], [3, 4]]
    assert level_of(NAMES, 1) == [1, 2] and level_of(NAMES, -1) == [3, 4]


@pytest.mark.parametrize(
    ("replicate", "on_soundscapes", "errors", "expected"),
    [
        ("fold", False, (0.01, 0.01), math.sqrt(0.02 / 2)),  # the spread of the folds has both reasons in it
        ("fold", False, (0.3, 0.3), math.sqrt(0.09 / 2)),  # it is smaller than the errors say: by chance
        ("fold", False, (None, None), math.sqrt(0.02 / 2)),
        ("fold", True, (0.1, 0.1), math.sqrt(0.01 + 0.02 / 2)),  # the same soundscapes for all folds
        ("repeat", False, (0.1, 0.1), math.sqrt(0.01 + 0.02 / 2)),
        ("repeat", False, (None, None), None),  # how far the recordings themselves mislead is not known
    ],
)
def test_the_error_of_a_mean(replicate, on_soundscapes, errors, expected):
    scores = {f"train@{replicate}0": Score(0.4, errors[0]), f"train@{replicate}1": Score(0.6, errors[1])}
    mean = mean_score(scores, on_soundscapes=on_soundscapes)
    assert mean.value == pytest.approx(0.5)
    assert mean.error == (None if expected is None else pytest.approx(expected))


def test_one_part_keeps_its_own_error():
    assert mean_score({"train": Score(0.4, 0.1)}, on_soundscapes=False) == Score(0.4, 0.1)
    assert mean_score({"train": Score(0.4)}, on_soundscapes=False) == Score(0.4)


@pytest.mark.parametrize("replicate", ["fold", "repeat"])
def test_errors_are_right_on_average_where_training_and_scoring_differ_by_chance(replicate):
    """Recordings of folds differ from fold to fold, those of repetitions are the same: then their error does not become less."""
    generator, num_replicates, of_training, of_scoring = np.random.default_rng(0), 3, 0.02, 0.03
    said, made = [], []
    for _ in range(2000):
        recordings = generator.normal(0, of_scoring, num_replicates if replicate == "fold" else 1)
        values = 0.5 + generator.normal(0, of_training, num_replicates) + recordings
        mean = mean_score({f"x@{replicate}{n}": Score(value, of_scoring) for n, value in enumerate(values)}, on_soundscapes=False)
        said.append(mean.error**2)
        made.append((mean.value - 0.5) ** 2)
    assert 0.9 < math.sqrt(np.mean(said) / np.mean(made)) < 1.35


def test_metrics_are_means_with_their_errors_and_those_that_a_part_lacks_are_left_out():
    first = {
        "val/cmap": 0.4,
        "val/cmap_se": 0.01,
        "val/lrap": 0.3,
        "train/loss": 1.0,
        "val_soundscapes/auroc": 0.8,
        "val_soundscapes/auroc_se": 0.1,
    }
    second = {
        "val/cmap": 0.6,
        "val/cmap_se": 0.01,
        "train/loss": 3.0,
        "val/auroc": 0.9,
        "val_soundscapes/auroc": 0.8,
        "val_soundscapes/auroc_se": 0.1,
    }
    means = mean_metrics({"train@fold0": first, "train@fold1": second})
    assert means == pytest.approx(
        {"val/cmap": 0.5, "val/cmap_se": 0.1, "train/loss": 2.0, "val_soundscapes/auroc": 0.8, "val_soundscapes/auroc_se": 0.1}
    )
