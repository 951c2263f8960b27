"""Count what becomes of the trials that a user asks for, in simulated sweeps of a stock search.

python benchmarks/search_trials.py            64 trials on 8 workers and 256 on 16, a few seeds, two kinds of made-up scores
python benchmarks/search_trials.py --limit    a limit of device hours in place of a number of trials

Everything but the training is real, with the recipes' real numbers of epochs. The control, in the same run, counts as a trial what an
earlier version counted: also a draw that needs a stopped stage and therefore never runs.
"""

import argparse
import hashlib
import os
import platform
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

from stage_tree import Study, an_hour

from birdclef_core.models.encoders import RANDOM
from birdclef_core.stages.task import StageTask
from birdclef_core.taxonomy import LabelSpace
from sweeps.budget import Budget, Limits
from sweeps.plan.simulate import MemoryRecords, Score, SimulatedStore, SimulatedSweep, SimulatedView, even_score, simulate
from sweeps.schedule.coordinator import Coordinator
from sweeps.schedule.spending import nothing_known
from sweeps.schedule.trials import TrialBook
from sweeps.search.chains import ChainBuilder
from sweeps.search.search_files import load_search


class EveryDrawCounts(Coordinator):
    """The control: a draw takes the place of a trial even if it needs a stopped stage."""

    @property
    def _may_draw(self) -> bool:
        return super()._may_draw and len(self.book.records) + self.book.num_drawn + self.left_out < self.samples


class InheritedScores:
    """Scores of a stage that are those of its parent, better or worse by its own merit; noisier in the middle of a stage."""

    def __init__(self) -> None:
        self._merit: dict[str, float] = {}

    def __call__(self, task: StageTask, epoch: int) -> float:
        merit = self._merit.setdefault(task.stage_id, self._merit.get(task.parent_id or "", 0.0) + 0.05 * _normal(task.stage_id))
        return 0.5 + merit + 0.03 * _normal(f"{task.stage_id}/{epoch}") / (1 + (epoch == task.config.epochs))


def _normal(name: str) -> float:
    """Return a number that is normally distributed over names, and always the same for a name."""
    share = (int(hashlib.sha256(name.encode()).hexdigest()[:12], 16) + 0.5) / 16**12
    return statistics.NormalDist().inv_cdf(share)


@dataclass(frozen=True)
class Counts:
    """What became of the trials of a simulated sweep."""

    trials: int
    idle: int
    """Trials that trained nothing and did not finish; of the control, draws that were counted and never ran."""
    finished: int
    draws_left_out: int
    device_use: float
    """Share of the workers' time in which they train, from the start to the end of the last trial."""
    chains: float
    """Device time, in complete chains of the search's first recipe."""
    real_s: float
    """Seconds that the simulation took."""


def make_chain_builder(study: Study) -> ChainBuilder:
    search = study.search
    return ChainBuilder(
        search=search,
        seed=study.seed,
        pretrained={recipe.model.encoder: RANDOM for recipe in search.recipes},
        all_species=LabelSpace.of("all", [f"s{index:03d}" for index in range(834)]),
        target_species=LabelSpace.of("target", [f"s{index:03d}" for index in range(264)]),
        data_fingerprint="benchmark",
        code_version="benchmark",
    )


def chain_epochs(study: Study) -> int:
    """Return the epochs of a complete chain of the search's first recipe."""
    return sum(stage.epochs for stage in study.search.recipes[0].stages)


def count(study: Study, score: Score, coordinator: type[Coordinator]) -> Counts:
    chains, store = make_chain_builder(study), SimulatedStore()
    book = TrialBook(MemoryRecords(), SimulatedView(store, study.title))
    driver = coordinator(chains, book, samples=study.trials, max_running=study.gpus)
    started = time.perf_counter()
    result = simulate([SimulatedSweep(name=study.title, coordinator=driver)], store, study.gpus, an_hour, score)
    records = list(driver.trials.values())
    left_out = driver.left_out if coordinator is EveryDrawCounts else 0
    return Counts(
        trials=len(records) + left_out,
        idle=sum(not record.epochs_trained and record.status != "finished" for record in records) + left_out,
        finished=sum(record.status == "finished" for record in records),
        draws_left_out=driver.left_out,
        device_use=result.worker_s / (study.gpus * result.elapsed_s),
        chains=result.worker_s / chain_epochs(study),
        real_s=time.perf_counter() - started,
    )


