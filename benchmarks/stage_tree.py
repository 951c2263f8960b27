"""Measure what sharing stages saves and what it costs.

python benchmarks/stage_tree.py simulate    10,000 trials on 64 simulated GPUs; everything but the training is real
python benchmarks/stage_tree.py growth      the same with 2,500 to 20,000 trials, and the time to resume from their records
python benchmarks/stage_tree.py sampler     the time of one draw as the history grows
python benchmarks/stage_tree.py overhead    the time per trial of ids, look-ups, queue, leases, records and tracking
python benchmarks/stage_tree.py real        a real sweep on the demo set, with and without sharing
"""

import argparse
import heapq
import math
import os
import platform
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

from stage_tree_overhead import overhead
from stage_tree_real import real

from birdclef_core.models.encoders import RANDOM
from birdclef_core.recipes import STAGE_NAMES, sed_b3ns, sed_v2s
from birdclef_core.stages.task import StageTask
from birdclef_core.store.storage import Storage
from birdclef_core.taxonomy import LabelSpace
from sweeps.plan.simulate import MemoryRecords, SimulatedStore, SimulatedSweep, SimulatedView, simulate
from sweeps.sampling import study as study_module
from sweeps.sampling.draws import Outcome, Told
from sweeps.schedule.coordinator import Coordinator
from sweeps.schedule.pruning import StageHalving
from sweeps.schedule.records import SweepRecords
from sweeps.schedule.trial_log.writer import RecordWriter
from sweeps.schedule.trials import TrialBook
from sweeps.search.chains import ChainBuilder
from sweeps.search.parameters import Range
from sweeps.search.search_files import load_search
from sweeps.search.space import Search

HIPPO = "Hippo (PVLDB 15): up to 4.81x GPU hours and 2.76x end to end in one study, 6.77x and 3.53x over several"
RATE = Range(1e-4, 3e-3, log=True)


@dataclass(frozen=True)
class Study:
    """One simulated sweep: its search, number of trials and number of GPUs."""

    title: str
    search: Search
    trials: int
    gpus: int
    seed: int = 0


def narrow_tree(name: str, pools: dict[str, int]) -> Search:
    """Return a search of two recipes with five stages; every stage has its own parameters, and early stages have few variants."""
    space = {f"{stage}.learning_rate": RATE for stage in STAGE_NAMES}
    space |= {f"{stage}.mixing.wave_prob": Range(0.0, 1.0) for stage in ("train_ce", "train_bce")}
    return Search(name=name, recipes=(sed_v2s(), sed_b3ns()), space=space, pools=pools)


def pooled(name: str) -> Search:
    """Return a stock search whose recipes have two variants of their pretraining: its own sampler would be too slow for this many trials."""
    return replace(load_search(name), pools={"pretrain": 2})


def studies(trials: int, gpus: int) -> list[Study]:
    last = Search(name="last", recipes=(sed_v2s(),), space={"finetune.learning_rate": RATE})
    return [
        Study("sed: 3 recipes x 2 pretrainings", pooled("sed"), trials, gpus),
        Study("all: 7 recipes x 2 pretrainings", pooled("all"), trials, gpus),
        Study("2 recipes x tree 2 x 8 x 64", narrow_tree("tree", {"pretrain": 2, "train_ce": 8, "train_bce": 64}), trials, gpus),
        Study("1 recipe, finetuning alone varies", last, trials, gpus),
    ]


