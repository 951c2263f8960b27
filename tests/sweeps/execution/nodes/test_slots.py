"""The slots of a cluster: whole GPUs, fractions of one that share it, CPUs alone, nodes that differ, what is refused, what changes."""

import pytest

from birdclef_core.errors import InputError
from sweeps.execution.nodes.slots import Capacity, Node, Slots, check_can_choose, list_nodes, plan_slots, what_is_missing

HEAD = Node(name="head", node_id="h", cpus=8)
WORKER = Node(name="worker", node_id="w", cpus=1, gpus=1)


@pytest.mark.parametrize(
    ("gpus", "cpus", "gpus_per_trial", "max_concurrent", "cpus_per_trial"),
    [
        (8, 64, 1.0, 8, 8),
        (8, 64, None, 8, 8),
        (8, 64, 2.0, 4, 16),
        (8, 64, 3.0, 2, 32),
        (2, 16, 0.5, 4, 4),
        (2, 16, 0.4, 4, 4),
        (2, 16, 0.34, 4, 4),
        (2, 16, 0.33, 6, 2),
        (1, 2, 0.25, 2, 1),
        (0, 6, None, 6, 1),
    ],
)
def test_as_many_trials_as_fit_share_the_cpus(gpus, cpus, gpus_per_trial, max_concurrent, cpus_per_trial):
    """Two trials of .4 fit on a GPU, and none across two of them: what is left of each is lost. Each needs a core."""
    slots = plan_slots([Node(name="a", gpus=gpus, cpus=cpus)], gpus_per_trial, None, None)
    assert (slots.max_concurrent, slots.cpus_per_trial) == (max_concurrent, cpus_per_trial)
    assert slots.gpus_per_trial == (gpus_per_trial if gpus_per_trial is not None else float(gpus > 0))
    assert slots.num_nodes == 1


def test_the_cpus_of_a_head_without_gpu_are_no_ones_share():
    """The head's eight cores are on another machine than the GPU: a trial of nine cores would wait for ever."""
    slots = plan_slots([HEAD, WORKER], None, None, None)
    assert slots.resources() == {"CPU": 1, "GPU": 1.0}
    assert (slots.max_concurrent, slots.num_nodes) == (1, 1)


def test_every_gpu_can_be_used_where_nodes_differ():
    large, small = Node(name="large", cpus=64, gpus=4), Node(name="small", cpus=8, gpus=2)
    slots = plan_slots([large, small, Node(name="no cores", gpus=1)], None, None, None)
    assert (slots.cpus_per_trial, slots.max_concurrent, slots.num_nodes) == (4, 6, 2)


def test_slots_know_the_cards_that_their_trials_run_on():
    fast = Node(name="a", gpus=4, cpus=16, cards=("H100",) * 4)
    mixed = Node(name="b", gpus=2, cpus=8, cards=("H100", "T4"))
    assert plan_slots([fast, mixed], None, None, None).devices == {"H100": 5, "T4": 1}
    assert plan_slots([fast, mixed], 0.5, None, None).devices == {"H100": 10, "T4": 2}
    assert plan_slots([mixed, mixed], 1.0, 1, 2).devices == {"H100": 2} and plan_slots([mixed], 1.0, 1, 2).devices == {
        "H100": 1,
        "T4": 1,
    }
    assert plan_slots([fast, WORKER], None, None, None).devices == {}, "the card of one is not known"
    assert plan_slots([fast], 0.0, None, None).devices == {}, "trials on CPUs"
    assert (
        plan_slots([mixed], None, None, None).describe()
        == "2 at a time on 1 machine, each with 1 GPU and 4 CPU (1 on H100, 1 on T4)"
    )


def test_what_the_user_gives_is_taken_as_far_as_there_is_room():
    nodes = [Node(name="a", gpus=2, cpus=16)]
    assert plan_slots(nodes, 1.0, 3, 5).max_concurrent == 2
    assert plan_slots(nodes, 1.0, 3, 1).max_concurrent == 1
    assert plan_slots(nodes, 1.0, 3, 5).resources() == {"CPU": 3, "GPU": 1.0}
    assert plan_slots(nodes, 0.0, 4, None).resources() == {"CPU": 4}
    assert plan_slots(nodes, 0.0, 4, None).max_concurrent == 4


