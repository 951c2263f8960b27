"""Sweeps that are killed at random moments, again and again, end as if they had not been."""

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import mlflow
import pytest
from crash_place import SWEEPS, Place

from sweeps.tracking.connect import sync
from sweeps.tracking.server import run_local

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("BIRDCLEF_CRASH_ROUNDS", "2"))
"""Stores, with up to forty kills each."""


def crash(folder: Path, *arguments: str, folds: int = 0) -> int:
    """Runs `crashes.py` with a new seed, which is returned; what it says is shown when the test fails. `folds`: of the second sweep."""
    seed = random.randrange(10**6)
    script = Path(__file__).parents[2] / "helpers" / "crashes.py"
    done = subprocess.run(
        [sys.executable, str(script), str(folder), "--seed", str(seed), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "BIRDCLEF_CRASH_FOLDS": str(folds)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120 + 20 * ROUNDS,
    )
    print(done.stdout)
    assert done.returncode == 0, f"seed {seed}:\n{done.stdout}"
    return seed


def test_no_trial_is_lost_no_stage_trained_twice_and_nothing_forgotten(tmp_path):
    crash(tmp_path, "--rounds", str(ROUNDS))


def test_sweeps_with_folds_share_stages_with_one_of_a_fold_and_are_killed_too(tmp_path):
    crash(tmp_path, "--rounds", "1", folds=2)


@pytest.mark.skipif(not os.environ.get("BIRDCLEF_LONG_TESTS"), reason="takes minutes: set BIRDCLEF_LONG_TESTS=1")
def test_each_trial_is_one_run_in_mlflow_and_ends_as_it_did(tmp_path):
    """As `test_ray_crashes.py` and `test_abandoned_drivers.py` do, with more kills than either."""
    seed = crash(tmp_path, "--keep", "--kills", "20")
    place = Place(tmp_path / f"seed{seed}")
    with run_local(tmp_path / "mlflow") as url:
        for sweep in SWEEPS:
            report = sync(place.folder / sweep, url)
            assert (report.kept, report.rejected) == (0, 0)
        client = mlflow.MlflowClient(url)
        experiment = client.get_experiment_by_name("birdclef/crashes")
        runs = client.search_runs([experiment.experiment_id], max_results=1000)
        points = {
            run.data.tags["birdclef.stage_id"]: Counter(
                point.step for point in client.get_metric_history(run.info.run_id, "train/loss")
            )
            for run in runs
            if run.data.tags["birdclef.kind"] == "execution" and run.info.status == "FINISHED"
        }
    assert points == {stage_id: Counter(epoch["epoch"] for epoch in place.store.record(stage_id).history) for stage_id in points}
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED", "FAILED"}
    for sweep in SWEEPS:
        found = {
            run.data.tags["birdclef.trial"]: run.data.tags["birdclef.status"]
            for run in runs
            if run.data.tags["birdclef.kind"] == "trial" and run.data.tags["birdclef.sweep"] == sweep
        }
        assert found == {record.trial: record.status for record in place.records(sweep).load_trials()}
    trials = [run for run in runs if run.data.tags["birdclef.kind"] == "trial"]
    assert len(trials) == len(SWEEPS) * place.samples, "one run a trial"
    published = [run for run in runs if run.data.tags["birdclef.kind"] == "execution" and run.info.status == "FINISHED"]
    ids = [run.data.tags["birdclef.stage_id"] for run in published]
    assert len(ids) == len(set(ids)), "a stage has one run that finished it"
