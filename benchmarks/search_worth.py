"""Compare searches at equal device time, on made-up response surfaces and through the real driver without training.

python benchmarks/search_worth.py               the stage-aware sampler against TPE without reuse, random draws and EEIPU
python benchmarks/search_worth.py ablation      the sampler without each of its ingredients
python benchmarks/search_worth.py --out FILE    writes every outcome as it comes; the same command goes on where it was, and prints the table

A surface makes up the scores of all stages: what a stage adds for its parameters, what it takes over from the stage before, noise that is
a stage's own and that its descendants inherit, and noise of the measurement. Every method has the same surfaces, workers and device time.
The result of a method is the true value of the trial with the best measured score, in standard deviations of random chains over TPE.
"""

import argparse
import hashlib
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from search_eeipu import Eeipu

from birdclef_core.config import STAGE_NAMES
from birdclef_core.models.encoders import RANDOM
from birdclef_core.stages.task import StageTask
from birdclef_core.taxonomy import LabelSpace
from sweeps.plan.simulate import (
    MemoryRecords,
    SimulatedClock,
    SimulatedStore,
    SimulatedSweep,
    SimulatedView,
    SimulationResult,
    simulate,
)
from sweeps.sampling import candidates, stage_model, stage_sampler
from sweeps.sampling.candidates import CandidateMaker
from sweeps.sampling.encoding import Encoding
from sweeps.schedule import trial_source
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
    """The trials of one search that have finished within its device time. It begins no others after that."""

    budget_s: float
    result: SimulationResult = field(default_factory=SimulationResult)
    coordinator: Coordinator | None = None
    found: list[Trial] = field(default_factory=list)
    started: int = 0
    clock: SimulatedClock = field(default_factory=SimulatedClock)
    last_start: tuple[float, float] = (0.0, 0.0)
    """When the last trial began, and for how many seconds workers had been idle until then."""

    def trial_started(self, trial: Trial) -> None:
        self.started += 1
        self.last_start = self.clock.now_s, self.result.idle_s

    def updated(self, trial: Trial, update: object) -> None:
        if self.coordinator is not None and self.result.worker_s >= self.budget_s:
            self.coordinator.samples = 0

    def trial_ended(self, trial: Trial) -> None:
        if trial.record.status == "finished" and self.result.worker_s <= self.budget_s:
            self.found.append(trial)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one search found."""

    best_true: float
    candidates: int
    use: float
    """Share of the workers' time in which they trained, until the last trial began."""
    use_whole: float
    """The same until the last trial ended."""
    draw_ms: float


Method = Mapping[str, object]
METHODS: Mapping[str, Method] = {
    "tpe, no reuse": {"sampler": "tpe"},
    "random, no reuse": {"sampler": "random"},
    "eeipu": {"sampler": "eeipu"},
    "stage": {"sampler": "stage"},
}
ABLATIONS: Mapping[str, Method] = {
    "tpe, no reuse": {"sampler": "tpe"},
    "stage": {"sampler": "stage"},
    "no stopping": {"sampler": "stage", "stops": False},
    "no completions": {"sampler": "stage", "prefixes": 0},
    "model by stages alone": {"sampler": "stage", "share": 1.0},
    "direct model alone": {"sampler": "stage", "share": 0.0},
    "cost power 0": {"sampler": "stage", "power": 0.0},
    "cost power 1": {"sampler": "stage", "power": 1.0},
    "no root share": {"sampler": "stage", "root": 0.0},
}
OWN = (stage_sampler.ROOT_SHARE, stage_sampler.COST_POWER, candidates.PREFIXES_A_DEPTH, stage_model.share_of_stages)


def set_up(method: Method, budget_s: float) -> None:
    """Set the constants of the sampler, and which one the driver makes."""
    root, power, prefixes, share = OWN
    stage_sampler.ROOT_SHARE = method.get("root", root)
    stage_sampler.COST_POWER = method.get("power", power)
    candidates.PREFIXES_A_DEPTH = method.get("prefixes", prefixes)
    stage_model.share_of_stages = (lambda finals: method["share"]) if "share" in method else share
    trial_source.StageSampler = stage_sampler.StageSampler if method["sampler"] != "eeipu" else partial(Eeipu, budget_s=budget_s)


