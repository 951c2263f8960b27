"""What a sweep begins it can end within its limits: simulated sweeps with the real coordinator, and what it learns of costs."""

import math
from collections import Counter
from dataclasses import replace

import pytest
from made_up import MadeUpWorkers, make_chain_builder, make_search

from birdclef_core.stages.task import StageTask
from sweeps.budget import Budget, Limits
from sweeps.devices import DeviceSpeeds
from sweeps.plan.simulate import (
    MemoryRecords,
    SimulatedClock,
    SimulatedStore,
    SimulatedSweep,
    SimulatedView,
    SimulatedWorker,
    SimulationResult,
    simulate,
)
from sweeps.schedule.coordinator import Coordinator
from sweeps.schedule.pruning import StageHalving
from sweeps.schedule.spending import REMEMBERED_EPOCHS, UNKNOWN_S, EpochCosts, EpochSeconds, nothing_known
from sweeps.schedule.trials import TrialBook

HOUR_S = 3600.0
EPOCH_S = 60.0
CHAIN_S = EPOCH_S * sum(stage.epochs for stage in make_search().recipes[0].stages)
ALIKE = (SimulatedWorker(),) * 4
MIXED = (*[SimulatedWorker(device="fast")] * 2, *[SimulatedWorker(device="slow", speed=0.25)] * 2)


def an_epoch(task: StageTask) -> float:
    return EPOCH_S


def by_sound(task: StageTask) -> float:
    """An epoch costs what its sound takes."""
    return EPOCH_S * task.config.clip_s / 5


class Place:
    """One sweep, one driver after the other."""

    def __init__(self, search=None) -> None:
        self.chains = make_chain_builder(search or replace(make_search(), sampler="random"))
        self.store, self.records, self.ran_s = SimulatedStore(), MemoryRecords(), 0.0

    def run(
        self, limits: Limits, *, samples=None, known=an_epoch, epoch_s=an_epoch, prunes=True, gpus=1.0, cards=ALIKE, speeds=None
    ) -> tuple[Coordinator, SimulationResult]:
        clock = SimulatedClock()
        budget = Budget(limits, gpus_per_worker=gpus, ran_s=self.ran_s, clock=clock)
        book = TrialBook(self.records, SimulatedView(self.store, "s"))
        pruning = StageHalving() if prunes else StageHalving(grace=math.inf)
        coordinator = Coordinator(
            self.chains,
            book,
            samples=samples,
            max_running=len(cards),
            pruning=pruning,
            budget=budget,
            epoch_s=known,
            speeds=speeds,
            devices=Counter(card.device for card in cards),
        )
        result = simulate([SimulatedSweep(name="s", coordinator=coordinator)], self.store, cards, epoch_s, clock=clock)
        self.ran_s = budget.ran_s
        return coordinator, result


def hours_of(chains: float) -> float:
    return chains * CHAIN_S / HOUR_S


@pytest.mark.parametrize("prunes", [True, False])
@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_with_known_costs_everything_that_is_begun_ends_and_little_is_left(sampler, prunes):
    limits = Limits(gpu_hours=hours_of(7))
    coordinator, result = Place(replace(make_search(), sampler=sampler)).run(limits, prunes=prunes)
    records = coordinator.trials.values()
    assert {record.status for record in records} <= {"finished", "pruned"}
    assert coordinator.finished and coordinator.limit_reached == f"--max-gpu-hours {limits.gpu_hours:g}"
    assert sum(record.cost_s for record in records) == result.worker_s == coordinator.budget.spent_s
    assert 0.9 * limits.gpu_hours * HOUR_S < result.worker_s <= limits.gpu_hours * HOUR_S
    assert set(result.executed.values()) == {1}


@pytest.mark.parametrize("is_known", [True, False])
def test_on_cards_of_different_speed_a_limit_holds_and_little_is_left(is_known):
    """Whether the speed of the slow ones is known from the store, or the sweep has to find it out."""
    limits, speeds = Limits(gpu_hours=hours_of(12)), DeviceSpeeds(base="fast")
    for device, rate in (("fast", 4.0), ("slow", 1.0)) if is_known else ():
        speeds.learn(device, "work", rate)
    coordinator, result = Place().run(limits, cards=MIXED, speeds=speeds, prunes=False)
    records = coordinator.trials.values()
    assert speeds.of("slow").value == 0.25
    assert 0.8 * limits.gpu_hours * HOUR_S < result.worker_s <= limits.gpu_hours * HOUR_S
    assert {device for record in records for device in record.devices.values()} == {"fast", "slow"}
    unfinished = [record for record in records if record.status == "interrupted"]
    assert len(unfinished) <= 1 and sum(record.status == "finished" for record in records) >= 4


