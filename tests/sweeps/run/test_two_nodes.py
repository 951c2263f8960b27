"""A cluster whose nodes join while the sweep waits and while it runs: trials run on both, on one store."""

from pathlib import Path

import pytest
from rich.console import Console

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.ray]

SEARCH = """
from birdclef_core.config import ModelConfig, Recipe, SpectrogramConfig, StageConfig
from sweeps.search.space import Range, Search

STAGE = StageConfig(
    name="train_bce", label_space="target", loss="bce", seed=2, epochs=2, learning_rate=3e-3, clip_s=1.0, batch_size=4,
    clips_per_epoch=40,
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
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_a_sweep_waits_for_its_first_node_and_uses_one_that_joins_later(cluster, tmp_path, tone_data, monkeypatch):
    """From an autoscaler, which gives a node at a time, as often as the sweep asks for more."""
    from sweeps.execution import cluster as joining
    from sweeps.options import SweepOptions
    from sweeps.run import runner

    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.py").write_text(SEARCH)
    seen: set[str] = set()
    original = runner.Coordinator.update

    def report(self, trial, report):
        seen.update({report.node} - {""})  # the plan, simulated before the trials run, has none
        return original(self, trial, report)

    def scale_up(bundles):
        if len(cluster.worker_nodes) < min(2, len(bundles)):
            cluster.add_node(num_cpus=1)

    monkeypatch.setattr(runner.Coordinator, "update", report)
    monkeypatch.setattr(joining, "ask_autoscaler", scale_up)
    monkeypatch.setattr(runner, "ask_autoscaler", scale_up)
    options = SweepOptions(
        search="tiny.py",
        data=str(tone_data.dataset.root),
        budget="full",
        samples=4,
        address=cluster.address,
        pretrained="off",
        tracking_uri="off",
        cache_dir=str(tmp_path / "cache"),
        name="two",
        gpus_per_trial=0,
    )
    out = tmp_path / "out.txt"
    result = runner.start_sweep(options, Console(file=out.open("w"), width=300))
    assert {record.status for record in result.trials} <= {"finished", "pruned"} and len(result.trials) == 4
    assert len(seen) == 2, "one Ray node id for each node"
    text = out.read_text()
    assert "Waiting for a node with a GPU or a CPU for trials." in text
    assert "1 at a time on 1 machine(s)" in text
    assert "0 GPU, 1 CPU joined. Trials at a time: 2 (before: 1)." in text
