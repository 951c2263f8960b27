"""What a running trial sends its driver."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

UpdateKind = Literal["epoch", "reused", "failed", "held", "unfit"]


@dataclass(frozen=True, kw_only=True)
class EpochPoint:
    """One epoch of a stage, as it is tracked."""

    epoch: int
    """Number of the epoch, from 1."""
    metrics: dict[str, float]
    """As in TrialUpdate."""
    time_s: float
    """Unix time at which it ended, as the stage's own record has it: so an epoch that is told again is told the same."""


@dataclass(kw_only=True)
class TrialUpdate:
    """What a trial sends its driver, in plain JSON types.

    It sends `epoch` after each epoch that it has trained, `reused` for each stage that it finds in the store, `failed` when it
    cannot go on, and `held` when its next stage is being trained by another trial: then it is run again later. `unfit` says that the
    worker's node cannot train anything, which is no fault of the trial: it is run again elsewhere.
    """

    kind: UpdateKind
    stage: str
    """Name of the stage."""
    stage_index: int
    """Place of the stage in the trial's chain, from 0."""
    stage_id: str
    epoch: int
    """Number of the epoch, from 1; of a reused stage its last."""
    epochs: int
    """Number of epochs of the stage; after an early stop the last one."""
    score: float
    """The objective, for the stage's own label space; NaN at an epoch that was not scored for it."""
    error: float = 0.0
    """Standard error of the score; 0 where it is not known, as before the end of a stage."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Metrics by the names under which they are tracked: `val/...` for the target species, `val_all/...` for all species,
    `val_soundscapes/...` for the target species in labelled soundscapes, `train/...`."""
    cost_s: float = 0.0
    """Device seconds: spent on the epoch, or saved by the reused stage."""
    is_own: bool = False
    """Whether a reused stage was trained by this trial."""
    message: str = ""
    """Why the trial failed or the node cannot train, or something the user should know, such as a damaged checkpoint."""
    device: str = ""
    """Name of the device on which the trial runs."""
    node: str = ""
    """Id of the Ray node on which the trial runs."""
    time_s: float = 0.0
    """Unix time in seconds; of an epoch, when it ended."""
    earlier: list[EpochPoint] = field(default_factory=list)
    """Epochs of the stage before this update which the driver may not have heard of, because a worker or a driver was lost: all that the
    stage goes on from, with the first update after a start, and all epochs of a reused stage that the trial has trained itself."""
    done: bool = False
    """Whether this is the trial's last update."""

    @property
    def stage_done(self) -> bool:
        """Whether the stage is at its end."""
        return self.kind in ("epoch", "reused") and self.epoch == self.epochs

    def to_result(self) -> dict[str, Any]:
        """The update as a result of Tune."""
        return asdict(self)

    @classmethod
    def from_result(cls, result: dict[str, Any]) -> "TrialUpdate":
        """The update in a result of Tune, which has other entries too and may have been flattened."""
        values = {name: result[name] for name in cls.__dataclass_fields__ if name in result}
        if "metrics" not in values:
            values["metrics"] = {key[8:]: value for key, value in result.items() if key.startswith("metrics/")}
        values["earlier"] = [EpochPoint(**point) for point in values.get("earlier", ())]
        return cls(**values)
