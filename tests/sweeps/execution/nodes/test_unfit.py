"""A node that cannot train gets no trials for a while; a sweep without a fit node ends, and no trial has paid for it."""

import pytest
from made_up import MadeUpWorkers, make_coordinator

from sweeps.execution.nodes.slots import Node, Slots
from sweeps.execution.nodes.unfit import AGAIN_S, UnfitNodes
from sweeps.execution.trial import unfit

SLOTS = Slots(gpus_per_trial=1.0, cpus_per_trial=1, max_concurrent=4, num_nodes=4)
NODES = [Node(name=f"n{index}", node_id=f"{index}" * 20, gpus=1, cpus=4) for index in range(4)]
HEAD = Node(name="head", node_id="h" * 20, cpus=8)


@pytest.fixture
def said():
    return []


@pytest.fixture
def now():
    return [0.0]


@pytest.fixture
def nodes(said, now):
    return UnfitNodes(said.append, clock=lambda: now[0])


def test_an_unfit_node_gets_no_trials_for_a_while_and_is_named_once(nodes, said, now):
    assert not nodes.take_news()
    for _ in range(2):
        nodes.add("111111", "no data")
    assert nodes.take_news() and not nodes.take_news()
    assert said == ["Node 111111 cannot train and gets no trials for 10 minutes: no data"]
    assert nodes.unfit(NODES) == [NODES[1]]
    assert nodes.fit(NODES) == [NODES[0], *NODES[2:]]
    now[0] = AGAIN_S
    assert nodes.fit(NODES) == NODES


def test_the_sweep_ends_when_every_node_with_room_is_unfit(nodes):
    nodes.add("000000", "no data")
    assert nodes.why_end([HEAD, *NODES], SLOTS) == ""
    assert nodes.why_end([HEAD, NODES[0]], SLOTS) == "  n0: no data"
    assert nodes.why_end([HEAD], SLOTS) == "", "nobody can train, but others may come"


def test_it_ends_after_three_nodes_where_none_has_trained(nodes, tmp_path):
    for node in ("000000", "111111"):
        nodes.add(node, "no data")
    assert nodes.why_end(NODES, SLOTS) == ""
    nodes.add("222222", "no data")
    assert nodes.why_end(NODES, SLOTS).count("no data") == 3
    workers = MadeUpWorkers(make_coordinator(tmp_path, observers=[nodes]))
    workers.step()
    assert nodes.why_end(NODES, SLOTS) == "", "one node trains: the sweep goes on there"


def test_a_trial_of_an_unfit_node_waits_for_another_and_loses_nothing(nodes, tmp_path):
    workers = MadeUpWorkers(make_coordinator(tmp_path, observers=[nodes], samples=3, max_running=1))
    coordinator = workers.coordinator
    for node in ("000000", "111111", "222222", "333333", "444444"):
        trial = coordinator.next_trial()
        update = unfit(trial.chain, "no data")
        update.node = node
        assert not coordinator.update(trial.record.trial, update)
        assert trial.record.status == "waiting"
    assert list(coordinator.trials) == ["t0000"], "the same one, each time"
    workers.run()
    assert {record.status for record in coordinator.trials.values()} <= {"finished", "pruned"}
    assert len(coordinator.trials) == 3


def test_a_stopped_sweep_hands_out_nothing_and_is_continued_by_the_next_driver(tmp_path):
    workers = MadeUpWorkers(make_coordinator(tmp_path, samples=3, max_running=2))
    workers.step()
    coordinator = workers.coordinator
    trial = coordinator.book.running_trials()[0]
    coordinator.update(trial.record.trial, unfit(trial.chain, "no data"))
    coordinator.stop("no data")
    assert coordinator.finished and coordinator.next_trial() is None and coordinator.could_run <= 1
    assert trial.record.status == "interrupted"
    coordinator.interrupt()
    again = MadeUpWorkers(make_coordinator(tmp_path, samples=3, max_running=2))
    again.run()
    assert len(again.coordinator.trials) == 3 and all(record.ended for record in again.coordinator.trials.values())