def test_money_is_a_limit_of_device_hours_at_their_price():
    coordinator, result = Place().run(Limits(cost=5.0, price_per_hour=2.0))
    assert coordinator.limit_reached == "--max-cost 5"
    assert 0.9 * 2.5 * HOUR_S < result.worker_s <= 2.5 * HOUR_S


def test_hours_are_a_limit_of_the_clock():
    coordinator, result = Place().run(Limits(hours=1))
    assert coordinator.limit_reached == "--max-hours 1"
    assert {record.status for record in coordinator.trials.values()} <= {"finished", "pruned"}
    assert 0.8 * HOUR_S < result.elapsed_s <= HOUR_S


def test_the_number_of_trials_ends_a_sweep_that_has_something_left():
    coordinator, _ = Place().run(Limits(gpu_hours=hours_of(100)), samples=10)
    assert (len(coordinator.trials), coordinator.limit_reached, coordinator.finished) == (10, "", True)


def test_a_limit_ends_a_sweep_before_it_has_its_trials():
    coordinator, _ = Place().run(Limits(gpu_hours=hours_of(5)), samples=1000)
    assert 2 < len(coordinator.trials) < 100 and coordinator.limit_reached


def test_what_cannot_end_is_not_begun():
    coordinator, result = Place().run(Limits(gpu_hours=hours_of(0.9)))
    assert (len(coordinator.trials), result.epochs, bool(coordinator.limit_reached)) == (0, 0, True)


@pytest.mark.parametrize("factor", [2.0, 0.5], ids=["dearer than known", "cheaper than known"])
def test_what_is_measured_counts_more_than_what_was_known_before(factor):
    limits = Limits(gpu_hours=hours_of(7))
    coordinator, result = Place().run(limits, known=lambda task: EPOCH_S / factor)
    assert coordinator.limit_reached and set(result.executed.values()) == {1}
    assert 0.85 * limits.gpu_hours * HOUR_S < result.worker_s <= limits.gpu_hours * HOUR_S


@pytest.mark.parametrize("chains", [0.5, 1.5, 3.0, 6.0])
def test_unknown_costs_are_begun_and_learned_and_more_goes_on_where_it_was(chains):
    """All workers begin. After their first epoch it is known that not all can end: those that need least do, the others wait."""
    place = Place()
    limits = Limits(gpu_hours=hours_of(chains))
    first, result = place.run(limits, known=nothing_known, epoch_s=by_sound, prunes=False)
    limit_s = limits.gpu_hours * HOUR_S
    assert result.worker_s <= limit_s + len(ALIKE) * EPOCH_S
    begun = {record.trial: record.status for record in first.trials.values()}
    assert begun and set(begun.values()) <= {"finished", "interrupted"}
    assert sum(status == "finished" for status in begun.values()) >= int(chains)
    stopped = [record for record in first.trials.values() if record.status == "interrupted"]
    assert all(f"could not end within --max-gpu-hours {limits.gpu_hours:g}" in record.reason for record in stopped)

    second, more = place.run(Limits(gpu_hours=hours_of(chains + 6)), epoch_s=by_sound, prunes=False)
    assert all(second.trials[name].status == "finished" for name in begun), "they were begun first"
    assert second.budget.spent_s == pytest.approx(result.worker_s + more.worker_s), "what the first driver spent counts"
    assert second.budget.spent_s <= hours_of(chains + 6) * HOUR_S
    executed = [*result.executed, *more.executed]
    assert len(executed) == len(set(executed))


def test_gpu_hours_of_earlier_drivers_count_as_what_they_were_when_workers_have_less_of_a_gpu():
    place = Place()
    _, first = place.run(Limits(gpu_hours=hours_of(3)), prunes=False)
    coordinator, second = place.run(Limits(gpu_hours=hours_of(5)), prunes=False, gpus=0.25)
    assert coordinator.budget.spent_gpu_s == pytest.approx(first.worker_s + second.worker_s / 4)
    assert hours_of(4.5) < coordinator.budget.gpu_hours <= hours_of(5)


