"""Where a sweep's trials come from: draws that nobody has drawn before, and trials that go on; and where their outcomes go."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.schedule.pruning import kind_of
from sweeps.schedule.records import Outcome, ToldDraw, TrialRecord
from sweeps.schedule.sampler import Draw, Sampler, Told
from sweeps.search.chains import Chain, ChainBuilder, config_fingerprint

DUPLICATES_BEFORE_THE_GRID = 10
DUPLICATES_BEFORE_THE_END = 50


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A trial with its chain of stages."""

    record: TrialRecord
    chain: Chain
    draw: Draw
    """To tell the sampler the outcome by."""


class TrialSource:
    """Draws trials and tells the sampler what became of them. A configuration is drawn once; its duplicates are told its score."""

    def __init__(self, chains: ChainBuilder, known: Sequence[TrialRecord], changed: Callable[[TrialRecord], None]) -> None:
        """`known`: the trials of earlier drivers; what their samplers were told this one is told, where it means the same in this
        search. `changed` is called with each trial whose record of what was told has grown.
        """
        self._chains, self._changed = chains, changed
        self._points = {record.trial: _point_in(chains, record, record.recipe, record.params) for record in known}
        draws = [draw.draw for record in known for draw in record.told]
        history = [
            (draw.draw, Told(recipe=draw.recipe, params=point, outcome=draw.outcome))
            for record in known
            for draw in record.told
            if (point := self._point_of_draw(record, draw)) is not None
        ]
        self._sampler = Sampler(
            chains.search,
            chains.seed,
            history=[told for _, told in sorted(history, key=lambda item: item[0])],
            first_ticket=max(draws, default=-1) + 1,
        )
        self._by_last_stage = {record.stage_ids[-1]: record for record in known}
        self._duplicates: defaultdict[str, list[Draw]] = defaultdict(list)
        """Draws that are the same as a trial that has not ended, by its name."""
        self._grid = chains.search.points()
        self.exhausted = False
        """Whether there is nothing new to draw."""

    def means_the_same(self, record: TrialRecord) -> bool:
        """Whether a known trial is a point of this search: only then are its scores compared with those of new ones."""
        return self._points.get(record.trial) is not None

    def free_draws(self, waiting: int, max_running: int) -> int:
        """See Sampler.free_draws."""
        return self._sampler.free_draws(waiting, max_running)

    def draw(self, name: str, is_known_to_fail: Callable[[Sequence[str]], bool]) -> Trial | None:
        """A new trial of that name; None when there is none. Draws that are known to fail are told so, and not returned."""
        for attempt in range(DUPLICATES_BEFORE_THE_END):
            draw = self._sampler.ask() if attempt < DUPLICATES_BEFORE_THE_GRID else self._draw_from_grid()
            if draw is None:
                break
            chain = self._chains.chain(draw.recipe, draw.params)
            twin = self._by_last_stage.get(chain[-1].stage_id)
            if twin is not None:
                self._tell_as(draw, twin)
            elif is_known_to_fail([task.stage_id for task in chain]):
                self._sampler.tell(draw.ticket, Outcome(kind="failed"))
            else:
                return self._plan_new(name, draw, chain)
        self.exhausted = True
        return None

    def take_up(self, record: TrialRecord) -> Trial:
        """A trial that was under way before, or was pruned, from its first stage on: what is in the store is reused."""
        point = self._points.get(record.trial)
        params = record.params if point is None else point
        chain = self._chains.chain(record.recipe, params)
        self._by_last_stage.pop(record.stage_ids[-1], None)
        record.begin_again([task.stage_id for task in chain])
        record.config_id = config_fingerprint(chain)
        self._by_last_stage[record.stage_ids[-1]] = record
        return Trial(record=record, chain=chain, draw=self._sampler.take(record.recipe, params))

    def tell(self, planned: Trial) -> None:
        """The trial has ended."""
        for draw in (planned.draw, *self._duplicates.pop(planned.record.trial, ())):
            self._tell(draw, planned.record)

    def _draw_from_grid(self) -> Draw | None:
        """A point of a finite space that has not been tried; where there are no end of points, another draw."""
        if self._grid is None:
            return self._sampler.ask()
        for recipe, params in self._grid:
            if self._chains.chain(recipe, params)[-1].stage_id not in self._by_last_stage:
                return self._sampler.take(recipe, params)
        return None

    def _tell_as(self, draw: Draw, twin: TrialRecord) -> None:
        if twin.ended:
            self._tell(draw, twin)
        else:
            self._duplicates[twin.trial].append(draw)

    def _tell(self, draw: Draw, record: TrialRecord) -> None:
        outcome = _outcome(record)
        self._sampler.tell(draw.ticket, outcome)
        record.told.append(ToldDraw(draw=draw.ticket, recipe=draw.recipe, params=draw.params, outcome=outcome))
        self._changed(record)

    def _point_of_draw(self, record: TrialRecord, draw: ToldDraw) -> dict[str, Any] | None:
        if (draw.recipe, draw.params) == (record.recipe, record.params):
            return self._points[record.trial]
        return _point_in(self._chains, record, draw.recipe, draw.params)

    def _plan_new(self, name: str, draw: Draw, chain: Chain) -> Trial:
        record = TrialRecord(
            trial=name,
            recipe=draw.recipe,
            params=draw.params,
            stages=[task.config.name for task in chain],
            stage_ids=[task.stage_id for task in chain],
            kinds=[kind_of(task.config) for task in chain],
            config_id=config_fingerprint(chain),
        )
        self._by_last_stage[record.stage_ids[-1]] = record
        return Trial(record=record, chain=chain, draw=draw)


def _point_in(chains: ChainBuilder, record: TrialRecord, recipe: str, params: Mapping[str, Any]) -> dict[str, Any] | None:
    """Parameters as a point of the tree's search; None where they would not make the same model and stages there as the trial's."""
    point = chains.search.point_of(recipe, params)
    same = point is not None and config_fingerprint(chains.chain(recipe, point)) == record.config_id
    return point if same else None


def _outcome(record: TrialRecord) -> Outcome:
    if record.status == "finished":
        return Outcome(kind="score", value=record.score)
    if record.status == "pruned" and record.stopped is not None:
        # Optuna ranks pruned trials by how far they came: a middle is one step, an end is two.
        index = record.stages.index(record.stopped.rung.stage)
        return Outcome(kind="pruned", value=record.stopped.score, step=2 * index + (1 if record.stopped.rung.epoch else 2))
    return Outcome(kind="failed")
