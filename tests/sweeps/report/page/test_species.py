"""Which species gain in a sweep."""

from dataclasses import replace

import pytest
from made_up_stages import publish
from made_up_sweep import made_up_sweep, write_sweep

from birdclef_core.store.storage import Storage
from sweeps.report.page.shown import ShownSweep
from sweeps.report.page.species import species_gain

HEAD = "species,average_precision,support\n"


@pytest.fixture
def sweep(tmp_path):
    """A sweep of which no stage is stored yet."""
    write_sweep(tmp_path, *made_up_sweep(30))
    return ShownSweep.load(Storage.parse(str(tmp_path)), "s")


def store_table(sweep: ShownSweep, trial, table: str) -> None:
    stage_id = trial.stage_ids[-1]
    publish(sweep.store, stage_id)
    folder = f"stages/{stage_id}/{sweep.store.published_attempt(stage_id)}"
    sweep.store.storage.write_text(f"{folder}/species.csv", HEAD + table)


def test_the_best_is_compared_with_the_own_settings_of_its_recipe(sweep):
    best = replace(sweep.trials[0], trial="t0030", score=0.99, stage_ids=["f" * 64] * 5, params={"train.clip_s": 5.0})
    sweep = replace(sweep, trials=(*sweep.trials, best))
    assert species_gain(sweep) is None, "nothing is stored"
    store_table(sweep, best, "crow,0.9,4\nowl,0.2,1\nwren,0.5,3\nswan,0.7,0\n")
    store_table(sweep, sweep.trials[0], "owl,0.3,1\nwren,0.5,3\ncrow,0.4,4\nswan,0.1,0\n")
    found = species_gain(sweep)
    assert found.rows == [("crow", 4, 0.4, 0.9), ("wren", 3, 0.5, 0.5), ("owl", 1, 0.3, 0.2)], (
        "without a recording nothing is known"
    )
    assert "t0030, the best trial, against t0000, which has the own settings of sed_v2s: 1 of 3 species" in found.what
    assert "are found better, 1 worse" in found.what


def test_without_such_a_trial_it_is_compared_with_the_median(sweep):
    own = [trial for trial in sweep.trials[1:] if trial.recipe == "sed_v2s" and trial.score is not None]
    sweep = replace(sweep, trials=tuple(own))
    *others, best = sorted(own, key=lambda trial: trial.score)
    median = others[::-1][len(others) // 2] if len(others) % 2 else others[len(others) // 2]
    store_table(sweep, best, "crow,0.9,4\n")
    store_table(sweep, median, "crow,0.4,4\n")
    assert f"against {median.trial}, the median of the finished trials of sed_v2s" in species_gain(sweep).what
    assert species_gain(replace(sweep, trials=tuple(own[:2]))) is None
