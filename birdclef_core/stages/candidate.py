"""The weights that a stage would publish if it ended now: the latest, an average of them, or the best epoch's."""

from contextlib import AbstractContextManager, nullcontext

from torch import nn

from birdclef_core.config import StageConfig
from birdclef_core.stages.averaging import WeightAverage, copy_state, ema_share, load_state
from birdclef_core.stages.checkpoint import State
from birdclef_core.stages.epochs import StageCounters


class CandidateWeights:
    """Keeps the candidate weights of a model during a stage. Its counters are in `counters`, its tensors in the checkpoint's groups."""

    def __init__(self, model: nn.Module, config: StageConfig, counters: StageCounters, groups: dict[str, State]) -> None:
        """Start from the groups of the checkpoint that the stage continues from; a new stage has none."""
        self._model, self._config, self._counters = model, config, counters
        self._average: WeightAverage | None = None
        if "average" in groups or config.ema_decay:
            self._average = WeightAverage(model, groups.get("average"))
        self._best = groups.get("best")

    def after_step(self, step: int) -> None:
        """Update the moving average. Call this when step `step` of the stage, counted from 0, is done."""
        if self._config.ema_decay and self._average is not None:
            self._average.update(ema_share(self._config.ema_decay, step))

    def after_epoch(self, epoch: int) -> None:
        """Add the weights at the end of an epoch (counted from 0) to the mean over the last epochs. A second call does nothing."""
        number = epoch - (self._config.epochs - self._config.average_epochs) + 1
        if self._config.average_epochs == 1 or number <= self._counters.averaged:
            return
        if self._average is None:
            self._average = WeightAverage(self._model)
        self._average.update(1 / number)
        self._counters.averaged = number

    def in_model(self) -> AbstractContextManager[None]:
        """Give the model the candidate weights within the block."""
        return nullcontext() if self._average is None else self._average.in_model()

    def judge(self, epoch: int, score: float) -> bool:
        """Note the score of an epoch (counted from 0). Return whether the score has not risen for so long that the stage ends."""
        patience, counters = self._config.early_stop_epochs, self._counters
        if patience is None:
            return False
        if not counters.best_epoch or score > counters.best_score:
            counters.best_epoch, counters.best_score = epoch + 1, score
            with self.in_model():
                self._best = copy_state(self._model)
        return epoch + 1 - counters.best_epoch >= patience

    def take_best(self, epoch: int) -> bool:
        """Load the best epoch's weights into the model for good. Return False if `epoch` (counted from 0) is the best, or none is kept."""
        if self._best is None or self._counters.best_epoch == epoch + 1:
            return False
        load_state(self._model, self._best)
        self._average = None
        return True

    def groups(self) -> dict[str, State]:
        """Return the groups of tensors that a checkpoint must hold."""
        groups = {} if self._average is None else {"average": self._average.state}
        return groups if self._best is None else groups | {"best": self._best}
