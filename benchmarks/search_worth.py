"""Compare searches at equal device time, on made-up response surfaces and through the real driver without training.

python benchmarks/search_worth.py               the stage-aware sampler against TPE and random draws without reuse
python benchmarks/search_worth.py ablation      the sampler without each of its ingredients

A surface makes up the scores of all stages: what a stage adds for its parameters, what it takes over from the stage before, noise that is
a stage's own and that its descendants inherit, and noise of the measurement. Every method has the same surfaces, workers and device time.
The result of a method is the true value of the trial with the best measured score, in standard deviations of random chains over TPE.
"""

import argparse
import hashlib
import math
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version

import numpy as np

from birdclef_core.config import STAGE_NAMES
from birdclef_core.models.encoders import RANDOM
from birdclef_core.stages.training import StageTask
from birdclef_core.taxonomy import LabelSpace
from sweeps.plan.simulate import (
    MemoryRecords,
    SimulatedClock,
    SimulatedStore,
    SimulatedSweep,
    SimulatedView,
    _Simulation,
)
from sweeps.sampling import stage_model, stage_sampler
from sweeps.sampling.candidates import CandidateMaker
from sweeps.sampling.encoding import Encoding
from sweeps.schedule.coordinator import Coordinator, Observer
from sweeps.schedule.pruning import StageHalving
from sweeps.schedule.trials import Trial, TrialBook
from sweeps.search.chains import ChainBuilder
from sweeps.search.parameters import Choice, Range
from sweeps.search.search_files import load_search
from sweeps.search.space import Search


@dataclass(frozen=True, kw_only=True)
class Family:
    """A kind of response surface."""

    importance: Sequence[float] = (1, 1, 1, 1, 1)
    """How much each stage's own parameters matter."""
    carried: float = 0.9
    """How much of a stage's quality the next stage takes over."""
    inherited_noise: float = 0.12
    """Standard deviation of the noise of a stage that its descendants inherit, where a parameter's worst value costs about 1."""
    measured_noise: float = 0.08
    interactions: float = 0.0
    """Strength of products of parameters of different stages."""
    waves: float = 0.0
    """Height of waves along each parameter."""
    deceives: float = 0.0
    """How much the score of the first two stages is turned against what they are worth."""
    recipes: float = 0.3
    """Standard deviation of the qualities of the recipes."""


FAMILIES: Mapping[str, Family] = {
    "even": Family(),
    "early": Family(importance=(2.5, 1.5, 0.7, 0.4, 0.2)),
    "late": Family(importance=(0.2, 0.4, 0.7, 1.5, 2.5)),
    "interactions": Family(interactions=1.5),
    "deceptive": Family(deceives=1.5),
    "rugged": Family(waves=0.35),
    "noisy": Family(inherited_noise=0.3, measured_noise=0.3),
    "recipes": Family(recipes=1.0),
}


class Surface:
    """Made-up scores for the chains of a search."""

    def __init__(self, search: Search, family: Family, seed: int) -> None:
        self._family, self._seed = family, seed
        generator = np.random.default_rng(seed)
        keys = sorted({key for recipe in search.recipes for key in search.sampled_space(recipe)})
        self._best = {key: generator.uniform(0.1, 0.9) for key in keys}
        self._phase = {key: generator.uniform(0, 2 * math.pi) for key in keys}
        self._weight = {key: generator.gamma(2.0, 0.5) for key in keys}
        self._pairs = [(*generator.choice(len(keys), 2, replace=False), generator.normal()) for _ in range(len(keys))]
        self._keys = keys
        self._recipe = {recipe.name: {stage.name: generator.normal() for stage in recipe.stages} for recipe in search.recipes}
        self._search = search
        self._spaces = {recipe.name: search.sampled_space(recipe) for recipe in search.recipes}
        self._first = {
            recipe.name: {key: search.first_stage(recipe, key) for key in self._spaces[recipe.name]} for recipe in search.recipes
        }

    def qualities(self, recipe: str, params: Mapping[str, object], noise: Sequence[float]) -> list[float]:
        """Return the true quality at the end of each stage. `noise`: a standard normal number for each stage."""
        family = self._family
        space, first = self._spaces[recipe], self._first[recipe]
        place = {key: _place(space[key], params[key]) for key in space}
        stages = self._search.recipe(recipe).stages
        quality, found = 0.0, []
        for index, stage in enumerate(stages):
            importance = family.importance[STAGE_NAMES.index(stage.name)]
            own = family.recipes * self._recipe[recipe][stage.name] * math.sqrt(1 / len(stages))
            for key in space:
                if first[key] == index:
                    away = place[key] - self._best[key]
                    wave = family.waves * math.sin(12 * math.pi * place[key] / 2 + self._phase[key])
                    own += importance * self._weight[key] * (wave - 2.5 * away**2)
            for one, other, strength in self._pairs:
                keys = self._keys[one], self._keys[other]
                if all(key in place for key in keys) and max(first[key] for key in keys) == index:
                    product = (place[keys[0]] - 0.5) * (place[keys[1]] - 0.5)
                    own += family.interactions * strength * 2 * product
            quality = family.carried * quality + own + family.inherited_noise * noise[index]
            found.append(quality)
        return found

    def shown(self, index: int, num_stages: int, quality: float, measured: float) -> float:
        """Return the measured score of a stage: quality with noise, turned around early where the family deceives."""
        turned = quality * (1 - self._family.deceives) if index < 2 < num_stages else quality
        return 0.5 + 0.05 * (turned + self._family.measured_noise * measured)


