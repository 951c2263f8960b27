"""Where the trials of a sweep come from (new draws, and trials that go on), and how the sampler learns what became of them."""

import itertools
import math
import random
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from typing import Any

from birdclef_core.config import STAGE_NAMES
from birdclef_core.errors import InputError
from sweeps.objective import CPU_SECONDS, Objective
from sweeps.replicates import levels, stage_of
from sweeps.sampling.draws import Draw, Outcome, Told
from sweeps.sampling.facts import Foretold, Point, SweepFacts, TrialFacts, TrialState
from sweeps.sampling.stage_costs import CpuSeconds, not_measured
from sweeps.sampling.stage_sampler import StageSampler
from sweeps.sampling.study import Study
from sweeps.schedule.pruning import StageVerdicts, kind_of
from sweeps.schedule.records import ToldDraw, TrialRecord
from sweeps.schedule.spending import Spending
from sweeps.schedule.trials import Trial, TrialBook
from sweeps.search.chains import Chain, ChainBuilder, config_fingerprint

SAMPLER_DRAWS = 10
"""How many draws of the sampler in a row may become no trial before points are taken from the space itself."""
RANDOM_POINTS = 200
"""How many random points are then looked at before the space counts as used up. A finite space is looked at as a whole after them."""
MANY_TIMES = 1000
"""How many times as much another trial may gain is told up to this."""
FAILED = Outcome(kind="failed")


