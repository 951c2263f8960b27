"""Stages in a store that nobody has trained."""

from pathlib import Path

from safetensors.torch import save_file
from torch import zeros

from birdclef_core.store.stage_store import WEIGHTS, StageRecord, StageStore


def publish(store: StageStore, stage_id: str, *, num_floats: int = 1, **values) -> StageRecord:
    """Publishes a stage of about `4 * num_floats` bytes; `values` replace fields of its record."""
    record = StageRecord(
        **{
            "stage_id": stage_id,
            "parent_id": None,
            "recipe": "tiny",
            "stage": "train_ce",
            "identity": {"a": 1},
            "species": ["x"],
            "metrics": {"cmap": 0.5},
            "history": [],
            "cost_s": 2.0,
            "surgery": "",
            "environment": {"device": "cpu"},
            "finished_at": "2026-11-22T12:00:00+00:00",
            **values,
        }
    )
    with store.publish(lambda: record, stage_id) as folder:
        save_file({"w": zeros(num_floats)}, folder / WEIGHTS)
    return record


def weights_path(store: StageStore, stage_id: str) -> Path:
    """The weights file of a stage in a local store."""
    return Path(store.location(stage_id))