def five_questions(trials: int, gpus: int) -> list[Study]:
    """Return five searches about different stages for one store; the pretraining stages are the same in all."""
    pools = [{"pretrain": 2}, {"pretrain": 4}, {"pretrain": 2, "train_ce": 8}, {"pretrain": 2, "train_ce": 8, "train_bce": 64}]
    searches = [narrow_tree(f"question {index}", pool) for index, pool in enumerate(pools)] + [pooled("sed")]
    return [Study(search.name, search, trials // 5, gpus, seed) for seed, search in enumerate(searches)]


def five_seeds(trials: int, gpus: int) -> list[Study]:
    """Return five searches of one space, as for five objectives or samplers."""
    search = narrow_tree("tree", {"pretrain": 2, "train_ce": 8, "train_bce": 64})
    return [Study(f"seed {seed}", search, trials // 5, gpus, seed) for seed in range(5)]


def an_hour(task: StageTask) -> float:
    """Return the same time for every epoch: the recipes' numbers of epochs are known, their seconds on a GPU are not."""
    return 1.0


@dataclass(frozen=True)
class Saving:
    """The result of simulated sweeps, and the cost of the same trials if each trained its complete chain. Times are in epochs."""

    simulation_s: float
    """Real time of the simulation, in seconds."""
    trials: int
    finished: int
    asked_stages: int
    unique_stages: int
    asked: int
    unique: int
    trained: int
    twice: int
    """Number of stages that were trained more than once."""
    elapsed: float
    elapsed_alone: float
    shares: dict[str, float]
    """Share of each stage in the epochs that the trials asked for."""


def save(chosen: Sequence[Study], *, prunes: bool) -> Saving:
    """Run the studies at the same time on one store."""
    store = SimulatedStore()
    sweeps = [_sweep(study, store, prunes) for study in chosen]
    started = time.perf_counter()
    result = simulate(sweeps, store, max(study.gpus for study in chosen), an_hour)
    simulation_s = time.perf_counter() - started
    chains = [
        [(stage_id, stage, epochs[record.recipe, stage]) for stage_id, stage in zip(record.stage_ids, record.stages, strict=True)]
        for study, sweep in zip(chosen, sweeps, strict=True)
        for epochs in [{(recipe.name, stage.name): stage.epochs for recipe in study.search.recipes for stage in recipe.stages}]
        for record in sweep.coordinator.trials.values()
    ]
    stages = [stage for chain in chains for stage in chain]
    by_stage: Counter[str] = Counter()
    for _, stage, epochs in stages:
        by_stage[stage] += epochs
    unique = {stage_id: epochs for stage_id, _, epochs in stages}
    return Saving(
        simulation_s=simulation_s,
        trials=len(chains),
        finished=sum(record.status == "finished" for sweep in sweeps for record in sweep.coordinator.trials.values()),
        asked_stages=len(stages),
        unique_stages=len(unique),
        asked=sum(by_stage.values()),
        unique=sum(unique.values()),
        trained=result.epochs,
        twice=sum(number > 1 for number in result.executed.values()),
        elapsed=result.elapsed_s,
        elapsed_alone=makespan([sum(epochs for *_, epochs in chain) for chain in chains], max(study.gpus for study in chosen)),
        shares={stage: by_stage[stage] / sum(by_stage.values()) for stage in STAGE_NAMES if by_stage[stage]},
    )


def make_chain_builder(study: Study) -> ChainBuilder:
    return ChainBuilder(
        search=replace(study.search, sampler="random"),
        seed=study.seed,
        pretrained={recipe.model.encoder: RANDOM for recipe in study.search.recipes},
        all_species=LabelSpace.of("all", [f"s{index:03d}" for index in range(834)]),
        target_species=LabelSpace.of("target", [f"s{index:03d}" for index in range(264)]),
        data_fingerprint="benchmark",
        code_version="benchmark",
    )


def _sweep(study: Study, store: SimulatedStore, prunes: bool) -> SimulatedSweep:
    chains = make_chain_builder(study)
    pruning = StageHalving() if prunes else StageHalving(grace=math.inf)
    view = SimulatedView(store, study.title)
    coordinator = Coordinator(
        chains, TrialBook(MemoryRecords(), view), samples=study.trials, max_running=study.gpus, pruning=pruning
    )
    return SimulatedSweep(name=study.title, coordinator=coordinator)


def makespan(durations: Sequence[float], workers: int) -> float:
    """Return the time at which the last of independent jobs ends when each starts, in order, as soon as a worker is free."""
    free = [0.0] * workers
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def show(title: str, saving: Saving) -> None:
    shares = " ".join(f"{stage} {share:.0%}" for stage, share in saving.shares.items())
    print(f"\n{title}: {saving.trials} trials, {saving.finished} to their end; simulated in {saving.simulation_s:.1f} s")
    print(f"  cost shares of the stages asked for: {shares}")
    print(f"  stages: {saving.asked_stages} asked for, {saving.unique_stages} unique; trained twice: {saving.twice}")
    print(
        f"  epochs: {saving.asked} asked for, {saving.unique} unique (merge rate {saving.asked / saving.unique:.2f}), {saving.trained} trained"
    )
    print(
        f"  GPU time {saving.asked / saving.trained:.2f}x less, end to end {saving.elapsed_alone / saving.elapsed:.2f}x sooner ({saving.elapsed:.0f})",
        flush=True,
    )


def simulated(trials: int, gpus: int) -> None:
    print(f"For comparison, {HIPPO}. Five equal stages, only the last varied: 5n/(4+n), {5 * trials / (4 + trials):.2f} here.")
    for study in studies(trials, gpus):
        show(study.title, save([study], prunes=False))
    for study in studies(trials, gpus)[:1]:
        show(f"{study.title}, with pruning", save([study], prunes=True))
    for title, together in (
        ("five studies at once on one store, with different questions", five_questions(trials, gpus)),
        ("five studies at once on one store, of one space", five_seeds(trials, gpus)),
    ):
        each = [save([study], prunes=False) for study in together]
        show(title, save(together, prunes=False))
        alone = sum(saving.elapsed for saving in each)
        print(
            f"  each on a store of its own: {sum(saving.trained for saving in each)} epochs; one after the other {alone:.0f} epochs' time"
        )


def growth(gpus: int) -> None:
    """Show how the time per trial grows with the number of trials; it must not grow faster than a logarithm."""
    for trials in (2_500, 5_000, 10_000, 20_000):
        title, search = "tree", narrow_tree("tree", {"pretrain": 2, "train_ce": 8, "train_bce": 64})
        study = Study(title, search, trials, gpus)
        simulation_s = save([study], prunes=True).simulation_s
        kept_s, loaded_s, restored_s = _take_up(study)
        print(
            f"{trials:>6} trials: simulated in {simulation_s:5.1f} s, {1e3 * simulation_s / trials:.2f} ms a trial; records kept in "
            f"{kept_s:.1f} s, read in {loaded_s:.1f} s, sweep restored from them in {restored_s:.1f} s",
            flush=True,
        )


def _take_up(study: Study) -> tuple[float, float, float]:
    """Return the seconds to write the records of all trials (a tenth of them open), to read them, and to restore a sweep."""
    store = SimulatedStore()
    sweep = _sweep(study, store, prunes=True)
    simulate([sweep], store, study.gpus, an_hour)
    with tempfile.TemporaryDirectory(prefix="records-") as folder:
        records = RecordWriter(SweepRecords(Storage.parse(folder)))
        started = time.perf_counter()
        for number, record in enumerate(sweep.coordinator.trials.values()):
            record.status = "interrupted" if number % 10 == 0 else record.status
            records.save_trials([record])
        kept_s, started = time.perf_counter() - started, time.perf_counter()
        known = records.load_trials()
        loaded_s, started = time.perf_counter() - started, time.perf_counter()
        memory = MemoryRecords()
        memory.trials = {record.trial: record for record in known}
        view = SimulatedView(store, study.title)
        Coordinator(make_chain_builder(study), TrialBook(memory, view), samples=study.trials, max_running=study.gpus)
    return kept_s, loaded_s, time.perf_counter() - started


def draws(histories: Sequence[int]) -> None:
    """Show the time of one draw and its outcome, by the number of earlier trials."""
    print(f"\n{'history':>8}  {'random':>10}  {'TPE, bounded':>14}  {'TPE, all seen':>14}")
    for history in histories:
        random_ms = draw_ms("random", history, study_module.REMEMBERED_TRIALS)
        bounded_ms = draw_ms("tpe", history, study_module.REMEMBERED_TRIALS)
        whole_ms = draw_ms("tpe", history, 10**9)
        print(f"{history:>8}  {random_ms:>7.1f} ms  {bounded_ms:>11.1f} ms  {whole_ms:>11.1f} ms", flush=True)


def draw_ms(name: str, history: int, remembered: int, repeats: int = 20) -> float:
    """Return the median time of some draws while 64 trials are running, in milliseconds."""
    search = replace(pooled("sed"), sampler=name)
    generator = random.Random(0)
    points = study_module.Study(replace(search, sampler="random"), seed=0)
    told = []
    for _ in range(history):
        draw = points.ask()
        outcome = Outcome(kind="score", value=generator.random())
        points.tell(draw.ticket, outcome)
        told.append(Told(recipe=draw.recipe, params=draw.params, outcome=outcome))
    before, study_module.REMEMBERED_TRIALS = study_module.REMEMBERED_TRIALS, remembered
    try:
        drawing = study_module.Study(search, seed=0, history=told)
        for _ in range(64):
            drawing.ask()
        times_s = []
        for _ in range(repeats):
            started = time.perf_counter()
            drawing.tell(drawing.ask().ticket, Outcome(kind="score", value=generator.random()))
            times_s.append(time.perf_counter() - started)
    finally:
        study_module.REMEMBERED_TRIALS = before
    return 1e3 * statistics.median(times_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("simulate", "growth", "sampler", "overhead", "real"))
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--alone-first", action="store_true", help="with `real`")
    parser.add_argument("--gpus", type=int, default=64)
    options = parser.parse_args()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"Python {platform.python_version()}, optuna {version('optuna')}, {os.cpu_count()} cores, load average {load}")
    if options.what == "simulate":
        simulated(options.trials, options.gpus)
    elif options.what == "growth":
        growth(options.gpus)
    elif options.what == "overhead":
        overhead(make_chain_builder(studies(1, 1)[2]), trials=100, s3_trials=40)
    elif options.what == "real":
        real(alone_first=options.alone_first)
    else:
        draws((100, 500, 1000, 2000, 5000, 10_000))


if __name__ == "__main__":
    main()