def run(search: Search, family: Family, seed: int, workers: int, chains_a_search: float, method: Method) -> Outcome:
    """Search one surface with one method until the budget is spent."""
    budget_s = chains_a_search * sum(stage.epochs for stage in search.recipes[0].stages) * workers / 8
    set_up(method, budget_s)
    surface = Surface(search, family, seed)
    sampler = str(method["sampler"])
    search = replace(search, sampler="stage" if sampler == "eeipu" else sampler)
    space = LabelSpace.of("all", [f"s{index}" for index in range(3)])
    chains = ChainBuilder(
        search=search, seed=seed, pretrained={recipe.model.encoder: RANDOM for recipe in search.recipes}, all_species=space,
        target_species=space, data_fingerprint="made up", code_version="made up",
    )  # fmt: skip
    store = SimulatedStore()
    finals = Finals(budget_s)
    coordinator = Coordinator(
        chains, TrialBook(MemoryRecords(), SimulatedView(store, "one")), samples=10**6, max_running=workers, observers=(finals,),
        pruning=StageHalving(grace=math.inf), stops_by_worth=sampler == "stage" and bool(method.get("stops", True)),
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

    finals.coordinator = coordinator
    started = time.process_time()
    sweep = SimulatedSweep(name="one", coordinator=coordinator)
    result = simulate([sweep], store, workers, lambda task: 1.0, score, finals.clock, finals.result)
    seconds = time.process_time() - started
    scored = [(trial.record.score or 0.0, by_stage[trial.record.stage_ids[-1]][1]) for trial in finals.found]
    best = max(scored, default=(0.0, -9.0))
    last_s, idle_s = finals.last_start
    return Outcome(
        best_true=best[1],
        candidates=len(scored),
        use=1 - idle_s / max(1.0, last_s * workers),
        use_whole=result.worker_s / (result.elapsed_s * workers),
        draw_ms=1000 * seconds / max(1, finals.started),
    )


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


def task(job: tuple[str, int, int, float, str, Method]) -> tuple[str, int, str, Outcome]:
    name, seed, workers, chains, title, method = job
    return name, seed, title, run(searched(), FAMILIES[name], seed, workers, chains, method)


def load(path: Path | None) -> dict[tuple[str, int, str], Outcome]:
    """Return the outcomes that an earlier run has written."""
    lines = path.read_text().splitlines() if path is not None and path.exists() else []
    return {(item["family"], item["seed"], item["method"]): Outcome(**item["outcome"]) for item in map(json.loads, lines)}


def table(outcomes: Mapping[tuple[str, int, str], Outcome], methods: Sequence[str], families: Sequence[str]) -> str:
    """Return the gains over the first method, on the surfaces that every method has searched."""
    pairs = sorted(
        {
            (name, seed)
            for name, seed, _ in outcomes
            if name in families and all((name, seed, title) in outcomes for title in methods)
        }
    )
    rows = [
        f"{'':24}{'candidates':>11}{'gain':>7}{'s.e.':>6}{'use':>6}{'whole':>6}{'ms':>6}  "
        + "".join(f"{name:>14}" for name in families)
    ]
    for title in methods:
        gains = {
            (name, seed): (outcomes[name, seed, title].best_true - outcomes[name, seed, methods[0]].best_true)
            / spread(name, seed)
            for name, seed in pairs
        }
        mine = [outcomes[name, seed, title] for name, seed in pairs]
        mean, error = average(list(gains.values()))
        by_family = [average([gain for (name, _), gain in gains.items() if name == family]) for family in families]
        rows.append(
            f"{title:24}{statistics.mean(item.candidates for item in mine):11.0f}{mean:+7.2f}{error:6.2f}"
            f"{statistics.mean(item.use for item in mine):6.2f}{statistics.mean(item.use_whole for item in mine):6.2f}{statistics.mean(item.draw_ms for item in mine):6.0f}  "
            + "".join(f"{mean:+8.2f}({error:.2f})" for mean, error in by_family)
        )
    seeds = ", ".join(f"{family} {sum(name == family for name, _ in pairs)}" for family in families)
    return "\n".join([*rows, f"surfaces: {seeds}"])


def average(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error."""
    if len(values) < 2:
        return (values[0] if values else math.nan), math.nan
    return statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("methods", "ablation"), default="methods")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--chains", type=float, default=40, help="device time for 8 workers, in complete chains of the first recipe"
    )
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument(
        "--methods", help="names of methods, separated by semicolons; the first is the one that others are compared with"
    )
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument(
        "--out", type=Path, help="file for the outcomes, a line each; use one for each number of workers and chains"
    )
    options = parser.parse_args()
    every = METHODS if options.what == "methods" else ABLATIONS
    methods = {title: every[title] for title in options.methods.split(";")} if options.methods else every
    families = options.families.split(",")
    outcomes = load(options.out)
    jobs = [
        (name, seed, options.workers, options.chains, title, method)
        for seed in range(options.first_seed, options.first_seed + options.seeds)
        for name in families
        for title, method in methods.items()
        if (name, seed, title) not in outcomes
    ]
    started = time.time()
    with ExitStack() as stack:
        run_all = map if options.processes == 1 else stack.enter_context(ProcessPoolExecutor(options.processes)).map
        for name, seed, title, outcome in run_all(task, jobs):
            outcomes[name, seed, title] = outcome
            if options.out is not None:
                line = {"family": name, "seed": seed, "method": title, "outcome": asdict(outcome)}
                with options.out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
    print(
        f"{options.workers} workers, {options.chains * options.workers / 8:g} chains, {time.time() - started:.0f} s, "
        f"Python {platform.python_version()}, numpy {version('numpy')}, optuna {version('optuna')}, {platform.machine()}, {os.cpu_count()} cores"
    )
    print(table(outcomes, list(methods), families))


if __name__ == "__main__":
    main()