def _place(parameter: Choice | Range, value: object) -> float:
    if isinstance(parameter, Range):
        return parameter.to_unit(value)  # type: ignore[arg-type]
    return parameter.values.index(value) / max(1, len(parameter.values) - 1)


def _normal(text: str) -> float:
    return float(np.random.default_rng(int(hashlib.blake2b(text.encode(), digest_size=8).hexdigest(), 16)).standard_normal())


@dataclass
class Finals(Observer):
    """The finished trials of one search, with the device time that the search had spent by then."""

    simulation: _Simulation | None = None
    budget: float = math.inf
    coordinator: Coordinator | None = None
    found: list[tuple[float, str, Trial]] = field(default_factory=list)
    started: int = 0

    def trial_started(self, trial: Trial) -> None:
        self.started += 1

    def updated(self, trial: Trial, update: object) -> None:
        assert self.simulation is not None and self.coordinator is not None
        if self.simulation._result.worker_s >= self.budget:
            self.coordinator.samples = 0

    def trial_ended(self, trial: Trial) -> None:
        assert self.simulation is not None
        if trial.record.status == "finished" and self.simulation._result.worker_s <= self.budget:
            self.found.append((self.simulation._result.worker_s, trial.record.trial, trial))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one search found."""

    best_true: float
    candidates: int
    use: float
    """Share of the workers' time in which they trained, until the budget was spent."""
    draw_ms: float


METHODS = {
    "random, no reuse": dict(sampler="random"),
    "tpe, no reuse": dict(sampler="tpe"),
    "stage": dict(sampler="stage"),
}
ABLATIONS = {
    "stage": dict(sampler="stage"),
    "no stopping": dict(sampler="stage", stop=0.0),
    "stages alone": dict(sampler="stage", share=1.0),
    "direct alone": dict(sampler="stage", share=0.0),
    "divided by the whole cost": dict(sampler="stage", power=1.0),
    "no share for the root": dict(sampler="stage", root=0.0),
    "half for the root": dict(sampler="stage", root=0.5),
}


def run(search: Search, family: Family, seed: int, workers: int, chains_a_search: float, method: Mapping[str, object]) -> Outcome:
    """Search one surface with one method until the budget is spent."""
    stage_sampler.ROOT_SHARE = float(method.get("root", 0.25))
    stage_sampler.COST_POWER = float(method.get("power", 0.6))
    stage_sampler.STOP_FACTOR = max(float(method.get("stop", 0.6)), 1e-300)
    share = method.get("share")
    stage_model._share_of_stages = (lambda finals: share) if share is not None else SHARE
    surface = Surface(search, family, seed)
    search = replace(search, sampler=str(method["sampler"]))
    space = LabelSpace.of("all", [f"s{index}" for index in range(3)])
    chains = ChainBuilder(
        search=search, seed=seed, pretrained={recipe.model.encoder: RANDOM for recipe in search.recipes}, all_species=space,
        target_species=space, data_fingerprint="made up", code_version="made up",
    )  # fmt: skip
    store = SimulatedStore()
    finals = Finals()
    coordinator = Coordinator(
        chains, TrialBook(MemoryRecords(), SimulatedView(store, "one")), samples=10**6, max_running=workers, observers=(finals,),
        pruning=StageHalving(grace=math.inf), stops_by_worth=search.sampler == "stage",
    )  # fmt: skip

    def score(task: StageTask, epoch: int) -> float:
        index, truth = true_of(task)
        stages = len(search.recipe(task.recipe).stages)
        return surface.shown(index, stages, truth, _normal(f"{seed} measured {task.stage_id}"))

    by_stage: dict[str, tuple[int, float]] = {}

    def true_of(task: StageTask) -> tuple[int, float]:
        if task.stage_id not in by_stage:
            for trial in coordinator.book.open_trials:
                ids = trial.record.stage_ids
                if task.stage_id in ids:
                    noise = [_normal(f"{seed} own {stage_id}") for stage_id in ids]
                    truth = surface.qualities(trial.record.recipe, trial.record.params, noise)
                    by_stage.update({stage_id: (index, truth[index]) for index, stage_id in enumerate(ids)})
                    break
        return by_stage[task.stage_id]

    simulation = _Simulation(
        [SimulatedSweep(name="one", coordinator=coordinator)], store, workers, _epoch_s, score, SimulatedClock()
    )
    chain_s = sum(stage.epochs for stage in search.recipes[0].stages)
    finals.simulation, finals.coordinator, finals.budget = simulation, coordinator, chains_a_search * chain_s * workers / 8
    started = time.process_time()
    result = simulation.run()
    seconds = time.process_time() - started
    scored = [(trial.record.score or 0.0, by_stage[trial.record.stage_ids[-1]][1]) for _, _, trial in finals.found]
    best = max(scored, default=(0.0, -9.0))
    return Outcome(
        best_true=best[1],
        candidates=len(scored),
        use=result.worker_s / (result.elapsed_s * workers),
        draw_ms=1000 * seconds / max(1, finals.started),
    )


