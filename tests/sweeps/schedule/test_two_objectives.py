"""A sweep whose trials are compared by a score and a cost: what is on its front, what the sampler spends on each part, and a resume."""

import math
from collections import Counter
from dataclasses import replace

import pytest
from made_up import make_chain_builder

from birdclef_core.config import ModelConfig
from birdclef_core.recipes import cnn_b0ns, sed_v2s
from birdclef_core.stages.task import StageTask
from birdclef_core.store.storage import Storage
from sweeps.objective import CPU_SECONDS, DEVICE_HOURS, Objective
from sweeps.plan.simulate import (
    MemoryRecords,
    SimulatedStore,
    SimulatedSweep,
    SimulatedView,
    even_score,
    simulate,
)
from sweeps.schedule.coordinator import Coordinator
from sweeps.schedule.pruning import chosen_pruning, make_pruning
from sweeps.schedule.records import Records, SweepRecords, TrialRecord, best_trials
from sweeps.schedule.trial_log.writer import RecordWriter
from sweeps.schedule.trials import TrialBook
from sweeps.search import Range, Search

RATE = Range(1e-4, 1e-2, log=True)
SEARCH = Search(
    name="two-objectives",
    recipes=(sed_v2s(), cnn_b0ns()),
    space={f"{stage}.learning_rate": RATE for stage in ("pretrain", "train_ce", "train_bce", "finetune")},
    objective=f"val/cmap, {CPU_SECONDS}",
)
LARGE, SMALL = "sed_v2s", "cnn_b0ns"
EPOCH_S = {LARGE: 10.0, SMALL: 3.0}
ASYMPTOTE = {LARGE: 0.75, SMALL: 0.6}


def cpu_seconds(model: ModelConfig) -> float:
    return 16.0 if model.head == "sed" else 2.5


class Scores:
    """Made-up scores: every stage loses by its learning rate, and hands on what it has lost. The small model never reaches the large."""

    def __init__(self) -> None:
        self._lost: dict[str, float] = {}

    def __call__(self, task: StageTask, epoch: int) -> float:
        before = self._lost.get(task.parent_id or "", 0.0)
        self._lost[task.stage_id] = before + 0.03 * (math.log10(task.config.learning_rate) + 3) ** 2
        return ASYMPTOTE[task.recipe] - self._lost[task.stage_id] + 0.002 * even_score(task, 0)


def run(search: Search, *, samples: int = 26, records: Records | None = None, cost=cpu_seconds, workers: int = 3) -> Coordinator:
    store = SimulatedStore()
    book = TrialBook(records or MemoryRecords(), SimulatedView(store, "s"))
    pruning = chosen_pruning(None, search)
    coordinator = Coordinator(
        make_chain_builder(search),
        book,
        samples=samples,
        max_running=workers,
        pruning=make_pruning(pruning),
        stops_by_worth=pruning == "worth",
        cpu_seconds=cost,
    )
    simulate([SimulatedSweep(name="s", coordinator=coordinator)], store, workers, lambda task: EPOCH_S[task.recipe], Scores())
    return coordinator


def finished(coordinator: Coordinator) -> list[TrialRecord]:
    return [record for record in coordinator.trials.values() if record.score is not None]


@pytest.fixture(scope="module")
def by_stages() -> Coordinator:
    return run(SEARCH)


def check_front(coordinator: Coordinator) -> list[TrialRecord]:
    """The front of a sweep is what the definition says; return it."""
    objective, trials = coordinator.objective, finished(coordinator)
    front = best_trials(list(coordinator.trials.values()), objective)
    values = {record.trial: (record.score, record.costs[objective.cost]) for record in trials}

    def is_beaten(trial: str) -> bool:
        score, cost = values[trial]
        return any(s >= score and c <= cost and (s, c) != (score, cost) for s, c in values.values())

    assert {record.trial for record in front} == {trial for trial in values if not is_beaten(trial)}
    assert front[0].score == max(record.score for record in trials), "the best score is the first"
    return front


