"""What is in a store at a glance: a few lines for each published stage, kept with its pointer, so that plans, listings and
collecting garbage read one small file a stage and not its record.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from birdclef_core.identity import fingerprint

SCORE = "cmap_pad5"
IMPORTED = "imported"
"""Stands for the code, and in front of the first weights, of a stage that was not trained here."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A figure that varied over the epochs of a stage."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        """Lowest, median and highest; without the first of several, in which kernels are chosen and caches are cold."""
        values = values[1:] if len(values) > 2 else values
        return cls(low=min(values), middle=statistics.median(values), high=max(values)) if values else None

    def scaled(self, factor: float) -> "Spread":
        """In another unit."""
        return Spread(low=self.low * factor, middle=self.middle * factor, high=self.high * factor)


@dataclass(frozen=True, kw_only=True)
class StageSummary:
    """A published stage."""

    stage_id: str
    parent_id: str | None
    recipe: str
    stage: str
    score: float
    """`cmap_pad5` in the stage's own label space."""
    epochs: int
    cost_s: float
    num_bytes: int
    device: str
    finished_at: str
    work: str
    """Hash of all that the time for one clip depends on, device and clip length apart: model, precision, what is frozen."""
    clip_s: float
    config: str
    """Hash of model and stage as they were configured."""
    label_space: str
    data: str
    """Fingerprint of the recordings."""
    code: str
    start: str
    """First weights of a stage without a parent, else empty."""
    clips_per_s: Spread | None
    """Training alone."""
    evaluate_s: Spread | None
    """One evaluation."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "StageSummary":
        spreads = {name: values[name] and Spread(**values[name]) for name in ("clips_per_s", "evaluate_s")}
        return cls(**{**values, **spreads})


def summarise_record(record: Any, num_bytes: int) -> StageSummary:
    """The summary of a StageRecord."""
    config, model = record.identity.get("stage", {}), record.identity.get("model", {})
    return StageSummary(
        stage_id=record.stage_id,
        parent_id=record.parent_id,
        recipe=record.recipe,
        stage=record.stage,
        score=record.metrics.get(SCORE, float("nan")),
        epochs=len(record.history),
        cost_s=record.cost_s,
        num_bytes=num_bytes,
        device=record.environment.get("device", ""),
        finished_at=record.finished_at,
        work=work_of(model, config),
        clip_s=config.get("clip_s", 0.0),
        config=fingerprint([model, config])[:16],
        label_space=record.identity.get("label_space", ""),
        data=record.identity.get("data", ""),
        code=record.identity.get("code", ""),
        start="" if record.parent_id else record.identity.get("parent", ""),
        clips_per_s=Spread.of([epoch["clips_per_s"] for epoch in record.history if "clips_per_s" in epoch]),
        evaluate_s=Spread.of([epoch["evaluate_s"] for epoch in record.history if "evaluate_s" in epoch]),
    )


def work_of(model: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """See StageSummary.work; from the canonical forms of ModelConfig and StageConfig."""
    return fingerprint([model, config.get("precision"), config.get("freeze_encoder")])[:16]
