"""The only file that knows Optuna: asks for parameters, tells what became of them."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from sweeps.search import Choice, Parameter, Search

RECIPE = "recipe"
STARTUP_TRIALS = 10

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a trial ended, as the sampler is told."""

    kind: Literal["score", "pruned", "failed"]
    value: float | None = None
    """The objective, or the last intermediate score of a pruned trial."""
    step: int = 0
    """For a pruned trial, how many stages it had finished."""


class Sampler:
    """Optuna's TPE over a search's space; the objective is maximised.

    The first trials are each recipe at its own values. Of an earlier driver of this sweep, `history` holds the trials that
    ended and `unfinished` (recipe and parameters) those that did not: they are asked for first, in their order.
    """

    def __init__(
        self,
        search: Search,
        seed: int,
        *,
        history: Sequence[tuple[str, Mapping[str, Any], Outcome]] = (),
        unfinished: Sequence[tuple[str, Mapping[str, Any]]] = (),
    ) -> None:
        self._search = search
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # group: a recipe that skips a stage has fewer parameters than the others.
            sampler = optuna.samplers.TPESampler(
                seed=(seed + len(history)) % 2**32,
                group=True,
                multivariate=True,
                constant_liar=True,
                n_startup_trials=STARTUP_TRIALS,
            )
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._asked: dict[int, optuna.Trial] = {}
        for recipe, params, outcome in history:
            self._study.add_trial(self._frozen(recipe, params, outcome))
        known = [(recipe, dict(params)) for recipe, params in (*unfinished, *(item[:2] for item in history))]
        baselines = [(item.name, search.baseline(item)) for item in search.recipes]
        for recipe, params in (*unfinished, *(item for item in baselines if item not in known)):
            self._study.enqueue_trial({RECIPE: recipe, **params})

    def ask(self) -> tuple[int, str, dict[str, Any]]:
        """A ticket to tell the outcome by, a recipe's name and values for its sampled space."""
        trial = self._study.ask()
        recipe = trial.suggest_categorical(RECIPE, [item.name for item in self._search.recipes])
        space = self._search.sampled_space(self._search.recipe(recipe))
        params = {key: _suggest(trial, key, parameter) for key, parameter in space.items()}
        self._asked[trial.number] = trial
        return trial.number, recipe, params

    def tell(self, ticket: int, outcome: Outcome) -> None:
        """Tells the outcome of a trial that was asked for; each ticket once."""
        trial = self._asked.pop(ticket)
        if outcome.kind == "score":
            self._study.tell(trial, outcome.value)
        elif outcome.kind == "pruned":
            trial.report(outcome.value or 0.0, outcome.step)
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, state=TrialState.FAIL)

    def _frozen(self, recipe: str, params: Mapping[str, Any], outcome: Outcome) -> optuna.trial.FrozenTrial:
        space = self._search.sampled_space(self._search.recipe(recipe))
        distributions: dict[str, BaseDistribution] = {key: _distribution(space[key]) for key in params}
        distributions[RECIPE] = CategoricalDistribution([item.name for item in self._search.recipes])
        states = {"score": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        return optuna.trial.create_trial(
            state=states[outcome.kind],
            params={RECIPE: recipe, **params},
            distributions=distributions,
            value=outcome.value if outcome.kind == "score" else None,
            intermediate_values={outcome.step: outcome.value or 0.0} if outcome.kind == "pruned" else None,
        )


def _distribution(parameter: Parameter) -> BaseDistribution:
    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.values)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def _suggest(trial: optuna.Trial, key: str, parameter: Parameter) -> Any:
    if isinstance(parameter, Choice):
        return trial.suggest_categorical(key, parameter.values)
    return trial.suggest_float(key, parameter.low, parameter.high, log=parameter.log)
