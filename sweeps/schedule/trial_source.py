"""Where the trials of a sweep come from (new draws, and trials that go on), and how the sampler learns what became of them."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from sweeps.sampling.draws import Draw, Outcome, Told
from sweeps.sampling.study import Study
from sweeps.schedule.pruning import StageVerdicts, kind_of
from sweeps.schedule.records import ToldDraw, TrialRecord
from sweeps.schedule.trials import Trial, TrialBook
from sweeps.search.chains import Chain, ChainBuilder, config_fingerprint

DUPLICATES_BEFORE_THE_GRID = 10
DUPLICATES_BEFORE_THE_END = 50


class TrialSource:
    """Draws trials and reports their outcomes to the sampler. A configuration becomes one trial; its duplicates get the trial's score.

    What earlier drivers reported to their samplers is reported to this one, where it means the same in this search.
    """

    def __init__(self, chains: ChainBuilder, book: TrialBook, verdicts: StageVerdicts) -> None:
        self._chains, self._book, self._verdicts = chains, book, verdicts
        known = list(book.records.values())
        self._points = {record.trial: _point_in(chains, record, record.recipe, record.params) for record in known}
        draws = [draw.draw for record in known for draw in record.told]
        history = [
            (draw.draw, Told(recipe=draw.recipe, params=point, outcome=draw.outcome))
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
        self._by_last_stage = {record.stage_ids[-1]: record for record in known}
        self._duplicates: defaultdict[str, list[Draw]] = defaultdict(list)
        """Draws with the configuration of an open trial, by the trial's name."""
        self._grid = chains.search.points()
        self.exhausted = False
        """Whether the search space has nothing new to draw."""

    def means_the_same(self, record: TrialRecord) -> bool:
        """Whether an earlier trial is a point of this search: only then are its scores compared with those of new trials."""
        return self._points.get(record.trial) is not None

    def free_draws(self, waiting: int, max_running: int) -> int:
        """See `Study.free_draws`."""
        return self._study.free_draws(waiting, max_running)

    def draw(self, name: str) -> Trial | None:
        """A new trial of that name; None when there is none. A draw that needs a failed stage is reported to the sampler as failed
        and skipped."""
        for attempt in range(DUPLICATES_BEFORE_THE_END):
            draw = self._study.ask() if attempt < DUPLICATES_BEFORE_THE_GRID else self._draw_from_grid()
            if draw is None:
                break
            chain = self._chains.chain(draw.recipe, draw.params)
            twin = self._by_last_stage.get(chain[-1].stage_id)
            if twin is not None:
                self._tell_as(draw, twin)
            elif self._verdicts.failure([task.stage_id for task in chain]):
                self._study.tell(draw.ticket, Outcome(kind="failed"))
            else:
                return self._new_trial(name, draw, chain)
        self.exhausted = True
        return None

    def restart(self, record: TrialRecord) -> Trial:
        """A trial that was open before, or was pruned, from its first stage on. What is in the store is reused."""
        point = self._points.get(record.trial)
        params = record.params if point is None else point
        chain = self._chains.chain(record.recipe, params)
        self._by_last_stage.pop(record.stage_ids[-1], None)
        record.begin_again([task.stage_id for task in chain])
        record.config_id = config_fingerprint(chain)
        self._by_last_stage[record.stage_ids[-1]] = record
        return Trial(record=record, chain=chain, draw=self._study.take(record.recipe, params))

    def tell(self, trial: Trial) -> None:
        """Report the outcome of a trial that has ended, also for its duplicates."""
        for draw in (trial.draw, *self._duplicates.pop(trial.record.trial, ())):
            self._tell(draw, trial.record)

    def _draw_from_grid(self) -> Draw | None:
        """A point of a finite space that has not been tried; in an infinite space, another draw."""
        if self._grid is None:
            return self._study.ask()
        for recipe, params in self._grid:
            if self._chains.chain(recipe, params)[-1].stage_id not in self._by_last_stage:
                return self._study.take(recipe, params)
        return None

    def _tell_as(self, draw: Draw, twin: TrialRecord) -> None:
        if twin.ended:
            self._tell(draw, twin)
        else:
            self._duplicates[twin.trial].append(draw)

    def _tell(self, draw: Draw, record: TrialRecord) -> None:
        outcome = _outcome(record)
        self._study.tell(draw.ticket, outcome)
        record.told.append(ToldDraw(draw=draw.ticket, recipe=draw.recipe, params=draw.params, outcome=outcome))
        self._book.mark_changed(record)

    def _point_of_draw(self, record: TrialRecord, draw: ToldDraw) -> dict[str, Any] | None:
        if (draw.recipe, draw.params) == (record.recipe, record.params):
            return self._points[record.trial]
        return _point_in(self._chains, record, draw.recipe, draw.params)

    def _new_trial(self, name: str, draw: Draw, chain: Chain) -> Trial:
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
    """Parameters as a point of the search; None where they would make another model or other stages than the trial's."""
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
