"""How far a stage has come, and what it says of each epoch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from birdclef_core.errors import TrainingError
from birdclef_core.stages.throughput import Throughput


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """What one epoch did. Scores are of the stage's own label space."""

    epoch: int
    """From 1 to the stage's number of epochs."""
    is_last: bool
    """Whether the stage is published with it; an early stop makes it less than the stage's number of epochs."""
    train_loss: float
    learning_rate: float
    clips_per_s: float
    waited_s: float
    """Time that training stood still for data."""
    device_s: float
    """Time that the device worked on training steps."""
    evaluate_s: float
    epoch_s: float
    """Training, evaluation and checkpoints together."""
    memory_bytes: int
    """Peak: of the GPU by this process; without a GPU, of the process."""
    bottleneck: str
    """One line: what held training up and which flag would help."""
    waits_for_data: bool
    scores: dict[str, float]
    """Of the weights as they would be published after this epoch; after the last one, of those that are."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Progress:
    """What a stage has behind it; kept in its checkpoints."""

    epoch: int = 0
    """Complete epochs."""
    step: int = 0
    """Steps done of the epoch under way."""
    checkpoints: int = 0
    """Written so far, and the number of the newest."""
    cost_s: float = 0.0
    """Of the complete epochs."""
    under_way: Throughput = field(default_factory=Throughput)
    """Of the epoch under way."""
    best_epoch: int = 0
    """The one with the best score so far, from 1; kept with an early stop only."""
    best_score: float = 0.0
    averaged: int = 0
    """Epochs in the mean over the last ones."""
    origin: str = ""
    """Where the first weights came from, in one line."""
    micro_batch_size: int = 0
    compiled: bool | None = None
    """Whether the encoder runs compiled; None: not tried yet."""
    history: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Progress":
        return cls(**{**values, "under_way": Throughput(**values["under_way"])})


class LossLog:
    """The losses of an epoch's steps, on the device until they are asked for."""

    def __init__(self, recording_ids: NDArray[np.object_], where: str, num_steps: int, earlier: Tensor | None = None) -> None:
        """`earlier` are the losses of steps before an interruption, on the CPU."""
        self._recording_ids, self._where, self._num_steps = recording_ids, where, num_steps
        self._checked = torch.empty(0) if earlier is None else earlier
        self._losses: list[Tensor] = []
        self._rows: list[Tensor] = []

    def add(self, loss: Tensor, rows_B: Tensor) -> None:
        """The loss of the next step and the recordings of its batch."""
        self._losses.append(loss)
        self._rows.append(rows_B)

    def all(self) -> Tensor:
        """All losses so far. Waits for the device. Raises TrainingError, naming step and recordings, if one is not finite."""
        if self._losses:
            losses = torch.stack(self._losses).cpu()
            bad = torch.nonzero(~torch.isfinite(losses))
            if len(bad):
                first = int(bad[0])
                self._refuse(len(self._checked) + first, float(losses[first]), self._rows[first])
            self._checked = torch.cat((self._checked, losses))
            self._losses, self._rows = [], []
        return self._checked

    def _refuse(self, step: int, loss: float, rows_B: Tensor) -> None:
        names: Sequence[str] = self._recording_ids[rows_B.numpy()].tolist()
        raise TrainingError(
            f"The loss must be finite, but is {loss} in {self._where}, step {step + 1} of {self._num_steps}; a lower learning rate "
            f"or --set clip_gradient_norm=1 may help. Recordings of the batch: {', '.join(names)}."
        )
