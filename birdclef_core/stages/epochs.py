"""What a stage in training knows of itself: the metrics of each epoch, the counters in its epoch checkpoints, its losses."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from birdclef_core.errors import TrainingError
from birdclef_core.stages.throughput import Throughput


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """Metrics of one epoch. Scores are in the stage's own label space."""

    epoch: int
    """Number of the epoch, from 1 to the stage's number of epochs."""
    is_last: bool
    """Whether the stage is published after it; with an early stop the stage has fewer epochs than configured."""
    train_loss: float
    """Mean loss over the epoch's steps."""
    learning_rate: float
    """That of the head in the epoch's last step."""
    clips_per_s: float
    """Clips trained per second, evaluation not included."""
    waited_s: float
    """Seconds in which training waited for data."""
    device_s: float
    """Seconds in which the device worked on training steps."""
    evaluate_s: float
    """Seconds of the evaluation."""
    epoch_s: float
    """Seconds of training, evaluation and epoch checkpoints together."""
    memory_bytes: int
    """Peak memory: of the GPU by this process; without a GPU, of this process."""
    bottleneck: str
    """One line on what held training up and which flag would help."""
    waits_for_data: bool
    """Whether training waited for data more than a little."""
    scores: dict[str, float]
    """Scores of the weights that would be published after this epoch; after the last one, of those that are."""
    time_s: float
    """Unix time at which it ended."""


def ignore_epochs(epochs: Sequence[EpochMetrics]) -> None:
    """Do nothing with the epochs that a stage goes on from."""


def metrics_of_hearing(
    num_windows: int, *, heard_s: float, evaluate_s: float, all_s: float, scores: dict[str, float]
) -> EpochMetrics:
    """Return the metrics of a stage that trains nothing and hears windows once. `all_s`: with earlier attempts."""
    return EpochMetrics(
        epoch=1,
        is_last=True,
        train_loss=0.0,
        learning_rate=0.0,
        clips_per_s=num_windows / (all_s - evaluate_s),
        waited_s=0.0,
        device_s=heard_s,
        evaluate_s=evaluate_s,
        epoch_s=all_s,
        memory_bytes=0,
        bottleneck="",
        waits_for_data=False,
        scores=scores,
        time_s=time.time(),
    )


@dataclass
class StageCounters:
    """The counters of a stage in training, `counters.json` of its epoch checkpoints."""

    epoch: int = 0
    """Number of complete epochs."""
    step: int = 0
    """Number of steps done in the present epoch."""
    checkpoints: int = 0
    """Number of epoch checkpoints written, which is the number of the newest."""
    cost_s: float = 0.0
    """Device seconds of the complete epochs."""
    under_way: Throughput = field(default_factory=Throughput)
    """Throughput of the present epoch so far."""
    best_epoch: int = 0
    """The epoch with the best score so far, from 1; 0 without an early stop."""
    best_score: float = 0.0
    """The score of `best_epoch`."""
    averaged: int = 0
    """Number of epochs in the mean over the last ones."""
    origin: str = ""
    """One line on where the first weights came from."""
    micro_batch_size: int = 0
    """Clips that go through the model at once; 0 before the first epoch checkpoint."""
    compiled: bool | None = None
    """Whether the encoder runs compiled; None: not tried yet."""
    history: list[EpochMetrics] = field(default_factory=list)
    """Metrics of the complete epochs."""


class LossLog:
    """The losses of an epoch's steps. They stay on the device until they are asked for."""

    def __init__(self, recording_ids: NDArray[np.object_], where: str, num_steps: int, earlier: Tensor | None = None) -> None:
        """`recording_ids`: by the dataset's rows; `earlier`: losses of the steps before an interruption, on the CPU."""
        self._recording_ids, self._where, self._num_steps = recording_ids, where, num_steps
        self._checked = torch.empty(0) if earlier is None else earlier
        self._losses: list[Tensor] = []
        self._rows: list[Tensor] = []

    def add(self, loss: Tensor, rows_B: Tensor) -> None:
        """Add the loss of the next step and the recordings of its batch."""
        self._losses.append(loss)
        self._rows.append(rows_B)

    def all(self) -> Tensor:
        """Return all losses so far; waits for the device. Raises TrainingError, naming step and recordings, if one is not finite."""
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
