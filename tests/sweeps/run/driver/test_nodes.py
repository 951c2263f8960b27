"""Every node of a cluster looks whether it can train before a sweep is written down."""

from contextlib import nullcontext
from pathlib import Path

import pytest
from rich.console import Console

from birdclef_core.errors import InputError
from sweeps.execution.nodes.check import RUN_MARK
from sweeps.execution.nodes.slots import Node, Slots
from sweeps.options import SweepOptions
from sweeps.run import runner
from sweeps.run.driver import nodes as nodes_of_run

HEAD, FIRST, SECOND = (Node(name=name, node_id=name * 20, cpus=cpus) for name, cpus in (("head", 0), ("one", 2), ("two", 2)))


@pytest.fixture
def cluster(tmp_path, tone_data, monkeypatch):
    """Starts a sweep on a cluster of three nodes, of which those given have problems."""
    asked: list[list[Node]] = []

    def start(problems: dict[str, str]) -> None:
        def check_nodes(check, nodes, gpus):
            assert check.sweep_folder.read_bytes(RUN_MARK) == check.run.encode()
            asked.append(nodes)
            return problems

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(runner, "connect", lambda address: nullcontext())
        slots = Slots(gpus_per_trial=0, cpus_per_trial=1, max_concurrent=4, num_nodes=2)
        monkeypatch.setattr(runner, "find_slots", lambda *_, **__: slots)
        monkeypatch.setattr(nodes_of_run, "alive_nodes", lambda: [HEAD, FIRST, SECOND])
        monkeypatch.setattr(nodes_of_run, "check_nodes", check_nodes)
        options = SweepOptions(
            search="sed",
            data=str(tone_data.dataset.root),
            budget="small",
            address="a:1",
            pretrained="off",
            tracking_uri="off",
            name="s",
        )
        with Path("out.txt").open("w") as out:
            runner.start_sweep(options, Console(file=out, width=300))

    return start, asked


def test_a_sweep_that_no_node_can_train_is_refused_and_leaves_no_record(cluster):
    start, asked = cluster
    with pytest.raises(InputError, match=r"none is:\n  one: no recordings\n  two: no driver"):
        start({FIRST.short_id: "no recordings", SECOND.short_id: "no driver"})
    assert asked == [[FIRST, SECOND]], "the head has no room for a trial and is not asked"
    assert not Path("sweeps-output/s/sweep.json").exists()


def test_a_sweep_begins_without_a_node_that_cannot_train(cluster, monkeypatch):
    start, _ = cluster

    class Begun(Exception):
        """The sweep is about to be written down."""

    def begin(driver, inputs):
        assert driver.unfit.unfit([HEAD, FIRST, SECOND]) == [SECOND]
        raise Begun

    monkeypatch.setattr(runner._Driver, "_begin", begin)
    with pytest.raises(Begun):
        start({SECOND.short_id: "no driver"})
    assert f"Node {SECOND.short_id} cannot train and gets no trials for 10 minutes: no driver" in Path("out.txt").read_text()