def test_the_front_has_the_best_of_the_large_and_of_the_small_model(by_stages):
    front = check_front(by_stages)
    assert [record.recipe for record in front] == [LARGE, SMALL]
    assert [record.costs[CPU_SECONDS] for record in front] == [16.0, 2.5]
    scores = {recipe: max(record.score for record in finished(by_stages) if record.recipe == recipe) for recipe in EPOCH_S}
    assert [record.score for record in front] == [scores[LARGE], scores[SMALL]]


def test_the_cheap_model_is_searched_where_it_is_on_the_front_and_hardly_where_only_the_score_counts(by_stages):
    by_score = run(replace(SEARCH, objective="val/cmap"))
    counts = [Counter(record.recipe for record in finished(coordinator)) for coordinator in (by_score, by_stages)]
    assert counts[0][SMALL] <= 4 and counts[1][SMALL] >= 8 and counts[1][LARGE] >= 8
    small = [max(item.score for item in finished(sweep) if item.recipe == SMALL) for sweep in (by_score, by_stages)]
    assert small[1] >= small[0]
    paused = [record for record in by_stages.trials.values() if record.paused]
    assert all(record.recipe == LARGE for record in paused) or len(paused) < 10


@pytest.mark.parametrize("sampler", ["tpe", "NSGAIISampler", "random"])
def test_other_samplers_find_a_front_and_nothing_is_pruned_by_its_score_alone(sampler):
    coordinator = run(replace(SEARCH, sampler=sampler), samples=16)
    assert [record.recipe for record in check_front(coordinator)] == [LARGE, SMALL]
    assert len(finished(coordinator)) == 16


def test_device_hours_are_those_of_the_whole_chain_whoever_trained_it():
    coordinator = run(replace(SEARCH, objective=f"val/cmap, {DEVICE_HOURS}"), samples=18)
    check_front(coordinator)
    assert any(record.reused_s for record in finished(coordinator))
    for record in finished(coordinator):
        epochs = sum(stage.epochs for stage in SEARCH.recipe(record.recipe).stages)
        assert record.costs[DEVICE_HOURS] == pytest.approx(epochs * EPOCH_S[record.recipe] / 3600)
        assert record.cpu_seconds is None, "nothing is measured that nobody asked for"


def test_a_stage_that_a_trial_began_and_another_sweep_finished_counts_once():
    record = TrialRecord(trial="t0000", recipe="x", params={}, stage_ids=["a", "b"], stages=["train_ce", "finetune"], score=0.5)
    record.spent_s, record.reused_s = {"train_ce": 1000.0, "finetune": 600.0}, {"train_ce": 3000.0}
    assert record.costs[DEVICE_HOURS] == 1.0
    record.score = None
    assert record.costs == {CPU_SECONDS: math.inf, DEVICE_HOURS: math.inf}, "only a finished trial's are known"


def test_a_resumed_sweep_keeps_its_costs_and_measures_again_on_another_machine(tmp_path):
    """The costs of two machines cannot be compared, so a driver on another one measures the models of earlier trials too."""
    records = SweepRecords(Storage.parse(str(tmp_path)))
    first = run(SEARCH, samples=8, records=RecordWriter(records))
    assert {record.costs[CPU_SECONDS] for record in records.load_trials()} == {16.0, 2.5}
    slower = run(SEARCH, samples=8, records=RecordWriter(records), cost=lambda model: 2 * cpu_seconds(model))
    assert len(slower.trials) == 8
    assert {record.costs[CPU_SECONDS] for record in records.load_trials()} == {32.0, 5.0}
    told = {trial.values[1] for trial in slower._source._study._state.study.trials if trial.values}
    assert told == {32.0, 5.0} and [item.trial for item in check_front(slower)] == [item.trial for item in check_front(first)]


def test_where_no_cost_counts_the_best_trial_alone_is_the_front():
    trials = [
        TrialRecord(trial=f"t{n}", recipe="x", params={}, stage_ids=["a"], score=score) for n, score in enumerate((0.4, 0.6, 0.6))
    ]
    assert [record.trial for record in best_trials(trials, Objective.of("val/cmap"))] == ["t1"]
    assert best_trials([], Objective.of("val/cmap")) == best_trials([], Objective.of(f"val/cmap, {CPU_SECONDS}")) == []