def show(title: str, counts: Sequence[Counts]) -> None:
    def each(values: Sequence[float], form: str = ".0f") -> str:
        return " ".join(format(value, form) for value in values)

    print(
        f"  {title:<22} trials {each([item.trials for item in counts])}; idle {each([item.idle for item in counts])}; "
        f"finished {each([item.finished for item in counts])}; draws left out {each([item.draws_left_out for item in counts])}; device use "
        f"{each([item.device_use for item in counts], '.2f')}; chains' device time {each([item.chains for item in counts], '.1f')}; "
        f"simulated in {each([item.real_s for item in counts], '.1f')} s",
        flush=True,
    )


def limited(study: Study, chains: float, *, are_costs_known: bool) -> None:
    """Run a sweep that may spend the device time of so many chains, and print what it did with it."""
    store = SimulatedStore()
    book = TrialBook(MemoryRecords(), SimulatedView(store, study.title))
    limit_s = chains * chain_epochs(study)
    driver = Coordinator(
        make_chain_builder(study),
        book,
        samples=None,
        max_running=study.gpus,
        budget=Budget(Limits(gpu_hours=limit_s / 3600)),
        epoch_s=an_hour if are_costs_known else nothing_known,
    )
    started = time.perf_counter()
    result = simulate([SimulatedSweep(name=study.title, coordinator=driver)], store, study.gpus, an_hour, InheritedScores())
    status = Counter(record.status for record in driver.trials.values())
    print(
        f"  {chains:g} chains, costs {'known' if are_costs_known else 'not known'}, seed {study.seed}: {len(driver.trials)} trials "
        f"({', '.join(f'{number} {name}' for name, number in sorted(status.items()))}), {result.worker_s / limit_s:.1%} of the limit spent, "
        f"device use {result.worker_s / study.gpus / result.elapsed_s:.2f}, simulated in {time.perf_counter() - started:.1f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", default="sed", help="name of a stock search")
    parser.add_argument("--seeds", type=int, default=4, help="how many random seeds of the sampler")
    parser.add_argument("--limit", action="store_true", help="a limit of device hours in place of a number of trials")
    options = parser.parse_args()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"Python {platform.python_version()}, optuna {version('optuna')}, {os.cpu_count()} cores, load average {load}")
    search = replace(load_search(options.search), sampler="tpe", pools={"pretrain": 2})
    if options.limit:
        print(f"\n{options.search} on 8 workers, inherited scores, within a limit of device time")
        for chains in (2, 10, 40):
            for seed in range(max(1, options.seeds // 2)):
                for are_costs_known in (True, False):
                    limited(Study(f"{options.search} {seed}", search, 0, 8, seed), chains, are_costs_known=are_costs_known)
        return
    for scores in ("scores without relation", "inherited scores"):
        for trials, workers, seeds in ((64, 8, options.seeds), (256, 16, max(1, options.seeds // 2))):
            print(f"\n{options.search}, {trials} trials on {workers} workers, {scores}, one figure a seed")
            before, after = [], []
            for seed in range(seeds):
                study = Study(f"{options.search} {seed}", search, trials, workers, seed)
                for counts, coordinator in ((before, EveryDrawCounts), (after, Coordinator)):
                    score = even_score if scores == "scores without relation" else InheritedScores()
                    counts.append(count(study, score, coordinator))
            show("every draw counts", before)
            show("what trains counts", after)
            ratio = sum(item.finished for item in after) / sum(item.finished for item in before)
            print(f"  finished: {ratio:.1f} x as many")


if __name__ == "__main__":
    main()
