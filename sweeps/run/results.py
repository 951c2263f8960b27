"""What a sweep leaves when it ends: its best trial, and the files in the sweep's `result/` folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from birdclef_core.json_files import to_json
from birdclef_core.store.stage_store import StageStore
from sweeps.run.ranking import ranked_markdown, ranking
from sweeps.run.tree_picture import MAX_TRIALS, tree_page
from sweeps.schedule.records import TrialRecord

RESULT_FOLDER = "result"


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """How a sweep ended."""

    name: str
    trials: list[TrialRecord]
    best: TrialRecord | None
    """The finished trial with the best score; None when no trial has finished."""
    best_checkpoint: str | None
    """Where the weights of the best trial's last stage are."""
    interrupted: bool
    """Whether it was stopped before its end."""


def sweep_result(name: str, trials: Sequence[TrialRecord], store: StageStore, *, interrupted: bool) -> SweepResult:
    """Find the best trial and its checkpoint."""
    best = next((record for record in ranking(list(trials)) if record.score is not None), None)
    checkpoint = store.location(best.stage_ids[-1]) if best else None
    return SweepResult(name=name, trials=list(trials), best=best, best_checkpoint=checkpoint, interrupted=interrupted)


def write_result(folder: Path, result: SweepResult, store: StageStore) -> None:
    """Write `ranking.md`, `trials.json` and `tree.html` into a folder."""
    folder.mkdir(exist_ok=True)
    ranked = ranking(result.trials)
    (folder / "ranking.md").write_text(ranked_markdown(result.trials) + "\n")
    (folder / "trials.json").write_text(to_json(ranked, indent=1))
    summaries = store.summaries({stage_id for record in ranked[:MAX_TRIALS] for stage_id in record.reached_ids()})
    (folder / "tree.html").write_text(tree_page(result.trials, summaries, result.name))
