"""What a sweep leaves when it ends: its best trial, and the files in the sweep's `result/` folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from birdclef_core.json_files import to_json
from birdclef_core.store.leakage import NO_LEAK, Leak
from birdclef_core.store.stage_store import StageStore
from sweeps.objective import Objective
from sweeps.run.ranking import leak_lines, ranked_markdown, ranking
from sweeps.run.tree_picture import MAX_TRIALS, tree_page
from sweeps.schedule.records import SweepRecord, TrialRecord

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
    """The finished trial with the best score; None when no trial has finished."""
    best_checkpoint: str | None
    """Where the weights of the best trial's last stage are."""
    interrupted: bool
    """Whether it was stopped before its end."""
    leaks: Mapping[str, Leak] = field(default_factory=dict)
    """The leak into the scores of each trial that has one, or may have one, by the trial's name."""


def sweep_result(sweep: SweepRecord, trials: Sequence[TrialRecord], store: StageStore, *, interrupted: bool) -> SweepResult:
    """Find the best trial and its checkpoint."""
    best = next((record for record in ranking(list(trials)) if record.score is not None), None)
    checkpoint = store.location(best.stage_ids[-1]) if best else None
    return SweepResult(
        name=sweep.name,
        trials=list(trials),
        objective=Objective.of(sweep.parts[-1].search.objective),
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
    """Write `ranking.md`, `trials.json` and `tree.html` into a folder."""
    folder.mkdir(exist_ok=True)
    ranked = ranking(result.trials)
    (folder / "ranking.md").write_text(ranked_markdown(result.trials, result.objective, result.leaks) + "\n")
    (folder / "trials.json").write_text(to_json(ranked, indent=1))
    summaries = store.summaries({stage_id for record in ranked[:MAX_TRIALS] for stage_id in record.reached_ids()})
    title = "; ".join([result.name, *leak_lines(result.leaks)])
    (folder / "tree.html").write_text(tree_page(result.trials, summaries, result.objective, title))