def test_hours_of_earlier_drivers_count():
    place = Place()
    place.run(Limits(hours=1))
    coordinator, result = place.run(Limits(hours=1))
    assert result.epochs == 0 and coordinator.limit_reached
    coordinator, result = place.run(Limits(hours=2))
    assert result.epochs and 1.8 * HOUR_S < place.ran_s <= 2 * HOUR_S


def test_a_published_prefix_makes_a_trial_cheap_enough():
    """What is left is less than a chain costs: trials start from a prefix that is there."""
    place = Place(replace(make_search(), sampler="random"))
    place.run(Limits(gpu_hours=hours_of(6)), prunes=False)
    before, spent_s = len(place.records.trials), sum(record.cost_s for record in place.records.trials.values())
    coordinator, _ = place.run(Limits(gpu_hours=(spent_s + 0.8 * CHAIN_S) / HOUR_S), prunes=False)
    new = list(coordinator.trials.values())[before:]
    assert new and all(record.reused_s for record in new) and all(record.status == "finished" for record in new)


def test_near_the_limit_no_draws_are_made_again_and_again():
    place = Place(make_search())
    clock = SimulatedClock()
    budget = Budget(Limits(gpu_hours=hours_of(1.5)), clock=clock)
    book = TrialBook(place.records, SimulatedView(place.store, "s"))
    coordinator = Coordinator(place.chains, book, samples=None, max_running=len(ALIKE), budget=budget, epoch_s=an_epoch)
    assert coordinator.next_trial() is not None
    asked = []
    ask = coordinator._source._study.ask
    coordinator._source._study.ask = lambda: asked.append(1) or ask()
    assert coordinator.next_trial() is None
    once = len(asked)
    assert [coordinator.next_trial() for _ in range(20)] == [None] * 20
    assert len(asked) == once


def test_a_trial_that_a_limit_pauses_waits_and_goes_on_when_there_is_room_again():
    """Its first epochs cost more than was known. While another runs that can end, it waits with its place and its epochs."""
    place = Place()
    book = TrialBook(place.records, SimulatedView(place.store, "s"))
    budget = Budget(Limits(gpu_hours=hours_of(1.2)), clock=SimulatedClock())
    coordinator = Coordinator(place.chains, book, samples=2, max_running=2, budget=budget)
    first, second = coordinator.next_trial(), coordinator.next_trial()
    workers = MadeUpWorkers(coordinator)
    updates = {
        trial.record.trial: [replace(item, cost_s=EPOCH_S) for item in workers.updates(trial)] for trial in (first, second)
    }
    assert coordinator.update(first.record.trial, updates[first.record.trial].pop())
    while second.record.status == "running":
        coordinator.update(second.record.trial, updates[second.record.trial].pop())
    assert second.record.status == "waiting" and second.record.epoch
    assert coordinator.next_trial() is None and not coordinator.finished
    coordinator.update(first.record.trial, replace(updates[first.record.trial].pop(), kind="failed", message="no memory"))
    assert coordinator.next_trial() is second


def task_of(number: int) -> StageTask:
    chains = make_chain_builder()
    recipe = chains.search.recipes[0]
    return chains.chain(recipe.name, chains.search.baseline(recipe))[number]


def test_the_cost_of_an_epoch_is_the_median_of_what_was_measured_or_else_what_was_known():
    costs = EpochCosts(lambda task: 7.0)
    task = task_of(0)
    assert costs.of_epoch(task) == 7.0
    for cost_s in (50.0, 10.0, 11.0):
        costs.learn(task, cost_s)
    assert costs.of_epoch(task) == 11.0, "the first epoch is slow: caches are cold"
    for _ in range(REMEMBERED_EPOCHS):
        costs.learn(task, 20.0)
    assert costs.of_epoch(task) == 20.0
    other = replace(task, config=replace(task.config, clip_s=2 * task.config.clip_s))
    assert costs.of_epoch(other) == 7.0, "other work has another cost"
    same = replace(task, config=replace(task.config, learning_rate=1e-5), stage_id="x")
    assert costs.of_epoch(same) == 20.0
    dropped = replace(task, model=replace(task.model, drop_path_rate=0.3, head_dropout=0.1))
    assert costs.of_epoch(dropped) == 20.0, "dropout takes no time"
    assert EpochCosts(nothing_known).of_epoch(task) == UNKNOWN_S


