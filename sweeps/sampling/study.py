"""The only file that knows Optuna: it asks for parameters and reports what became of them."""

import difflib
import math
import random
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState

from birdclef_core.errors import InputError
from sweeps.objective import Objective, pareto_front
from sweeps.sampling.draws import Draw, Outcome, Told
from sweeps.search.parameters import Choice, Parameter
from sweeps.search.space import Search

RECIPE = "recipe"
STARTUP_TRIALS = 10
REMEMBERED_TRIALS = 500
"""TPE's time for one draw grows with the trials that it sees, so it sees at most twice this many."""
REDRAWS = 100
"""How many draws that the search does not allow are made before one is drawn at random."""
RANDOM_LOOKAHEAD = 16
"""How many trials are drawn ahead for each running one, where draws do not depend on scores."""
MOST_AHEAD = 1024
"""With more workers than 64, this many are drawn ahead: a draw takes milliseconds, and the first trial waits for all of them."""

SAMPLERS = ("stage", "tpe", "random", "grid")
_NEED_MORE = ("BaseSampler", "BaseGASampler", "BruteForceSampler", "GridSampler", "PartialFixedSampler")
"""Samplers of Optuna that need more than a random seed, those that are only the base of others, and one that ends Optuna's own loop when it
has drawn every point: the sampler `grid` does the same here."""
_DRAWS_TO_TRY = 3
"""Optuna imports the package that a sampler needs at its first draws after scores are known."""

_SQLITE = b"SQLite format 3\0"
"""How every database of SQLite begins."""

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass
class _State:
    """A study of Optuna, its open trials by ticket, and its draws with outcomes."""

    study: optuna.Study
    open: dict[int, tuple[optuna.Trial, Draw]] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)


