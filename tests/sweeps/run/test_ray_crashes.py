"""A sweep on a real Ray cluster whose workers, nodes and drivers are killed at random moments, with a real MLflow server."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from made_up_stage import ExecutionLog

from birdclef_core.store.leases import Leases
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from sweeps.schedule.records import SweepRecords

mlflow = pytest.importorskip("mlflow")
pytestmark = [pytest.mark.slow, pytest.mark.ray]

REPOSITORY = Path(__file__).parents[3]
HELPERS = REPOSITORY / "tests" / "helpers"
TRIALS = 10


@pytest.fixture
def cluster(monkeypatch):
    """A head and one more node, with a core each."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}:{HELPERS}")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


class Killer:
    """A driver at a time, and who kills it and its workers."""

    def __init__(self, folder: Path, cluster, data: Path, seed: int) -> None:
        self.folder, self.cluster, self.data = folder, cluster, data
        self.random = random.Random(seed)
        self.log = ExecutionLog(folder / "executed.txt")
        self.kills: list[str] = []
        (folder / "search.py").write_text(
            "from crash_place import make_chain_builder\n\nSEARCH = make_chain_builder('first').search\n"
        )

    def start(self, *what: str) -> None:
        self.output = (self.folder / "output.txt").open("a")
        self.driver = subprocess.Popen(
            [
                sys.executable,
                str(HELPERS / "crash_driver.py"),
                self.cluster.address,
                str(self.log.path),
                "sweeps-output",
                "mlflow",
                *what,
            ],
            cwd=self.folder,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        before = self.executed()
        self.wait_until(lambda: self.executed() > before or self.driver.poll() is not None, limit_s=300)

    def executed(self) -> int:
        return self.log.count("epoch").total()

    def wait_until(self, condition: Callable[[], bool], limit_s: float) -> None:
        end = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < end, (self.folder / "output.txt").read_text()[-3000:]
            time.sleep(0.05)

    def kill(self, what: str) -> None:
        """At a random moment of the next two seconds."""
        time.sleep(self.random.uniform(0, 2))
        if self.driver.poll() is not None:
            return
        self.kills.append(what)
        if what == "driver":
            os.killpg(self.driver.pid, signal.SIGKILL)
            self.driver.wait()
        elif what == "node":
            self.cluster.remove_node(next(iter(self.cluster.worker_nodes)), allow_graceful=False)
            self.cluster.add_node(num_cpus=1)
        else:
            pid = int(self.random.choice(self.log.path.read_text().splitlines()[-2:]).split()[-1])
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGKILL)

    def end(self) -> None:
        self.wait_until(lambda: self.driver.poll() is not None, limit_s=240)
        assert self.driver.returncode == 0, (self.folder / "output.txt").read_text()[-3000:]


def test_workers_nodes_and_drivers_may_be_killed_at_any_moment(cluster, tmp_path, tone_data):
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    killer = Killer(tmp_path, cluster, tone_data.dataset.root, seed)
    killer.start("--start", str(killer.data), "search.py")
    for what in ("worker", "node", "driver"):
        killer.kill(what)
    killer.start("--resume")
    killer.kill("worker")
    killer.end()
    check_stages(tmp_path, killer)
    check_mlflow(tmp_path)


def check_stages(folder: Path, killer: Killer) -> None:
    storage = Storage.parse(str(folder / "sweeps-output"))
    records, store = SweepRecords(storage.at("s")).load_trials(), StageStore(storage.at("store"))
    assert [record.trial for record in records] == [f"t{index:04d}" for index in range(TRIALS)]
    assert all(record.ended and "worker lost" not in record.reason for record in records)
    begun, published = killer.log.count("epoch"), killer.log.count("published")
    assert begun.total() - len(begun) <= 2 * len(killer.kills), f"epochs lost by {killer.kills}: two of two workers at most"
    assert max(published.values()) == 1, "published twice"
    trained = [stage_id for record in records for stage_id in record.trained_ids]
    assert len(trained) == len(set(trained)) and set(trained) <= {stage for stage, _ in published}
    for record in records:
        if record.status == "finished":
            assert all(store.check(stage_id) == "" for stage_id in record.stage_ids)
    leases = Leases(store.storage)
    assert all(leases.is_dead(entry, time.time()) for entry in leases.entries())


def check_mlflow(folder: Path) -> None:
    from sweeps.tracking.connect import sync
    from sweeps.tracking.server import run_local

    records = SweepRecords(Storage.parse(str(folder / "sweeps-output" / "s"))).load_trials()
    report = sync(folder / "sweeps-output" / "s")
    assert (report.kept, report.rejected) == (0, 0)
    with run_local(folder / "mlflow") as url:
        client = mlflow.MlflowClient(url)
        experiment = client.get_experiment_by_name("birdclef/crashes")
        runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}
    trials = [run.data.tags for run in runs if run.data.tags["birdclef.kind"] == "trial"]
    assert sorted((tags["birdclef.trial"], tags["birdclef.status"]) for tags in trials) == [
        (record.trial, record.status) for record in records
    ]
