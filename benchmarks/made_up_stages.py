"""The record of a made-up stage, for benchmarks that publish stages without training."""

from birdclef_core.stages.task import StageTask
from birdclef_core.store.stage_store import StageRecord


def made_up_record(task: StageTask, *, trained_by: str = "") -> StageRecord:
    """Return the record of a stage that a trial (`trained_by`) is said to have trained on a CPU."""
    return StageRecord(
        stage_id=task.stage_id,
        parent_id=task.parent_id,
        recipe=task.recipe,
        stage=task.config.name,
        identity=task.identity,
        species=["x"],
        metrics={"cmap": 0.5},
        history=[{"epoch": 1}],
        cost_s=1.0,
        surgery="",
        environment={"device": "cpu"},
        finished_at="2026-11-22T12:00:00+00:00",
        trained_by=trained_by,
    )
