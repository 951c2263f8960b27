"""What a sweep leaves when it ends: its best trial, and the files in the sweep's `result/` folder."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from birdclef_core.json_files import to_json
from birdclef_core.reports.stage_report import CARD
from birdclef_core.store.leakage import NO_LEAK, Leak
from birdclef_core.store.stage_store import StageStore
from sweeps.objective import Objective
from sweeps.report.ranking import leak_lines, ranked_markdown, ranking, score_of
from sweeps.report.table import trials_table
from sweeps.report.tree_picture import MAX_TRIALS, tree_page
from sweeps.schedule.records import SweepRecord, TrialRecord, best_trials

RESULT_FOLDER = "result"
NOT_RECORDED = Leak(
    num_validation=0, num_trained=0, num_by_author=0, unknown=("an older version of the code did not look for it",)
)
"""For trials of a part whose record says nothing of leaks."""


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """How a sweep ended."""

    name: str
    trials: list[TrialRecord]
    objective: Objective
    """What the trials are compared by."""
    best: TrialRecord | None
    """The finished trial with the best score; None when no trial has finished. Also where there is a Pareto front."""
    best_checkpoint: str | None
    """Where the weights of the best trial's last stage are."""
    interrupted: bool
    """Whether it was stopped before its end."""
    leaks: Mapping[str, Leak] = field(default_factory=dict)
    """The leak into the scores of each trial that has one, or may have one, by the trial's name."""

    @property
    def front(self) -> list[TrialRecord]:
        """The trials of the Pareto front, the best score first; none where trials are compared by their scores alone."""
        return [] if self.objective.cost is None else best_trials(self.trials, self.objective)


@dataclass(frozen=True, kw_only=True)
class FrontEntry:
    """A trial of the Pareto front, as `pareto_front.json` has it."""

    trial: str
    recipe: str
    score: float
    error: float | None
    """Standard error of the score; None where it is not known."""
    cost: float
    checkpoint: str
    """Where the weights of its last stage are."""


def sweep_result(sweep: SweepRecord, trials: Sequence[TrialRecord], store: StageStore, *, interrupted: bool) -> SweepResult:
    """Find the best trial and its checkpoint."""
    objective = sweep.objective
    best = next(iter(best_trials(trials, objective)), None)
    checkpoint = store.location(best.stage_ids[-1]) if best else None
    return SweepResult(
        name=sweep.name,
        trials=list(trials),
        objective=objective,
        best=best,
        best_checkpoint=checkpoint,
        interrupted=interrupted,
        leaks=leaks_of(sweep, trials),
    )


def leaks_of(sweep: SweepRecord, trials: Sequence[TrialRecord]) -> dict[str, Leak]:
    """Return the leak into the scores of each trial that has one, or may have one. Every part of a sweep has its own start stage."""
    leaks: dict[str, Leak] = {}
    ends = [*(part.first_trial for part in sweep.parts[1:]), len(trials)]
    for part, end in zip(sweep.parts, ends, strict=True):
        leak = part.leak or (NOT_RECORDED if part.options.from_stage else NO_LEAK)
        if leak.mark:
            leaks |= {record.trial: leak for record in trials[part.first_trial : end]}
    return leaks


def write_result(folder: Path, result: SweepResult, store: StageStore) -> None:
    """Write `ranking.md`, `trials.json`, `trials.csv` and `tree.html` into a folder, and `pareto_front.json` where there is a front."""
    folder.mkdir(exist_ok=True)
    ranked = ranking(result.trials, result.objective)
    (folder / "ranking.md").write_text(ranked_markdown(result.trials, result.objective, result.leaks) + "\n")
    (folder / "trials.json").write_text(to_json(ranked, indent=1))
    trials_table(result.trials, result.objective).to_csv(folder / "trials.csv")
    if result.objective.cost is not None:
        front = {"objective": str(result.objective), "trials": [_front_entry(record, result, store) for record in result.front]}
        (folder / "pareto_front.json").write_text(to_json(front, indent=1))
    summaries = store.summaries({stage_id for record in ranked[:MAX_TRIALS] for stage_id in record.reached_ids()})
    title = "; ".join([result.name, *leak_lines(result.leaks)])
    cards = card_links(store, summaries, folder)
    (folder / "tree.html").write_text(tree_page(result.trials, summaries, result.objective, title, cards))


def card_links(store: StageStore, stage_ids: Iterable[str], folder: Path) -> dict[str, str]:
    """Return the addresses of stages' cards as seen from a folder: in the store if it is local, else in the copies of the sweep's folder."""
    if not store.storage.is_local:
        copies = {stage_id: f"../reports/{stage_id[:16]}/{CARD}" for stage_id in stage_ids}
        return {stage_id: copy for stage_id, copy in copies.items() if (folder / copy).exists()}
    cards = {stage_id: Path(store.location(stage_id)).with_name(CARD) for stage_id in stage_ids}
    return {stage_id: quote(os.path.relpath(card, folder.resolve())) for stage_id, card in cards.items() if card.exists()}


def _front_entry(record: TrialRecord, result: SweepResult, store: StageStore) -> FrontEntry:
    score = score_of(record, result.objective)
    return FrontEntry(
        trial=record.trial,
        recipe=record.recipe,
        score=score.value,
        error=score.error,
        cost=record.costs[result.objective.cost or ""],
        checkpoint=store.location(record.stage_ids[-1]) or "",
    )
