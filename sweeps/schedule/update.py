"""What a trial updates to its driver, and the names under which its scores are tracked."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from birdclef_core.stages.training import SOUNDSCAPES

SCORE = "cmap_pad5"


UpdateKind = Literal["epoch", "reused", "published", "failed", "held"]


@dataclass(kw_only=True)
class TrialUpdate:
    """What a trial tells its driver: after each epoch, for each reused stage, when it fails, and when its next stage is being
    trained by another sweep (`held`: the trial is to be run again later). The driver makes `published` of a reused stage that the
    trial itself had trained and was killed before it could say so. Plain JSON types."""

    kind: UpdateKind
    stage: str
    stage_index: int
    stage_id: str
    epoch: int
    epochs: int
    score: float
    """`cmap_pad5` in the stage's own label space: what trials are compared by at the same stage."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Under the names they are tracked by: `val/...` for the target species, `val_all/...` for all species,
    `val_soundscapes/...` for the target species in labelled soundscapes, `train/...`."""
    cost_s: float = 0.0
    """Device seconds: spent since the last update, or saved by a reused stage."""
    is_own: bool = False
    """Of a reused stage: whether this trial has trained it."""
    message: str = ""
    """Why the trial failed, or what the user should know (a damaged checkpoint, for one)."""
    device: str = ""
    node: str = ""
    """Of a Ray cluster, where the trial runs."""
    time_s: float = 0.0
    """Seconds since the epoch, Unix time."""
    done: bool = False

    @property
    def stage_done(self) -> bool:
        return self.kind in ("epoch", "reused", "published") and self.epoch == self.epochs

    def to_result(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_result(cls, result: dict[str, Any]) -> "TrialUpdate":
        """From a Tune result, which has other entries too and may have been flattened."""
        values = {name: result[name] for name in cls.__dataclass_fields__ if name in result}
        if "metrics" not in values:
            values["metrics"] = {key[8:]: value for key, value in result.items() if key.startswith("metrics/")}
        return cls(**values)


def tracked_name(label_space: str, name: str) -> str:
    """The name that a score is tracked by: `val_soundscapes/...` for those on soundscapes."""
    if name.startswith(SOUNDSCAPES):
        return f"val_{name}"
    return f"val/{name}" if label_space == "target" else f"val_{label_space}/{name}"
