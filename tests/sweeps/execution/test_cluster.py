"""Joining a cluster: an address without one is refused at once, and a sweep waits for the nodes that it was told to wait for."""

import socket
import time

import pytest

from birdclef_core.errors import InputError
from sweeps.execution import cluster
from sweeps.options import SweepOptions


@pytest.fixture
def closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        yield taken.getsockname()[1]


def test_an_address_without_a_cluster_is_refused_at_once(closed_port):
    started = time.monotonic()
    with (
        pytest.raises(InputError, match=f"none answers at '127.0.0.1:{closed_port}'"),
        cluster.connect(f"127.0.0.1:{closed_port}"),
    ):
        pass
    assert time.monotonic() - started < 30, "Ray tries for more than ten minutes"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:port", "no host:1"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(InputError, match="--address must name"), cluster.connect(address):
        pass


@pytest.fixture
def growing(monkeypatch):
    """A cluster that has one node more at each look. Yields what an autoscaler is asked for."""
    asked: list[list] = []
    nodes = [ray_node("head", CPU=8.0)]

    def look():
        now = list(nodes)
        nodes.append(ray_node(f"worker{len(nodes)}", CPU=4.0, GPU=1.0))
        return now

    monkeypatch.setattr(cluster, "with_cards", list)  # no node can be asked
    monkeypatch.setattr(cluster.ray, "nodes", look)
    monkeypatch.setattr(cluster, "ask_autoscaler", asked.append)
    monkeypatch.setattr(cluster, "WAIT_S", 0)
    return asked


def ray_node(name, *, alive=True, **resources):
    return {"NodeID": f"{name}-0123456789", "NodeManagerHostname": name, "Alive": alive, "Resources": resources}


def test_a_sweep_waits_for_its_gpus_and_says_so(growing):
    said: list[str] = []
    options = SweepOptions(search="sed", address="auto", wait_for_gpus=3)
    slots = cluster.find_slots(options, runs_on_cpus=False, say=said.append)
    assert (slots.gpus_per_trial, slots.cpus_per_trial) == (1.0, 4)
    assert slots.max_concurrent >= 3
    assert said[0].startswith("Waiting for 3 GPUs (--wait-for-gpus), of which 1 are there. Nodes: head (head-0): 0 GPU, 8 CPU; ")
    assert "of which 2 are there" in said[1]
    assert growing[0] == [{"GPU": 1.0}] * 3


def test_without_the_flag_a_cluster_without_gpus_is_refused(growing):
    with pytest.raises(InputError, match="--wait-for-gpus N"):
        cluster.find_slots(SweepOptions(search="sed", address="auto"), runs_on_cpus=False, say=print)


def test_a_machine_of_ones_own_is_taken_as_it_is(growing):
    slots = cluster.find_slots(SweepOptions(search="sed"), runs_on_cpus=False, say=print)
    assert (slots.gpus_per_trial, slots.cpus_per_trial, slots.max_concurrent) == (0.0, 1, 8)


def test_nodes_that_have_died_do_not_count(monkeypatch):
    monkeypatch.setattr(cluster.ray, "nodes", lambda: [ray_node("a", CPU=2.0), ray_node("b", alive=False, CPU=2.0)])
    assert [node.name for node in cluster.alive_nodes()] == ["a (a-0123)"]


def test_cards_have_the_names_that_the_driver_gives_them(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cluster._cards_here() == (), "a machine without the tool"
    tool.write_text('#!/bin/sh\n[ "$1" = --query-gpu=name ] || exit 1\necho "NVIDIA H100 80GB HBM3"\necho "Tesla T4"\n')
    tool.chmod(0o755)
    assert cluster._cards_here() == ("NVIDIA H100 80GB HBM3", "Tesla T4")
    tool.write_text('#!/bin/sh\necho "Failed to initialize NVML: Driver/library version mismatch"\nexit 18\n')
    assert cluster._cards_here() == ()