def _epoch_s(task: StageTask) -> float:
    return 1.0


SHARE = stage_model._share_of_stages


@cache
def spread(name: str, seed: int) -> float:
    """Return the standard deviation of the true quality of random chains."""
    search = searched()
    surface = Surface(search, FAMILIES[name], seed)
    generator = np.random.default_rng(seed + 1000)
    encoding = Encoding(search)
    maker = CandidateMaker(search, encoding)
    recipes = [recipe.name for recipe in search.recipes]
    true = []
    for number in range(400):
        recipe = recipes[number % len(recipes)]
        params = maker.at(recipe, None, 0, generator.random(20))
        true.append(surface.qualities(recipe, params, list(generator.standard_normal(5)))[-1])
    return statistics.stdev(true)


def searched() -> Search:
    return replace(load_search("sed"), pools={})


def task(job: tuple[str, int, int, float, str, Mapping[str, object]]) -> tuple[str, int, str, Outcome]:
    name, seed, workers, chains, title, method = job
    return name, seed, title, run(searched(), FAMILIES[name], seed, workers, chains, method)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("methods", "ablation"), default="methods")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument(
        "--chains", type=float, default=40, help="device time for 8 workers, in complete chains of the first recipe"
    )
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    methods = METHODS if options.what == "methods" else {"tpe, no reuse": METHODS["tpe, no reuse"], **ABLATIONS}
    families = options.families.split(",")
    jobs = [
        (name, seed, options.workers, options.chains, title, method)
        for seed in range(options.seeds)
        for name in families
        for title, method in methods.items()
    ]
    started = time.time()
    outcomes: dict[tuple[str, int, str], Outcome] = {}
    with ProcessPoolExecutor(options.processes) as pool:
        for name, seed, title, outcome in pool.map(task, jobs):
            outcomes[name, seed, title] = outcome
    print(
        f"{options.workers} workers, {options.chains * options.workers / 8:g} chains, {options.seeds} seeds, {time.time() - started:.0f} s, "
        f"numpy {version('numpy')}, {platform.machine()}, {os.cpu_count()} cores"
    )
    print(f"{'':24}{'candidates':>11}{'gain':>7}{'s.e.':>6}  {'use':>5}{'ms':>6}  " + "".join(f"{name:>14}" for name in families))
    for title in methods:
        gains = {
            name: [
                (outcomes[name, seed, title].best_true - outcomes[name, seed, "tpe, no reuse"].best_true) / spread(name, seed)
                for seed in range(options.seeds)
            ]
            for name in families
        }
        every = [gain for values in gains.values() for gain in values]
        mine = [outcome for (_, _, other), outcome in outcomes.items() if other == title]
        error = statistics.stdev(every) / math.sqrt(len(every)) if len(every) > 1 else 0
        print(
            f"{title:24}{statistics.mean(item.candidates for item in mine):11.0f}{statistics.mean(every):+7.2f}{error:6.2f}"
            f"  {statistics.mean(item.use for item in mine):5.2f}{statistics.mean(item.draw_ms for item in mine):6.0f}  "
            + "".join(
                f"{statistics.mean(values):+8.2f}({statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0:.2f})"
                for values in gains.values()
            )
        )


if __name__ == "__main__":
    main()
