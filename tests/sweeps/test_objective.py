"""What trials are compared by: any tracked score or a weighted sum, with its standard error, for each label space."""

import math
import random

import numpy as np
import pytest

from birdclef_core.errors import InputError
from birdclef_core.evaluation.metrics import summarise
from sweeps.objective import DEFAULT, METRICS, Objective, Score, pareto_front, tracked


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("val/cmap", "val/cmap"),
        (None, DEFAULT),
        (" val_soundscapes/auroc ", "val_soundscapes/auroc"),
        ("0.5*val/cmap+0.5*val_soundscapes/auroc", "0.5*val/cmap + 0.5*val_soundscapes/auroc"),
        ("val/cmap + 2 * val/lrap", "val/cmap + 2*val/lrap"),
        ("1e-3*val_all/cmap_pad5", "0.001*val_all/cmap_pad5"),
        ("val/cmap,cost/cpu_seconds_10min", "val/cmap, cost/cpu_seconds_10min"),
        (" val/cmap+val/lrap , cost/device_hours ", "val/cmap + val/lrap, cost/device_hours"),
    ],
)
def test_an_objective_is_read_and_written(text, written):
    assert str(Objective.of(text)) == written == str(Objective.of(written))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("val/cmpa", r"'val/cmpa' in 'val/cmpa' is not tracked\. Perhaps 'val/cmap' is meant\. Scores: val/cmap, "),
        ("auroc", "Perhaps 'val/auroc' is meant"),
        ("soundscapes/auroc", "Perhaps 'val_soundscapes/auroc' is meant"),
        ("0.5*val/cmap+0.5*val_soundscape/auroc", "'val_soundscape/auroc' in .* Perhaps 'val_soundscapes/auroc' is meant"),
        ("val/cmap_chance", "is not tracked"),
        ("train/loss", "is not tracked"),
        ("", "'' in '' is not tracked"),
        ("val/cmap+", "'' in 'val/cmap\\+' is not tracked"),
        ("val/cmap*0.5", "'0.5' in 'val/cmap\\*0.5' is not tracked"),
        ("2*3*val/cmap", "is not tracked"),
        ("half*val/cmap", "a number above 0, but 'half\\*val/cmap' has 'half'"),
        ("-1*val/cmap", "a number above 0"),
        ("0*val/cmap", "a number above 0"),
        ("nan*val/cmap", "a number above 0"),
        ("inf*val/cmap", "a number above 0"),
        ("val/cmap + 0.5*val/cmap", "each score once, but .* has val/cmap more than once"),
        ("val/cmap + val_all/cmap", "scores that one stage has"),
        (3, "must be text"),
        ("val/cmpa,cost/device_hours", "'val/cmpa' in .* Perhaps 'val/cmap' is meant"),
        (
            "val/cmap,cpu_seconds",
            r"'cpu_seconds' in .* is no cost\. Perhaps 'cost/cpu_seconds_10min' is meant\. Costs: cost/cpu_sec",
        ),
        ("val/cmap,val/lrap", r"'val/lrap' in 'val/cmap,val/lrap' is no cost\. Weigh scores in one sum\. Costs: "),
        ("val/cmap,val/cmap", "has val/cmap more than once"),
        ("val/cmap,cost/device_hours,cost/device_hours", "has cost/device_hours more than once"),
        ("val/cmap,cost/cpu_seconds_10min,cost/device_hours", "a score and then one cost, such as .* has 3 parts"),
        ("cost/device_hours", "is a cost alone: the model that costs least need not tell any species"),
        ("cost/device_hours,val/cmap", "begins with a cost"),
        ("val/cmap,", "'' in 'val/cmap,' is no cost"),
        ("val/cmap + cost/device_hours", "A cost cannot be weighed in a sum, .* 'val/cmap, cost/cpu_seconds_10min'"),
        ("val/cmap,2*cost/device_hours", "is no cost. Perhaps 'cost/device_hours' is meant"),
    ],
)
def test_a_wrong_objective_is_refused_with_the_rule_and_the_nearest_name(text, message):
    with pytest.raises(InputError, match=message):
        Objective.of(text)


def test_every_score_that_may_be_compared_is_computed_for_a_stage():
    truth = np.eye(4, 2)
    assert set(METRICS) <= summarise(truth, truth).keys()