@pytest.mark.parametrize(("gpus_per_trial", "cpus_per_trial"), [(2.0, None), (None, 2), (0.0, 9), (1.0, 8)])
def test_what_fits_on_no_node_is_refused_with_the_nodes(gpus_per_trial, cpus_per_trial):
    with pytest.raises(InputError, match=r"head: 0 GPU, 8 CPU; worker: 1 GPU, 1 CPU") as error:
        plan_slots([HEAD, WORKER], gpus_per_trial, cpus_per_trial, None)
    assert f"--cpus-per-trial {cpus_per_trial or 1} " in str(error.value)


def test_a_long_list_of_nodes_is_cut():
    nodes = [Node(name=f"n{index}", cpus=1) for index in range(20)]
    assert list_nodes(nodes).endswith("n11: 0 GPU, 1 CPU; 8 more")
    assert list_nodes([]) == "none"


def test_nothing_is_chosen_from_a_cluster_that_workers_may_not_have_joined():
    for nodes, runs_on_cpus in (([HEAD], False), ([Node(name="head")], True), ([], True)):
        with pytest.raises(InputError, match="--wait-for-gpus N"):
            check_can_choose(nodes, gpus_per_trial=None, wait_for_gpus=None, runs_on_cpus=runs_on_cpus)
    check_can_choose([HEAD], gpus_per_trial=None, wait_for_gpus=None, runs_on_cpus=True)
    check_can_choose([HEAD, WORKER], gpus_per_trial=None, wait_for_gpus=None, runs_on_cpus=False)
    check_can_choose([], gpus_per_trial=0.0, wait_for_gpus=None, runs_on_cpus=False)
    check_can_choose([], gpus_per_trial=None, wait_for_gpus=4, runs_on_cpus=False)


def test_a_sweep_waits_for_its_gpus_and_for_the_first_node():
    assert what_is_missing([HEAD, WORKER], wait_for_gpus=4) == "4 GPUs (--wait-for-gpus), of which 1 are there"
    assert what_is_missing([HEAD, WORKER], wait_for_gpus=1) == ""
    assert what_is_missing([Node(name="head")], wait_for_gpus=None) == "a node with a GPU or a CPU for trials"
    assert what_is_missing([HEAD], wait_for_gpus=None) == ""


class TestCapacity:
    """The room is counted anew as nodes come and go."""

    def setup_method(self):
        self.said: list[str] = []
        slots = Slots(gpus_per_trial=1.0, cpus_per_trial=2, max_concurrent=2, num_nodes=1)
        self.capacity = Capacity(slots, max_concurrent=3, say=self.said.append)

    def node(self, name, gpus=2, cpus=8):
        return Node(name=name, node_id=name, gpus=gpus, cpus=cpus)

    def test_workers_that_join_are_used_up_to_the_users_limit(self):
        assert self.capacity.count([self.node("a")]) == 2
        assert self.said == []
        assert self.capacity.count([self.node("a"), self.node("b")]) == 3
        assert self.said == ["Nodes: b: 2 GPU, 8 CPU joined. Trials at a time: 3 (before: 2)."]

    def test_workers_that_leave_shrink_the_sweep_until_it_waits(self):
        self.capacity.count([self.node("a"), self.node("b", gpus=1)])
        assert self.capacity.count([self.node("b", gpus=1)]) == 1
        assert self.capacity.count([]) == 0
        assert self.said[0] == "Nodes: a is gone. Trials at a time: 1 (before: 3)."
        assert "waits for one" in self.said[-1]
        assert self.capacity.count([self.node("c")]) == 2

    def test_a_node_without_room_is_named(self):
        self.capacity.count([self.node("a")])
        assert self.capacity.count([self.node("a"), self.node("thin", cpus=1)]) == 2
        assert self.said[-1] == "thin has no room for a trial of this sweep, which needs 1 GPU and 2 CPU."

    def test_a_node_that_cannot_train_has_no_room_and_is_not_gone(self):
        nodes = [self.node("a", gpus=1), self.node("b", gpus=1)]
        assert self.capacity.count(nodes) == 2
        assert self.capacity.count(nodes, nodes[:1]) == 1
        assert self.said == []

    def test_an_autoscaler_is_asked_for_what_could_run(self):
        assert self.capacity.bundles(2) == [{"CPU": 2, "GPU": 1.0}] * 2
        assert len(self.capacity.bundles(100)) == 3
