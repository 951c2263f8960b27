"""What an epoch of a stage will cost: from what stages in the store cost on this device, else from a short calibration."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from birdclef_core.config import StageConfig
from birdclef_core.data.dataset import Dataset
from birdclef_core.data.targets import training_table, validation_truth
from birdclef_core.stages.training import StageTask
from birdclef_core.store.summary import Spread, StageSummary, work_of

Basis = Literal["measured", "scaled", "calibrated"]

EVALUATED_S = 60.0
FORWARD_SHARE = 1 / 3
"""Of a training step's time, a forward pass without gradients: one of three passes of like size."""
SCALING_ERROR = 1.25
"""Time for a clip grows with its length, but not exactly; and calibration knows nothing of waiting for data."""


@dataclass(frozen=True, kw_only=True)
class DataSize:
    """How much a stage trains and is scored on, for one label space."""

    num_training: int
    """Recordings, which is how many clips an epoch has unless the stage says otherwise."""
    evaluated_s_R: NDArray[np.float64]
    """Of each validation recording, the seconds that are scored."""

    @classmethod
    def of(cls, dataset: Dataset, name: str) -> "DataSize":
        space = dataset.all_species if name == "all" else dataset.target_species
        rows_R, _ = validation_truth(dataset, space)
        durations = dataset.recordings["duration_s"].to_numpy(dtype=np.float64)[rows_R]
        return cls(num_training=len(training_table(dataset, space).rows_R), evaluated_s_R=np.minimum(durations, EVALUATED_S))

    def clips(self, config: StageConfig) -> int:
        """Training clips of an epoch."""
        return max(1, (config.clips_per_epoch or self.num_training) // config.batch_size) * config.batch_size

    def windows(self, config: StageConfig) -> int:
        """Windows of an evaluation."""
        return int(np.maximum(1, np.ceil(self.evaluated_s_R / config.clip_s)).sum())


@dataclass(frozen=True, kw_only=True)
class EpochCost:
    """Device seconds of one epoch, evaluation included."""

    low_s: float
    middle_s: float
    high_s: float
    basis: Basis


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """How fast some kind of work goes on a device."""

    work: str
    clip_s: float
    clips_per_s: Spread
    data: str = ""
    evaluate_s: Spread | None = None
    """On the recordings with that fingerprint."""
    calibrated: bool = False


class CostModel:
    """Estimates epochs from measurements on one device."""

    def __init__(self, measurements: Iterable[Measurement], sizes: Mapping[str, DataSize], data: str) -> None:
        """`sizes` by label space; `data`: the fingerprint of the recordings that will be trained on."""
        self._sizes, self._data = sizes, data
        self._by_work: defaultdict[str, list[Measurement]] = defaultdict(list)
        for measurement in measurements:
            self.add(measurement)

    def add(self, measurement: Measurement) -> None:
        self._by_work[measurement.work].append(measurement)

    def epoch(self, task: StageTask) -> EpochCost | None:
        """None when nothing is known of the model on this device."""
        known = self._by_work.get(work_of_task(task))
        if not known:
            return None
        nearest = min(known, key=lambda item: (item.calibrated, abs(item.clip_s - task.config.clip_s))).clip_s
        like = [item for item in known if item.clip_s == nearest]
        like = [item for item in like if not item.calibrated] or like
        scale = nearest / task.config.clip_s
        rough = SCALING_ERROR if nearest != task.config.clip_s or like[0].calibrated else 1.0
        train = self._seconds(task, like, scale, rough)
        evaluate = self._evaluation(task, like, train)
        basis: Basis = "calibrated" if like[0].calibrated else "measured" if rough == 1.0 else "scaled"
        return EpochCost(
            low_s=train.low + evaluate.low,
            middle_s=train.middle + evaluate.middle,
            high_s=train.high + evaluate.high,
            basis=basis,
        )

    def clips(self, task: StageTask) -> int:
        return self._sizes[task.config.label_space].clips(task.config)

    def _seconds(self, task: StageTask, like: list[Measurement], scale: float, rough: float) -> Spread:
        clips = self.clips(task) / scale
        return Spread(
            low=clips / max(item.clips_per_s.high for item in like) / rough,
            middle=clips / statistics.median(item.clips_per_s.middle for item in like),
            high=clips / min(item.clips_per_s.low for item in like) * rough,
        )

    def _evaluation(self, task: StageTask, like: list[Measurement], train: Spread) -> Spread:
        same = [item.evaluate_s for item in like if item.evaluate_s and item.data == self._data]
        if same:
            middle = statistics.median(item.middle for item in same)
            return Spread(low=min(item.low for item in same), middle=middle, high=max(item.high for item in same))
        share = FORWARD_SHARE * self._sizes[task.config.label_space].windows(task.config) / self.clips(task)
        return Spread(low=share * train.low / SCALING_ERROR, middle=share * train.middle, high=share * train.high * SCALING_ERROR)


def measured(summaries: Iterable[StageSummary], device: str) -> list[Measurement]:
    """What the stages of a store tell of a device."""
    return [
        Measurement(work=item.work, clip_s=item.clip_s, clips_per_s=item.clips_per_s, data=item.data, evaluate_s=item.evaluate_s)
        for item in summaries
        if item.device == device and item.clips_per_s is not None and item.clips_per_s.low > 0
    ]


def work_of_task(task: StageTask) -> str:
    """See `work_of`."""
    identity: Mapping[str, Any] = task.identity
    return work_of(identity["model"], identity["stage"])
