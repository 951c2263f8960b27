"""Count what becomes of the trials that a user asks for, in simulated sweeps of a stock search.

python benchmarks/search_trials.py      64 trials on 8 workers and 256 on 16, a few seeds, two kinds of made-up scores

Everything but the training is real, with the recipes' real numbers of epochs. The control, in the same run, counts as a trial what an
earlier version counted: also a draw that needs a stopped stage and therefore never runs.
"""

import argparse
import hashlib
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

from stage_tree import Study, an_hour

from birdclef_core.models.encoders import RANDOM
from birdclef_core.stages.training import StageTask
from birdclef_core.taxonomy import LabelSpace
from sweeps.plan.simulate import MemoryRecords, Score, SimulatedStore, SimulatedSweep, SimulatedView, even_score, simulate
from sweeps.schedule.coordinator import Coordinator
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


def count(study: Study, score: Score, coordinator: type[Coordinator]) -> Counts:
    search, store = study.search, SimulatedStore()
    chains = ChainBuilder(
        search=search,
        seed=study.seed,
        pretrained={recipe.model.encoder: RANDOM for recipe in search.recipes},
        all_species=LabelSpace.of("all", [f"s{index:03d}" for index in range(834)]),
        target_species=LabelSpace.of("target", [f"s{index:03d}" for index in range(264)]),
        data_fingerprint="benchmark",
        code_version="benchmark",
    )
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
        chains=result.worker_s / sum(stage.epochs for stage in search.recipes[0].stages),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", default="sed", help="name of a stock search")
    parser.add_argument("--seeds", type=int, default=4, help="how many random seeds of the sampler")
    options = parser.parse_args()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"Python {platform.python_version()}, optuna {version('optuna')}, {os.cpu_count()} cores, load average {load}")
    search = replace(load_search(options.search), sampler="tpe", pools={"pretrain": 2})
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
