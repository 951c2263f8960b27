"""Whole sweeps on a simulated clock: every prefix once, several sweeps on one store, work in proportion to the trials."""

import math
from dataclasses import replace

import pytest
from made_up import make_chain_builder, make_search, make_students, view_of

from sweeps.plan.simulate import MemoryRecords, SimulatedStore, SimulatedSweep, SimulatedView, SimulationResult, simulate
from sweeps.schedule.coordinator import Coordinator
from sweeps.schedule.pruning import StageHalving
from sweeps.schedule.trials import TrialBook


def sweep(
    store: SimulatedStore, name: str = "a", *, samples: int, workers: int = 4, seed: int = 0, prunes=True
) -> SimulatedSweep:
    chains = make_chain_builder(replace(make_search(), sampler="random"), seed=seed)
    view, pruning = SimulatedView(store, name), StageHalving() if prunes else StageHalving(grace=math.inf)
    coordinator = Coordinator(chains, TrialBook(MemoryRecords(), view), samples=samples, max_running=workers, pruning=pruning)
    return SimulatedSweep(name=name, coordinator=coordinator)


def run(*sweeps: SimulatedSweep) -> SimulationResult:
    return simulate(sweeps, view_of(sweeps[0].coordinator).store, 4 * len(sweeps), lambda task: 2.0)


def test_executed_epochs_are_the_unique_epochs():
    one = sweep(SimulatedStore(), samples=40)
    result = run(one)
    records = one.coordinator.trials.values()
    assert set(result.executed.values()) == {1}
    assert result.epochs == sum(record.epochs_trained for record in records)
    assert result.worker_s == 2.0 * result.epochs == sum(record.cost_s for record in records)
    assert result.elapsed_s < result.worker_s < 4 * result.elapsed_s


def test_what_was_done_so_far_is_known_while_a_simulation_runs():
    result, seen = SimulationResult(), []
    one = sweep(SimulatedStore(), samples=3)

    def epoch_s(task) -> float:
        seen.append(result.worker_s)
        return 2.0

    assert simulate([one], view_of(one.coordinator).store, 2, epoch_s, result=result) is result
    assert seen == sorted(seen) and seen[0] == 0.0 < seen[-1] < result.worker_s


def test_two_sweeps_on_one_store_train_nothing_twice_and_share_what_is_the_same():
    store = SimulatedStore()
    sweeps = sweep(store, "a", samples=20, seed=1, prunes=False), sweep(store, "b", samples=20, seed=2, prunes=False)
    together = run(*sweeps)
    alone = [run(sweep(SimulatedStore(), samples=20, seed=seed, prunes=False)).epochs for seed in (1, 2)]
    assert set(together.executed.values()) == {1}
    assert together.epochs < sum(alone)
    for one in sweeps:
        assert len(one.coordinator.trials) == 20
        assert all(record.ended for record in one.coordinator.trials.values())


def test_a_stage_stopped_in_the_middle_goes_on_from_there():
    """With long stages there are rungs in their middles; what rises again trains its other epochs only."""
    recipes = tuple(
        replace(recipe, stages=tuple(replace(stage, epochs=10) for stage in recipe.stages)) for recipe in make_search().recipes
    )
    chains = make_chain_builder(replace(make_search(), recipes=recipes, sampler="random"))
    store = SimulatedStore()
    coordinator = Coordinator(chains, TrialBook(MemoryRecords(), SimulatedView(store, "a")), samples=60, max_running=3)
    result = simulate([SimulatedSweep(name="a", coordinator=coordinator)], store, 3, lambda task: 1.0)
    assert set(result.executed.values()) == {1}
    assert result.epochs == 10 * len(result.executed) + sum(store.unfinished.values())
    assert any(record.stopped and record.stopped.rung.epoch == 5 for record in coordinator.trials.values())


def test_no_more_work_at_once_than_there_are_workers_and_a_free_one_goes_to_any_sweep():
    store = SimulatedStore()
    sweeps = [sweep(store, name, samples=10, seed=seed, workers=9, prunes=False) for seed, name in enumerate("abc")]
    result = simulate(sweeps, store, 2, lambda task: 1.0)
    assert result.worker_s > 1.8 * result.elapsed_s
    assert result.worker_s <= 2 * result.elapsed_s


class _Counting:
    """A view that counts what it is asked."""

    def __init__(self, view: SimulatedView) -> None:
        self.view, self.asked = view, 0

    def __getattr__(self, name):
        self.asked += 1
        return getattr(self.view, name)


@pytest.mark.parametrize("prunes", [True, False])
def test_work_grows_with_the_number_of_trials_and_no_faster(prunes):
    def asked(samples: int) -> int:
        one = sweep(SimulatedStore(), samples=samples, workers=8, prunes=prunes)
        queue = one.coordinator.book._queue
        queue._view = counting = _Counting(queue._view)
        run(one)
        return counting.asked

    assert asked(800) < 10 * asked(100)


def test_students_of_two_teachers_share_their_predictions():
    search = make_students()
    chains = make_chain_builder(search, unlabelled_fingerprint="birds")
    store, pruning = SimulatedStore(), StageHalving(grace=math.inf)
    coordinator = Coordinator(
        chains, TrialBook(MemoryRecords(), SimulatedView(store, "a")), samples=8, max_running=4, pruning=pruning
    )
    result = simulate([SimulatedSweep(name="a", coordinator=coordinator)], store, 4, lambda task: 2.0)
    assert [record.status for record in coordinator.trials.values()] == ["finished"] * 8
    assert set(result.executed.values()) == {1} and len(result.executed) == 2 + 2 + 8
    assert result.epochs == 2 * 4 + 2 * 1 + 8 * 2