class Study:
    """An Optuna study: draws from a search's space by one of Optuna's samplers, or takes points from others. The score is maximised, and
    the cost minimised where the objective has one.

    The first draws are each recipe at its own values.
    """

    def __init__(self, search: Search, seed: int, *, history: Sequence[Told] = (), first_ticket: int | None = None) -> None:
        """`history`: draws of earlier drivers with their outcomes. `first_ticket`: number of the next draw, by default the length
        of the history.
        """
        self._search, self._seed = search, seed
        self._has_cost = Objective.of(search.objective).cost is not None
        self._drawn = len(history)
        self._next_ticket = len(history) if first_ticket is None else first_ticket
        self._state = self._new_state(_worth_remembering(history))
        known = [(item.recipe, dict(item.params)) for item in history]
        baselines = [(recipe.name, search.baseline(recipe)) for recipe in search.recipes]
        self._first = deque(item for item in baselines if item not in known)

    @property
    def directions(self) -> list[StudyDirection]:
        """What Optuna makes of the values of a trial: a score is maximised, a cost beside it minimised."""
        return [StudyDirection.MAXIMIZE, *([StudyDirection.MINIMIZE] if self._has_cost else [])]

    @property
    def drawn(self) -> int:
        """Number of draws so far, those of earlier drivers included."""
        return self._drawn

    def ask(self) -> Draw:
        """Draw the next point to try."""
        if self._first:
            recipe, params = self._first.popleft()
            return self.take(recipe, params)
        return self._draw_allowed()

    def take(self, recipe: str, params: Mapping[str, Any]) -> Draw:
        """Make a draw of given parameters, for example for a trial that continues after an interruption."""
        if (recipe, dict(params)) in self._first:
            self._first.remove((recipe, dict(params)))
        self._state.study.enqueue_trial({RECIPE: recipe, **params})
        return self._draw()

    def tell(self, ticket: int, outcome: Outcome) -> None:
        """Report the outcome of a draw. Each ticket is reported once."""
        trial, draw = self._state.open.pop(ticket)
        study = self._state.study
        if outcome.kind == "score":
            study.tell(trial, self._values(outcome))
        elif outcome.kind == "pruned" and not self._has_cost:  # Optuna compares no pruned trials by two objectives
            trial.report(outcome.value or 0.0, outcome.step)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, state=TrialState.FAIL)
        self._state.told.append(Told(recipe=draw.recipe, params=draw.params, outcome=outcome))
        if len(self._state.told) >= 2 * REMEMBERED_TRIALS:
            self._forget()

    def _values(self, outcome: Outcome) -> list[float]:
        """What Optuna compares finished trials by."""
        return [outcome.value or 0.0, *([outcome.cost or 0.0] if self._has_cost else [])]

    def free_draws(self, waiting: int, max_running: int) -> int:
        """How many more draws may be made early without making any of them worse: draws that do not depend on scores.

        `waiting`: how many trials are drawn and do not run. TPE's first draws are random, as are all draws of a random search.
        """
        if self._search.sampler in ("random", "grid"):
            return min(RANDOM_LOOKAHEAD * max_running, MOST_AHEAD) - waiting
        if self._search.sampler != "tpe":
            return 0
        return STARTUP_TRIALS - self._drawn

    def _draw_allowed(self) -> Draw:
        """Draw until the search allows the point, and at random after REDRAWS draws. Optuna's samplers skip failed draws."""
        for _ in range(REDRAWS):
            trial = self._state.study.ask()
            recipe, params = self._suggest(trial)
            if not self._search.problem(self._search.recipe(recipe), params):
                return self._opened(trial, self._new_ticket(), recipe, params)
            self._state.study.tell(trial, state=TrialState.FAIL)
        generator = random.Random(f"{self._seed}/{self._next_ticket}")
        chosen = generator.choice(self._search.recipes)
        return self.take(chosen.name, self._search.draw(chosen, generator))

    def _draw(self) -> Draw:
        return self._open(self._state.study.ask(), self._new_ticket())

    def _new_ticket(self) -> int:
        ticket = self._next_ticket
        self._drawn, self._next_ticket = self._drawn + 1, ticket + 1
        return ticket

    def _open(self, trial: optuna.Trial, ticket: int) -> Draw:
        return self._opened(trial, ticket, *self._suggest(trial))

    def _suggest(self, trial: optuna.Trial) -> tuple[str, dict[str, Any]]:
        """The recipe and the active parameters that Optuna suggests for a trial of its study."""
        recipe = trial.suggest_categorical(RECIPE, [item.name for item in self._search.recipes])
        return recipe, self._search.point(self._search.recipe(recipe), lambda key, parameter: _suggest(trial, key, parameter))

    def _opened(self, trial: optuna.Trial, ticket: int, recipe: str, params: dict[str, Any]) -> Draw:
        draw = Draw(ticket=ticket, recipe=recipe, params=params)
        self._state.open[ticket] = (trial, draw)
        return draw

    def _new_state(self, history: Sequence[Told]) -> _State:
        seed = (self._seed + self._next_ticket) % 2**32
        study = optuna.create_study(directions=self.directions, sampler=_optuna_sampler(self._search.sampler, seed))
        study.add_trials([self._frozen(item) for item in history])
        return _State(study, told=list(history))

    def _forget(self) -> None:
        """Replace the study by one that has only the outcomes worth remembering, and the open draws."""
        before = self._state
        self._state = self._new_state(_worth_remembering(before.told))
        for ticket, (_, draw) in before.open.items():
            self._state.study.enqueue_trial({RECIPE: draw.recipe, **draw.params})
            self._open(self._state.study.ask(), ticket)

    def _frozen(self, item: Told) -> optuna.trial.FrozenTrial:
        space = self._search.sampled_space(self._search.recipe(item.recipe))
        distributions: dict[str, BaseDistribution] = {key: _distribution(space[key]) for key in item.params}
        distributions[RECIPE] = CategoricalDistribution([recipe.name for recipe in self._search.recipes])
        pruned = TrialState.FAIL if self._has_cost else TrialState.PRUNED
        states = {"score": TrialState.COMPLETE, "pruned": pruned, "failed": TrialState.FAIL}
        outcome = item.outcome
        if self._has_cost:
            values = self._values(outcome) if outcome.kind == "score" else None
            return optuna.trial.create_trial(
                state=states[outcome.kind],
                params={RECIPE: item.recipe, **item.params},
                distributions=distributions,
                values=values,
            )
        return optuna.trial.create_trial(
            state=states[outcome.kind],
            params={RECIPE: item.recipe, **item.params},
            distributions=distributions,
            value=outcome.value if math.isfinite(outcome.value or 0.0) else None,  # as Optuna itself keeps such a trial
            intermediate_values={outcome.step: outcome.value or 0.0} if outcome.kind == "pruned" else None,
        )


def finished_study(
    name: str, search: Search, told: Sequence[tuple[Told, Mapping[str, Any]]], file: Path | None = None
) -> optuna.Study:
    """Return a study of Optuna with draws that have outcomes, each with its user attributes: in memory, or in an SQLite file.

    `search` must know all recipes and parameters of the draws. A study of that name in the file is replaced. Raises InputError for a
    file that is no database of SQLite, or that cannot be written.
    """
    known = Study(search, seed=0)
    study = optuna.create_study(
        study_name=name, directions=known.directions, storage=None if file is None else _emptied(file, name)
    )
    for item, attributes in told:
        trial = known._frozen(item)
        for key, value in attributes.items():
            trial.set_user_attr(key, value)
        study.add_trial(trial)
    return study


