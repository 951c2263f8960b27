"""A control for `search_worth.py`: EEIPU, expected expected improvement per unit cost, with stages that are kept.

After Essofi et al., Reducing Hyperparameter Tuning Costs in ML, Vision and Language Model Training Pipelines via Memoization-Awareness,
arXiv 2411.03731, 2024. One Gaussian process foretells the final score from all parameters, and one for each stage the logarithm of its cost.
A candidate's expected improvement is multiplied by the expectation of 1 / cost, where stages that are kept cost nothing, to a power that
falls from 1 to 0 while the budget is spent. Candidates are random completions of the kept stages of the best trials, and of none.
"""

import math

import numpy as np

from sweeps.sampling.candidates import CandidateMaker
from sweeps.sampling.encoding import Array, Encoding
from sweeps.sampling.facts import Proposal, SweepFacts, TrialFacts
from sweeps.sampling.gaussian_process import GaussianProcess
from sweeps.sampling.stage_costs import CpuSeconds
from sweeps.sampling.stage_model import MIN_FINALS, FittedProcesses, log_expected_improvement
from sweeps.sampling.stage_sampler import Worth
from sweeps.search.space import Search

NUM_BEST, COMPLETIONS, FROM_ROOT = 8, 16, 160
NUM_SAMPLES, KEPT_S, LENGTH, REFITTED_EVERY, MAX_POINTS = 24, 1e-3, 0.7, 8, 240


class Eeipu:
    """Proposes trials in the place of the stage-aware sampler, and stops none."""

    def __init__(self, search: Search, seed: int, cpu_seconds: CpuSeconds, *, budget_s: float) -> None:
        """`cpu_seconds` is what the stage-aware sampler is given too; models are not compared by their cost here."""
        self._search, self._seed, self._budget_s = search, seed, budget_s
        self._encoding = Encoding(search)
        self._maker = CandidateMaker(search, self._encoding)
        self._fitted = FittedProcesses()
        self._x: dict[str, Array] = {}

    def worth(self, facts: SweepFacts, trial: TrialFacts, number: int) -> Worth | None:
        return None

    def propose(self, facts: SweepFacts, number: int) -> Proposal | None:
        for trial in facts.trials:
            if trial.trial not in self._x:
                self._x[trial.trial] = self._maker.vector(trial)
        generator = np.random.default_rng((self._seed, number))
        finals = [trial for trial in facts.trials if trial.final is not None]
        if len(finals) < MIN_FINALS:
            recipe = self._search.recipes[number % len(self._search.recipes)].name
            return Proposal(recipe=recipe, params=self._maker.at(recipe, None, 0, generator.random(30)), foretold={})
        score = self._score(facts, finals)
        spent_s = sum(sum(trial.spent_s) for trial in facts.trials)
        power = max(0.0, 1 - spent_s / self._budget_s)
        rated = []
        for recipe, given, depth, place_CP in self._candidates(facts, finals, generator):
            value_C = score(recipe, place_CP) + power * self._log_inverse_cost(facts, recipe, place_CP, depth)
            index = int(np.argmax(value_C))
            rated.append((float(value_C[index]), recipe, given, depth, place_CP[index]))
        _, recipe, given, depth, place_P = max(rated, key=lambda item: item[0])
        return Proposal(recipe=recipe, params=self._maker.at(recipe, given, depth, place_P), foretold={})

    def _candidates(self, facts: SweepFacts, finals: list[TrialFacts], generator: np.random.Generator):
        """Yield recipe, the trial that has the kept stages, their number, and places, for candidates from there."""
        recipes = list(self._encoding.spaces)
        for recipe in recipes:
            place_CP = generator.random((FROM_ROOT // len(recipes), len(self._encoding.spaces[recipe])))
            yield recipe, None, 0, self._encoding.settled(recipe, place_CP)
        seen: set[str] = set()
        for trial in sorted(finals, key=lambda item: -(item.final or 0.0))[:NUM_BEST]:
            given_P = self._encoding.places(trial.recipe, trial.params)
            for depth in range(1, len(trial.stage_ids)):
                if trial.stage_ids[depth - 1] not in seen and facts.departs(trial, depth):
                    seen.add(trial.stage_ids[depth - 1])
                    place_CP = self._encoding.settled(trial.recipe, generator.random((COMPLETIONS, len(given_P))))
                    yield trial.recipe, trial, depth, np.where(self._encoding.first_P[trial.recipe] < depth, given_P, place_CP)

    def _process(self, name: str, x: list[Array], values: list[float]) -> GaussianProcess:
        """A process that is fitted again when it has several values more."""
        lengths = [LENGTH] * self._encoding.num_groups
        kept = slice(-MAX_POINTS, None)

        def fit() -> GaussianProcess:
            return GaussianProcess(np.array(x[kept]), np.array(values[kept]), None, self._encoding.groups_D, lengths)

        return self._fitted.get(name, len(values) if name == "final" else len(values) // REFITTED_EVERY, fit)

    def _score(self, facts: SweepFacts, finals: list[TrialFacts]):
        """Return the logarithm of expected improvement, as a function of recipe and places."""
        known = self._process("final", [self._x[trial.trial] for trial in finals], [trial.final or 0.0 for trial in finals])
        best, process = float(np.max(known.smoothed_N)), known
        pending = [self._x[trial.trial] for trial in facts.trials if trial.state == "open"][-64:]
        if pending:
            process = known.awaiting(np.array(pending), np.zeros(len(pending)))

        def score(recipe: str, place_CP: Array) -> Array:
            terms = process.terms(self._encoding.vectors(recipe, place_CP))
            deviation_C = process.scale * np.sqrt(terms.variance_C)
            mean_C = process.centre + process.scale * terms.mean_C
            return log_expected_improvement((mean_C - best) / deviation_C) + np.log(deviation_C)

        return score

    def _log_inverse_cost(self, facts: SweepFacts, recipe: str, place_CP: Array, depth: int) -> Array:
        """The logarithm of the expectation of 1 / cost (C,)."""
        x_CD = self._encoding.vectors(recipe, place_CP)
        normal_KS = np.random.default_rng(0).standard_normal((self._encoding.num_stages[recipe], NUM_SAMPLES))
        cost_CS = np.full((len(x_CD), NUM_SAMPLES), KEPT_S)
        for index in range(depth, self._encoding.num_stages[recipe]):
            spent = [
                (self._x[item.trial], item.spent_s[index])
                for item in facts.trials
                if len(item.scores) > index and item.spent_s[index] > 0
            ]
            process = self._process(
                f"cost of stage {index}", [x_D for x_D, _ in spent], [math.log(seconds) for _, seconds in spent]
            )
            terms = process.terms(x_CD)
            log_CS = terms.mean_C[:, None] + np.sqrt(terms.variance_C)[:, None] * normal_KS[index]
            cost_CS += np.exp(process.centre + process.scale * log_CS)
        return np.log((1 / cost_CS).mean(axis=1))
