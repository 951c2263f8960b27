"""A cluster whose nodes join while the sweep waits and while it runs: trials run on both, on one store.

Training is made up.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from made_up_stage import ExecutionLog, MadeUpStage
from rich.console import Console

from birdclef_core.stages.epochs import EpochMetrics
from sweeps.execution.actor import TrialActor, WorkerContext
from sweeps.execution.nodes.check import NodeCheck

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.ray]

BOTH = "both.txt"
"""A file that is there when trials have run on both nodes."""
OUTPUT = "out.txt"
CANNOT = "cannot train and gets no trials for 10 minutes: no recordings here"
REPOSITORY = Path(__file__).parents[3]
SEARCH = """
from birdclef_core.config import ModelConfig, Recipe, SpectrogramConfig, StageConfig
from sweeps.search.space import Range, Search

STAGE = StageConfig(
    name="train_bce", label_space="target", loss="bce", seed=2, epochs=2, learning_rate=3e-3, clip_s=1.0, batch_size=4
)
MODEL = ModelConfig(
    encoder="mobilenetv3_small_050",
    spectrogram=SpectrogramConfig(num_mels=32, n_fft=1024, hop_length=500, deltas=False),
    drop_path_rate=0.0,
)
SEARCH = Search(
    name="tiny",
    recipes=(Recipe(name="tiny", model=MODEL, stages=(STAGE,)),),
    space={"train_bce.learning_rate": Range(1e-3, 1e-2, log=True)},
)
"""


@pytest.fixture
def cluster(monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}:{REPOSITORY / 'tests' / 'helpers'}")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@dataclass(frozen=True, kw_only=True)
class CheckWithBadNode(NodeCheck):
    """Finds fault with one node, whose id is in a file."""

    bad: Path

    def problem(self, node: str) -> str:
        is_bad = self.bad.exists() and self.bad.read_text().startswith(node)
        return "no recordings here" if is_bad else super().problem(node)


class PatientActor(TrialActor):
    """Trains made-up stages."""

    def setup(self, config: dict, context: WorkerContext) -> None:
        import sweeps.execution.trial

        sweeps.execution.trial.train_stage = made_up_stage
        super().setup(config, context)


def made_up_stage(*arguments: Any, **more: Any) -> Iterator[EpochMetrics]:
    """Train a stage that waits after each epoch until trials have run on both nodes, and the driver has said that a third cannot train."""
    for metrics in MadeUpStage(ExecutionLog(Path("executed.txt").absolute()))(*arguments, **more):
        yield metrics
        end = time.monotonic() + 150
        while not (Path(BOTH).exists() and CANNOT in Path(OUTPUT).read_text()) and time.monotonic() < end:
            time.sleep(0.1)


def test_a_sweep_waits_for_its_first_node_and_uses_what_joins_later_but_for_a_node_that_cannot_train(
    cluster, tmp_path, tone_data, monkeypatch
):
    """From an autoscaler, which gives a node at a time, as often as the sweep asks for more. The second one cannot train."""
    from sweeps.execution import cluster as joining
    from sweeps.options import SweepOptions
    from sweeps.run import runner
    from sweeps.run.driver import nodes, tuning

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.py").write_text(SEARCH)
    bad = tmp_path / "bad.txt"
    seen: set[str] = set()
    original = runner.Coordinator.update

    def report(self, trial, report):
        if report.kind == "epoch" and report.node:  # the plan, simulated before the trials run, has none
            seen.add(report.node)
            if len(seen) == 2:
                Path(BOTH).touch()
        return original(self, trial, report)

    def scale_up(bundles):
        if len(cluster.worker_nodes) < min(3, len(bundles) + bad.exists()):
            node = cluster.add_node(num_cpus=1)
            if len(cluster.worker_nodes) == 2:
                bad.write_text(node.node_id)

    monkeypatch.setattr(tuning, "TrialActor", PatientActor)
    monkeypatch.setattr(runner.Coordinator, "update", report)
    monkeypatch.setattr(nodes, "NodeCheck", partial(CheckWithBadNode, bad=bad))
    monkeypatch.setattr(joining, "ask_autoscaler", scale_up)
    monkeypatch.setattr(nodes, "ask_autoscaler", scale_up)
    options = SweepOptions(
        search="tiny.py",
        data=str(tone_data.dataset.root),
        budget="full",
        samples=3,
        address=cluster.address,
        pretrained="off",
        tracking_uri="off",
        cache_dir=str(tmp_path / "cache"),
        name="two",
        gpus_per_trial=0,
    )
    out = tmp_path / OUTPUT
    result = runner.start_sweep(options, Console(file=out.open("w", buffering=1), width=300))
    assert {record.status for record in result.trials} <= {"finished", "pruned"} and len(result.trials) == 3
    text = out.read_text()
    assert "Waiting for a node with a GPU or a CPU for trials." in text
    assert "1 at a time on 1 machine," in text
    assert "0 GPU, 1 CPU joined. Trials at a time: 2 (before: 1)." in text
    assert text.count(CANNOT) == 1
    assert "worker lost" not in text and "is gone" not in text
    assert len(seen) == 2 and bad.read_text()[:6] not in seen, "one Ray node id for each node that can train"