def _emptied(file: Path, name: str) -> str:
    """Return the address of an SQLite file for Optuna, without a study of that name in it."""
    if file.exists() and not (file.is_file() and _beginning(file) in (b"", _SQLITE)):
        raise InputError(f"{file} must be a new file or a database of SQLite, but it is something else.")
    if not file.parent.is_dir():
        raise InputError(f"The folder of {file} must be there, but {file.parent} is not.")
    address = f"sqlite:///{file.resolve()}"
    if name in optuna.get_all_study_names(address):
        optuna.delete_study(study_name=name, storage=address)
    return address


def _beginning(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(len(_SQLITE))


def check_sampler(search: Search) -> None:
    """Raise InputError for a sampler that does not exist, or that cannot draw from the search."""
    if search.sampler == "grid" and search.points() is None:
        raise InputError(
            "The sampler 'grid' needs a finite space, but a Range without a step has infinitely many values. Give it a step."
        )
    if search.sampler in SAMPLERS:
        return
    study = Study(search, seed=0)
    try:
        for _ in range(len(search.recipes) + _DRAWS_TO_TRY):
            study.tell(study.ask().ticket, Outcome(kind="score", value=0.5, cost=1.0))
    except ImportError as error:
        raise InputError(f"The sampler {search.sampler!r} needs a package that is not installed: {error}") from None
    except ValueError as error:
        raise InputError(f"The sampler {search.sampler!r} cannot draw from this search: {error}") from None


def _optuna_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    if name in ("stage", "grid", "random"):  # the first two are given every point
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "tpe":
            # group: a recipe that skips a stage has fewer parameters than the others.
            return optuna.samplers.TPESampler(
                seed=seed, group=True, multivariate=True, constant_liar=True, n_startup_trials=STARTUP_TRIALS
            )
        known = [item for item in optuna.samplers.__all__ if item.endswith("Sampler") and item not in _NEED_MORE]
        if name not in known:
            near = difflib.get_close_matches(name, [*SAMPLERS, *known], n=1)
            meant = f" Perhaps {near[0]!r} is meant." if near else ""
            raise InputError(
                f"sampler must be one of {', '.join(SAMPLERS)} or a sampler of Optuna ({', '.join(known)}), but got {name!r}.{meant}"
            )
        sampler: optuna.samplers.BaseSampler = getattr(optuna.samplers, name)(seed=seed)
        return sampler


def _worth_remembering(history: Sequence[Told]) -> list[Told]:
    """At most REMEMBERED_TRIALS draws in their order: the best half, and the newest of the others. Samplers look at no failed ones.

    The best are those of the Pareto front, then those with the highest scores. TPE counts at most 25 trials as good ones; of the others it needs only their distribution in the space.
    """
    history = [item for item in history if item.outcome.kind != "failed"]
    if len(history) <= REMEMBERED_TRIALS:
        return history
    scored = [index for index, item in enumerate(history) if item.outcome.kind == "score"]
    values = [(history[index].outcome.value or 0.0, history[index].outcome.cost or 0.0) for index in scored]
    front = {scored[place] for place in pareto_front(values)}
    rising = sorted(scored, key=lambda index: (index not in front, -(history[index].outcome.value or 0.0)))
    best = rising[: REMEMBERED_TRIALS // 2]
    others = sorted(set(range(len(history))) - set(best))
    newest = others[-(REMEMBERED_TRIALS - len(best)) :]
    return [history[index] for index in sorted((*best, *newest))]


def _distribution(parameter: Parameter) -> BaseDistribution:
    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.values)
    low, high, step = parameter.low, parameter.high, parameter.step
    if isinstance(low, int) and isinstance(high, int) and isinstance(step, int):
        return IntDistribution(low, high, log=parameter.log, step=step)
    return FloatDistribution(low, high, log=parameter.log, step=step)


def _suggest(trial: optuna.Trial, key: str, parameter: Parameter) -> Any:
    distribution = _distribution(parameter)
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(key, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(key, distribution.low, distribution.high, log=distribution.log, step=distribution.step)
    assert isinstance(distribution, FloatDistribution)
    value = trial.suggest_float(key, distribution.low, distribution.high, log=distribution.log, step=distribution.step)
    return parameter.nearest(value)  # 0.3, where Optuna's steps come to 0.30000000000000004