def test_epochs_on_cards_of_different_speed_are_one_cost():
    """A T4 is a fourth as fast; that is known once both have done the same work, and then holds for all work."""
    costs, task, other = EpochCosts(nothing_known), task_of(0), task_of(4)
    costs.learn(task, 10.0, device="H100")
    costs.learn(other, 8.0, device="T4")
    assert costs.of_epoch(other) == 8.0, "nothing is known of a T4: as fast"
    costs.learn(task, 40.0, epochs=5, device="T4")
    assert costs.of_epoch(task) == 10.0 and costs.of_epoch(other) == 2.0


def test_work_of_unknown_cost_counts_as_much_as_the_dearest_that_is_most_like_it():
    pretraining, training, finetuning = (task_of(number) for number in (0, 2, 4))
    assert pretraining.config.clip_s == training.config.clip_s == finetuning.config.clip_s
    model = finetuning.model
    narrower = replace(finetuning, model=replace(model, spectrogram=replace(model.spectrogram, num_mels=64)))
    other = replace(finetuning, model=replace(model, encoder="another"))
    costs = EpochCosts(nothing_known)
    costs.learn(pretraining, 50.0)
    assert [costs.of_epoch(task) for task in (finetuning, narrower, other)] == [50.0] * 3, "the same encoder and head, and any"
    costs.learn(training, 10.0)
    assert [costs.of_epoch(task) for task in (finetuning, narrower, other)] == [10.0, 10.0, 50.0], "the same label space too"
    costs.learn(finetuning, 3.0)
    assert [costs.of_epoch(task) for task in (finetuning, narrower)] == [3.0, 10.0]
    config = finetuning.config
    longer = replace(finetuning, config=replace(config, clip_s=4 * config.clip_s, clips_per_epoch=config.clips_per_epoch // 4))
    assert costs.of_epoch(longer) == 10.0, "a fourth of the clips, of four times the length"
    fewer = replace(finetuning, config=replace(config, batch_size=2))
    assert costs.of_epoch(fewer) == 10.0, "the dearer kind of this model"
    costs.learn(training, 1.0, epochs=9)
    assert costs.of_epoch(fewer) == 3.0, "by the median of each kind"


# What costs are known from before, and what is being trained.


class Known:
    """A coordinator of a sweep in which a trial has trained its first two stages and is in its third one."""

    def __init__(self, before: EpochSeconds = nothing_known) -> None:
        self.place = Place()
        self.first = self.driver(before)
        self.trial = self.first.next_trial()
        workers = MadeUpWorkers(self.first)
        self.updates = [replace(item, cost_s=7.0) for item in reversed(workers.updates(self.trial))]
        stages = [task.config.epochs for task in self.trial.chain]
        self.done = stages[0] + stages[1] + 1
        for item in self.updates[: self.done]:
            assert self.first.update(self.trial.record.trial, item)
            if item.stage_done:
                self.place.store.published.add(item.stage_id)

    def driver(self, before: EpochSeconds = nothing_known) -> Coordinator:
        book = TrialBook(self.place.records, SimulatedView(self.place.store, "s"))
        return Coordinator(self.place.chains, book, samples=9, max_running=2, epoch_s=before)


def test_the_next_driver_recalls_what_whole_stages_have_cost():
    known = Known()
    epochs = [task.config.epochs for task in known.trial.chain[:2]]
    assert known.driver()._spending.stage_s(known.trial.chain)[:2] == pytest.approx([7.0 * number for number in epochs])
    known = Known(an_epoch)
    recalled = known.driver(an_epoch)._spending.stage_s(known.trial.chain)
    assert recalled[:2] == pytest.approx([EPOCH_S * number for number in epochs]), "what the store says is of this device"


def test_a_stage_in_training_is_left_for_the_epochs_that_it_still_takes():
    known = Known()
    stage, epochs = known.trial.record.stage_ids[2], known.trial.chain[2].config.epochs
    assert known.first._spending.left_s() == pytest.approx({stage: 7.0 * (epochs - 1)})
    for item in known.updates[known.done :]:
        known.first.update(known.trial.record.trial, item)
        if item.stage_id == stage and item.stage_done:
            known.place.store.published.add(stage)
            later = {known.trial.record.stage_ids[3]: 7.0 * known.trial.chain[3].config.epochs}
            assert known.first._spending.left_s() == pytest.approx(later)
    assert known.first._spending.left_s() == {}