def test_a_stage_is_compared_by_the_same_metrics_of_its_own_label_space():
    objective = Objective.of("0.25*val/cmap + 0.5*val_soundscapes/auroc")
    target = tracked("target", {"cmap": 0.8, "auroc": 0.1, "soundscapes/auroc": 0.6, "soundscapes/cmap": 0.3})
    assert target == {"val/cmap": 0.8, "val/auroc": 0.1, "val_soundscapes/auroc": 0.6, "val_soundscapes/cmap": 0.3}
    assert objective.score(target).value == pytest.approx(0.25 * 0.8 + 0.5 * 0.6)
    assert objective.score(target, "target") == objective.score(target)
    everything = tracked("all", {"cmap": 0.4, "auroc": 0.2})
    assert objective.score(everything, "all").value == pytest.approx(0.25 * 0.4 + 0.5 * 0.2)
    assert objective.named_in("all") == "0.25*val_all/cmap + 0.5*val_all/auroc"
    assert objective.of_record({"cmap": 0.4, "auroc": 0.2}, "all").value == pytest.approx(0.2)
    assert (objective.label_space, objective.on_soundscapes) == ("target", True)

    of_pretraining = Objective.of("val_all/cmap")
    assert (of_pretraining.label_space, of_pretraining.on_soundscapes) == ("all", False)
    assert of_pretraining.score(everything).value == 0.4 and of_pretraining.score(target, "target").value == 0.8


def test_what_was_not_scored_is_not_a_number():
    """In the middle of a stage soundscapes are scored at the rungs alone."""
    assert math.isnan(Objective.of("val_soundscapes/auroc").score({"val/auroc": 0.9}, "target").value)
    assert math.isnan(Objective.of("val/cmap + val_soundscapes/auroc").score({"val/cmap": 0.9}, "target").value)


def test_errors_of_the_same_recordings_add_up_and_those_of_others_are_independent():
    metrics = {
        "val/cmap": 0.5,
        "val/cmap_se": 0.01,
        "val/lrap": 0.5,
        "val/lrap_se": 0.02,
        "val_soundscapes/auroc": 0.5,
        "val_soundscapes/auroc_se": 0.04,
        "val/auroc": 0.5,
    }
    assert Objective.of("2*val/cmap").score(metrics).error == pytest.approx(0.02)
    assert Objective.of("val/cmap + val/lrap").score(metrics).error == pytest.approx(0.03)
    assert Objective.of("val/cmap + val/lrap + val_soundscapes/auroc").score(metrics).error == pytest.approx(0.05)
    assert Objective.of("val/cmap + val/auroc").score(metrics).error is None, "that of AUROC is not known"


def test_a_score_is_written_with_its_error_where_that_is_known():
    assert [str(score) for score in (Score(0.8125, 0.0125), Score(0.5), Score(math.nan, 0.1))] == ["0.812 ± 0.013", "0.500", "-"]


def test_a_stage_is_compared_by_the_score_alone_where_there_is_a_cost_too():
    objective = Objective.of("val/cmap, cost/device_hours")
    assert (objective.score_name, objective.cost, objective.names) == ("val/cmap", "cost/device_hours", ("val/cmap",))
    assert objective.score({"val/cmap": 0.5}).value == 0.5 and objective.named_in("all") == "val_all/cmap"
    assert objective.of_score == Objective.of("val/cmap")


def test_the_front_is_what_no_other_beats():
    """Against the definition, with equal scores, equal costs and equal pairs."""
    generator = random.Random(0)
    for _ in range(200):
        pairs = [(generator.randrange(6) / 5, float(generator.randrange(6))) for _ in range(generator.randrange(12))]
        beaten = [any(s >= score and c <= cost and (s, c) != (score, cost) for s, c in pairs) for score, cost in pairs]
        front = pareto_front(pairs)
        assert sorted(front) == [index for index, is_beaten in enumerate(beaten) if not is_beaten]
        assert [pairs[index] for index in front] == sorted((pairs[index] for index in front), reverse=True), "best score first"
    assert pareto_front([(0.5, math.inf), (0.4, math.inf)]) == [0], "where no cost is known, the best score"