class TrialSource:
    """Draws trials and reports their outcomes to the sampler. A configuration becomes one trial; its duplicates get the trial's score.

    A draw that needs a stage which failed, or which pruning has stopped, becomes no trial: the sampler hears that it failed, and so
    passes over it. What earlier drivers reported to their samplers is reported to this one, where it means the same in this search.
    """

    def __init__(
        self,
        chains: ChainBuilder,
        book: TrialBook,
        verdicts: StageVerdicts,
        spending: Spending,
        cpu_seconds: CpuSeconds = not_measured,
    ) -> None:
        """`cpu_seconds` is asked where trials are compared by them, also for the trials of earlier drivers: these may have run on another
        machine."""
        self._chains, self._book, self._verdicts, self._spending = chains, book, verdicts, spending
        self._cost_name, self._cpu_seconds = Objective.of(chains.search.objective).cost, cpu_seconds
        known = list(book.records.values())
        found = {record.trial: _found_in(chains, record, record.recipe, record.params) for record in known}
        for record in known:
            if (item := found[record.trial]) is not None:
                before = record.cpu_seconds
                self.measure(record, item[1])
                if record.cpu_seconds != before:
                    book.mark_changed(record)
        self._points = {trial: item and item[0] for trial, item in found.items()}
        self._stage_ids = {trial: [task.stage_id for task in item[1]] for trial, item in found.items() if item}
        """The stages that the trials of earlier drivers would have now: under another version of the code these are others."""
        for record in known:
            if (item := found[record.trial]) is not None:
                spending.recall(record, item[1])
        self._scores: dict[str, float] = {}
        """Scores at the ends of stages, by their ids, of the trials that begin again."""
        draws = [draw.draw for record in known for draw in record.told]
        history = [
            (draw.draw, Told(recipe=draw.recipe, params=point, outcome=self._with_cost(draw.outcome, record)))
            for record in known
            for draw in record.told
            if (point := self._point_of_draw(record, draw)) is not None
        ]
        self._study = Study(
            chains.search,
            chains.seed,
            history=[told for _, told in sorted(history, key=lambda item: item[0])],
            first_ticket=max(draws, default=-1) + 1,
        )
        is_stage_aware = chains.search.sampler == "stage"
        self._stage_sampler = StageSampler(chains.search, chains.seed, cpu_seconds) if is_stage_aware else None
        self._by_last_stage = {record.stage_ids[-1]: record for record in known}
        self._duplicates: defaultdict[str, list[Draw]] = defaultdict(list)
        """Draws with the configuration of an open trial, by the id of its last stage."""
        self._grid = chains.search.points()
        """The points of a finite space that have not been looked at."""
        self._passed_over: list[tuple[str, dict[str, Any]]] = []
        """Points of a finite space that needed a stopped stage when they were looked at."""
        self._to_look_at: list[tuple[str, dict[str, Any]]] = []
        """Those of them that may be open by now."""
        self._priced: dict[tuple[str, tuple[tuple[str, Any], ...]], Chain] = {}
        """Chains of which the stage-aware sampler has asked what they cost: few, because it asks once for all that cost the same."""
        self._finished: dict[str, TrialFacts] = {}
        """What the stage-aware sampler is told of finished trials, which do not change."""
        self._levels: dict[str, list[str]] = {}
        """The stages of a level of several replicates, by the id of its last one, by which the stage-aware sampler knows it."""
        self._refused: list[Point] = []
        """What the stage-aware sampler proposed and became no trial of its own."""
        self.left_out = 0
        """How many draws became no trial because a stage that they need had failed or was stopped. The caller of `drop` counts too."""
        self.exhausted = False
        """Whether the search space has nothing new to draw, unless a stopped stage rises."""

    def measure(self, record: TrialRecord, chain: Chain) -> None:
        """Measure what the model of a trial costs, if trials are compared by that."""
        if self._cost_name == CPU_SECONDS:
            record.cpu_seconds = self._cpu_seconds(chain[0].model)

    def means_the_same(self, record: TrialRecord) -> bool:
        """Whether an earlier trial is a point of this search: only then are its scores compared with those of new trials."""
        return self._points.get(record.trial) is not None

    def free_draws(self, waiting: int, max_running: int) -> int:
        """See `Study.free_draws`."""
        return self._study.free_draws(waiting, max_running)

    def draw(self) -> Trial | None:
        """A new trial, with a provisional name, or a paused one that goes on; None when there is none.

        A draw becomes none if it is a trial already, if it needs a stage that failed or was stopped, or if the budget does not allow it.
        """
        for draw, foretold in self._draws():
            chain = self._chains.chain(draw.recipe, draw.params)
            twin = self._by_last_stage.get(chain[-1].stage_id)
            if twin is not None and not twin.paused:
                self._refused.append((draw.recipe, draw.params))
                self._tell_as(draw, twin)
            elif not self._is_open([task.stage_id for task in chain]):
                self._refused.append((draw.recipe, draw.params))
                self.left_out += 1
                self._study.tell(draw.ticket, FAILED)
            elif not self._spending.allows(chain):
                self._study.tell(draw.ticket, FAILED)
            elif twin is not None:
                return self._go_on(twin, draw)
            else:
                return self._new_trial(draw, chain, foretold)
        self.exhausted = not self._spending.pause_draws()
        return None

    def why_stop(self, trial: Trial) -> str:
        """Why a trial stops at the end of a stage that is not its last; an empty text when it goes on."""
        record, facts = trial.record, self._facts()
        own = next((item for item in facts.trials if item.trial == record.trial), None)
        depth = next(
            depth for depth, level in enumerate(levels(record.stages), start=1) if record.stages.index(record.stage) in level
        )
        if self._stage_sampler is None or own is None or len(own.scores) < depth:
            return ""
        worth = self._stage_sampler.worth(facts, replace(own, scores=own.scores[:depth]), self._study.drawn)
        if worth is None or not worth.stops:
            return ""
        times = worth.best_other - worth.going_on
        how_much = f"{math.exp(times):.3g}" if times < math.log(MANY_TIMES) else f"more than {MANY_TIMES}"
        return f"another trial may gain {how_much} times as much in the same time"

    def drop(self, trial: Trial) -> None:
        """Report a draw that cannot begin, and its duplicates, to the sampler as failed. It may be drawn again."""
        last = trial.record.stage_ids[-1]
        del self._by_last_stage[last]
        for draw in (trial.draw, *self._duplicates.pop(last, ())):
            self._study.tell(draw.ticket, FAILED)
        self._pass_over(trial.draw.recipe, trial.draw.params)

    def look_again(self) -> None:
        """Stages that were stopped go on: the space may have something new to draw."""
        self.exhausted = False
        self._to_look_at += self._passed_over
        self._passed_over, self._refused = [], []

    def restart(self, record: TrialRecord) -> Trial:
        """A trial that was open before, or was pruned, from its first stage on. What is in the store is reused."""
        point = self._points.get(record.trial)
        params = record.params if point is None else point
        return self._go_on(record, self._study.take(record.recipe, params))

    def _go_on(self, record: TrialRecord, draw: Draw) -> Trial:
        chain = self._chains.chain(record.recipe, draw.params)
        self._by_last_stage.pop(record.stage_ids[-1], None)
        self._scores |= {record.stage_ids[record.stages.index(stage)]: score for stage, score in record.stage_scores.items()}
        record.begin_again([task.stage_id for task in chain])
        record.config_id = config_fingerprint(chain)
        self._by_last_stage[record.stage_ids[-1]] = record
        return Trial(record=record, chain=chain, draw=draw)

    def tell(self, trial: Trial) -> None:
        """Report the outcome of a trial that has ended, also for its duplicates."""
        for draw in (trial.draw, *self._duplicates.pop(trial.record.stage_ids[-1], ())):
            self._tell(draw, trial.record)

    def _draws(self) -> Iterator[tuple[Draw, Foretold]]:
        """The sampler's draws; if these become no trials, new points of the space itself.

        A sampler that learns may draw the same again and again where most prefixes are stopped, although the space has more.
        """
        for _ in range(0 if self._chains.search.sampler == "grid" else SAMPLER_DRAWS):
            if self._stage_sampler is None:
                yield self._study.ask(), {}
                continue
            proposal = self._stage_sampler.propose(self._facts(), self._study.drawn)
            if proposal is None:
                break
            yield self._study.take(proposal.recipe, proposal.params), proposal.foretold
        random_points = () if self._chains.search.sampler == "grid" else self._random_points()
        for recipe, params in itertools.chain(random_points, self._grid_points()):
            if self._is_new(recipe, params):
                yield self._study.take(recipe, params), {}

    def _facts(self) -> SweepFacts:
        """What the stage-aware sampler is told: the trials that mean the same in this search."""
        records = [*self._book.records.values(), *(trial.record for trial in self._book.drawn_trials())]
        trials = [
            self._finished.get(record.trial) or self._facts_of(record, point)
            for record in records
            if (point := self._points.get(record.trial, record.params)) is not None
        ]
        self._finished |= {trial.trial: trial for trial in trials if trial.final is not None}
        return SweepFacts(
            trials=trials,
            is_published=self._book.is_published,
            is_closed=cache(lambda stage_id: not self._is_open(self._levels.get(stage_id, [stage_id]))),
            stage_s=self._stage_s,
            left_s=self._spending.left_s(),
            refused=self._refused,
            remaining_s=self._spending.remaining_s,
        )

    def _facts_of(self, record: TrialRecord, point: Mapping[str, Any]) -> TrialFacts:
        """What the sampler is told of a trial. Of several replicates it hears the means, as of one chain with the ids of the last replicate."""
        stage_ids = self._stage_ids.get(record.trial, record.stage_ids)
        by_level = levels(record.stages)
        self._levels |= {stage_ids[level[-1]]: [stage_ids[index] for index in level] for level in by_level if len(level) > 1}
        scores: list[float] = []
        for level in by_level:
            score = statistics.fmean(
                record.stage_scores.get(record.stages[index], self._scores.get(stage_ids[index], math.nan)) for index in level
            )
            if not math.isfinite(score):
                break
            scores.append(score)
        return TrialFacts(
            trial=record.trial,
            recipe=record.recipe,
            params=point,
            stage_ids=[stage_ids[level[-1]] for level in by_level],
            scores=scores,
            final=record.score if record.status == "finished" else None,
            state=_state_of(record),
            spent_s=[sum(record.spent_s.get(record.stages[index], 0.0) for index in level) for level in by_level],
            foretold=record.foretold,
            cost=self._cost_of(record),
        )

    def _stage_s(self, recipe: str, params: Mapping[str, Any]) -> list[float]:
        name = (recipe, tuple(sorted(params.items())))
        if name not in self._priced:
            self._priced[name] = self._chains.chain(recipe, params)
        chain = self._priced[name]
        stage_s = self._spending.stage_s(chain)
        return [sum(stage_s[index] for index in level) for level in levels([task.name for task in chain])]

    def _cost_of(self, record: TrialRecord) -> float | None:
        """What the model of a finished trial costs, if trials are compared by that and it is known."""
        cost = math.inf if self._cost_name is None else record.costs[self._cost_name]
        return cost if record.status == "finished" and math.isfinite(cost) else None

    def _with_cost(self, outcome: Outcome, record: TrialRecord) -> Outcome:
        return replace(outcome, cost=self._cost_of(record)) if outcome.kind == "score" else outcome

    def _random_points(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """RANDOM_POINTS points of the space, unless it is that small itself."""
        search, generator = self._chains.search, random.Random(f"{self._chains.seed}/{len(self._by_last_stage)}")
        for _ in range(0 if self._is_small else RANDOM_POINTS):
            recipe = generator.choice(search.recipes)
            try:
                yield recipe.name, search.draw(recipe, generator)
            except InputError:  # hardly any point meets the constraints
                return

    @cached_property
    def _is_small(self) -> bool:
        """Whether the space has no more points than would be looked at at random."""
        points = self._chains.search.points()
        return points is not None and len(list(itertools.islice(points, RANDOM_POINTS))) < RANDOM_POINTS

    def _grid_points(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The points of a finite space that have not been looked at, and before them those that may be open again."""
        while self._to_look_at:
            yield self._to_look_at.pop()
        while self._grid is not None and (point := next(self._grid, None)) is not None:
            yield point

    def _is_new(self, recipe: str, params: dict[str, Any]) -> bool:
        """Whether a point makes a chain that no trial has and that may be trained."""
        chain = self._chains.chain(recipe, params)
        if chain[-1].stage_id in self._by_last_stage:
            return False
        if not (self._is_open([task.stage_id for task in chain]) and self._spending.allows(chain)):
            self._pass_over(recipe, params)
            return False
        return True

    def _pass_over(self, recipe: str, params: dict[str, Any]) -> None:
        if self._grid is not None:
            self._passed_over.append((recipe, params))

    def _is_open(self, stage_ids: Sequence[str]) -> bool:
        """Whether none of some stages has failed or is stopped."""
        return not self._verdicts.failure(stage_ids) and self._verdicts.stopped(stage_ids) is None

    def _tell_as(self, draw: Draw, twin: TrialRecord) -> None:
        if twin.ended:
            self._tell(draw, twin)
        else:
            self._duplicates[twin.stage_ids[-1]].append(draw)

    def _tell(self, draw: Draw, record: TrialRecord) -> None:
        outcome = self._with_cost(_outcome(record), record)
        self._study.tell(draw.ticket, outcome)
        record.told.append(ToldDraw(draw=draw.ticket, recipe=draw.recipe, params=draw.params, outcome=outcome))
        self._book.mark_changed(record)

    def _point_of_draw(self, record: TrialRecord, draw: ToldDraw) -> dict[str, Any] | None:
        if (draw.recipe, draw.params) == (record.recipe, record.params):
            return self._points[record.trial]
        found = _found_in(self._chains, record, draw.recipe, draw.params)
        return found and found[0]

    def _new_trial(self, draw: Draw, chain: Chain, foretold: Foretold) -> Trial:
        record = TrialRecord(
            trial=f"draw {draw.ticket}",
            recipe=draw.recipe,
            params=draw.params,
            stages=[task.name for task in chain],
            stage_ids=[task.stage_id for task in chain],
            kinds=[kind_of(task.config) for task in chain],
            config_id=config_fingerprint(chain),
            foretold=dict(foretold),
        )
        self._by_last_stage[record.stage_ids[-1]] = record
        return Trial(record=record, chain=chain, draw=draw)


def _found_in(
    chains: ChainBuilder, record: TrialRecord, recipe: str, params: Mapping[str, Any]
) -> tuple[dict[str, Any], Chain] | None:
    """Parameters as a point of the search, and its chain; None where this is another model or other stages than the trial's."""
    point = chains.search.point_of(recipe, params)
    if point is None:
        return None
    chain = chains.chain(recipe, point)
    return (point, chain) if config_fingerprint(chain) == record.config_id else None


def _state_of(record: TrialRecord) -> TrialState:
    if not record.ended:
        return "open"
    if record.status == "failed" or (record.stopped is not None and not math.isfinite(record.stopped.score)):
        return "failed"
    return "paused" if record.paused else "ended"


def _outcome(record: TrialRecord) -> Outcome:
    if record.status == "finished":
        return Outcome(kind="score", value=record.score)
    if record.status == "pruned" and record.stopped is not None:
        rung = record.stopped.rung
        # Of the preset's stages, the same for recipes that skip some: Optuna compares trials that were pruned at the same step.
        order = STAGE_NAMES if rung.stage in STAGE_NAMES else list(dict.fromkeys(map(stage_of, record.stages)))
        step = 2 * order.index(rung.stage) + (1 if rung.epoch else 2)
        return Outcome(kind="pruned", value=record.stopped.score, step=step)
    return FAILED
