"""The slots of a cluster: whole GPUs, fractions of one that share it, CPUs alone, and what is refused."""

import pytest

from birdclef_core.errors import InputError
from sweeps.execution import cluster
from sweeps.execution.cluster import make_slots


@pytest.fixture
def machine(monkeypatch):
    """Lets Ray report a cluster of one node with as many GPUs and CPUs as are given."""

    def make(gpus: float, cpus: float) -> None:
        total = {"CPU": cpus, **({"GPU": gpus} if gpus else {})}
        monkeypatch.setattr(cluster.ray, "cluster_resources", lambda: total)
        monkeypatch.setattr(
            cluster.ray, "nodes", lambda: [{"Alive": True, "Resources": total}, {"Alive": False, "Resources": {}}]
        )

    return make


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
        (1, 2, 0.25, 4, 1),
        (0, 6, None, 6, 1),
    ],
)
def test_as_many_trials_as_fit_share_the_cpus(machine, gpus, cpus, gpus_per_trial, max_concurrent, cpus_per_trial):
    """Two trials of .4 fit on a GPU, and none across two of them: what is left of each is lost."""
    machine(gpus, cpus)
    slots = make_slots(gpus_per_trial, None, None)
    assert (slots.max_concurrent, slots.cpus_per_trial) == (max_concurrent, cpus_per_trial)
    assert slots.gpus_per_trial == (gpus_per_trial if gpus_per_trial is not None else float(gpus > 0))
    assert slots.num_nodes == 1


def test_what_the_user_gives_is_taken(machine):
    machine(2, 16)
    slots = make_slots(1.0, 3, 5)
    assert (slots.cpus_per_trial, slots.max_concurrent) == (3, 5)
    assert slots.resources() == {"cpu": 3, "gpu": 1.0}
    assert make_slots(0.0, 4, None).resources() == {"cpu": 4}
    assert make_slots(0.0, 4, None).max_concurrent == 4


@pytest.mark.parametrize(
    ("gpus_per_trial", "cpus_per_trial", "rule"),
    [(2.0, None, "gpus-per-trial"), (None, 17, "cpus-per-trial"), (0.0, 17, "cpus-per-trial")],
)
def test_more_than_the_cluster_has_is_refused(machine, gpus_per_trial, cpus_per_trial, rule):
    machine(1, 16)
    with pytest.raises(InputError, match=rule):
        make_slots(gpus_per_trial, cpus_per_trial, None)
