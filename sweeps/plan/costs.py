"""Estimates what an epoch of a stage will cost: from what stages of the store cost on this device, or else from a calibration."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from birdclef_core.config import SAMPLE_RATE_HZ, PredictedAudio, StageConfig
from birdclef_core.data.dataset import Dataset
from birdclef_core.data.targets import training_table, validation_truth
from birdclef_core.identity import canonical
from birdclef_core.stages.task import StageTask
from birdclef_core.store.summary import Spread, StageSummary, work_of, work_of_embeddings
from sweeps.devices import DeviceSpeeds

Basis = Literal["measured", "converted", "scaled", "calibrated"]
"""How a cost is known: from stages of this kind, from such stages on another device, from stages with another clip length, or from a few steps
(of embeddings: a few batches) on noise."""

EVALUATED_S = 60.0
"""Seconds of each validation recording that are scored, from its beginning."""
FORWARD_SHARE = 1 / 3
"""Share of a training step's time that a forward pass without gradients takes: one of three passes of similar size."""
NO_TIME = Spread(low=0.0, middle=0.0, high=0.0)
SCALING_ERROR = 1.25
"""Factor by which an interval is widened where a cost is scaled or calibrated. The time for a clip does not grow exactly with its
length, and a calibration does not see how long training waits for data."""


@dataclass(frozen=True, kw_only=True)
class DataSize:
    """How much data a stage is trained and scored on, for one label space."""

    num_training: int
    """Number of training recordings. An epoch has as many clips, unless the stage sets another number."""
    evaluated_s_R: NDArray[np.float64]
    """Seconds of each validation recording that are scored, R values."""

    @classmethod
    def of(cls, dataset: Dataset, name: str) -> "DataSize":
        """Return the size for the label space `name`: "all" or "target"."""
        space = dataset.all_species if name == "all" else dataset.target_species
        rows_R, _ = validation_truth(dataset, space)
        durations = dataset.recordings["duration_s"].to_numpy(dtype=np.float64)[rows_R]
        return cls(num_training=len(training_table(dataset, space).rows_R), evaluated_s_R=np.minimum(durations, EVALUATED_S))

    def clips(self, config: StageConfig) -> int:
        """Return the number of training clips of an epoch."""
        return max(1, (config.clips_per_epoch or self.num_training) // config.batch_size) * config.batch_size

    def windows(self, config: StageConfig) -> int:
        """Return the number of windows of an evaluation."""
        return int(np.maximum(1, np.ceil(self.evaluated_s_R / config.clip_s)).sum())


@dataclass(frozen=True, kw_only=True)
class HeardSound:
    """The sound that stages hear which train nothing."""

    seconds: Mapping[PredictedAudio, float] = field(default_factory=lambda: {"recordings": 0.0, "unlabelled": 0.0})
    """Seconds of each kind of sound that predictions are made of."""
    embedded_s_R: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """Seconds of each recording, of which embeddings are made."""

    @classmethod
    def of(cls, dataset: Dataset, *, unlabelled: bool) -> "HeardSound":
        """Return the sound of a dataset, of soundscapes without labels only where they are needed."""
        duration_s_R = dataset.recordings["duration_s"].to_numpy(dtype=np.float64)
        training_s = float(duration_s_R[~dataset.recordings["is_validation"].to_numpy(dtype=bool)].sum())
        unlabelled_s = float(dataset.unlabelled.files["duration_s"].sum()) if unlabelled and dataset.unlabelled else 0.0
        return cls(seconds={"recordings": training_s, "unlabelled": unlabelled_s}, embedded_s_R=duration_s_R)

    def predicted_windows(self, config: StageConfig) -> int:
        """Return about how many windows a stage of predictions hears."""
        return max(1, round(self.seconds[config.predicts_on] / config.clip_s))

    def embedded_windows(self, window_s: float) -> int:
        """Return the number of windows of which embeddings are made."""
        return int(np.maximum(1, self.embedded_s_R // window_s).sum())


@dataclass(frozen=True, kw_only=True)
class EpochCost:
    """Device seconds of one epoch, with its evaluation."""

    low_s: float
    middle_s: float
    high_s: float
    basis: Basis


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """How fast a kind of work is done on a device."""

    work: str
    """The kind of work, see `StageSummary.work`."""
    clip_s: float
    clips_per_s: Spread
    """Training clips per second."""
    data: str = ""
    """Fingerprint of the recordings."""
    evaluate_s: Spread | None = None
    """Seconds of an evaluation on these recordings."""
    calibrated: bool = False
    """Whether it was measured on noise."""
    converted: bool = False
    """Whether it was measured on another device and follows from that one's speed."""
    like: str = ""
    """The kind of work but for the size of spectrograms, see `like_of_task`; empty when it is not known."""
    pixels_per_s: float = 0.0
    """Mel bins times frames of a second of sound."""

    @classmethod
    def of_task(cls, task: StageTask, clips_per_s: Spread) -> "Measurement":
        """Return the measurement of a calibration."""
        return cls(
            work=work_of_task(task),
            clip_s=task.config.clip_s,
            clips_per_s=clips_per_s,
            calibrated=True,
            like=like_of_task(task),
            pixels_per_s=pixels_per_s(task),
        )


class CostModel:
    """Estimates the cost of epochs on one device from measurements, on others as well where their speeds are known."""

    def __init__(
        self,
        measurements: Iterable[Measurement],
        sizes: Mapping[str, DataSize],
        data: str,
        heard: "HeardSound | None" = None,
    ) -> None:
        """`sizes` has the data size of each label space; `data` is the fingerprint of the recordings that will be trained on; `heard`: the sound
        that predictions and embeddings are made of."""
        self._sizes, self._data, self._heard = sizes, data, heard or HeardSound()
        self._by_work: defaultdict[str, list[Measurement]] = defaultdict(list)
        self._by_like: defaultdict[str, list[Measurement]] = defaultdict(list)
        for measurement in measurements:
            self.add(measurement)

    def add(self, measurement: Measurement) -> None:
        """Take another measurement into account."""
        self._by_work[measurement.work].append(measurement)
        if measurement.like:
            self._by_like[measurement.like].append(measurement)

    def epoch(self, task: StageTask) -> EpochCost | None:
        """Return the cost of an epoch, or None when nothing is known about this kind of work on this device.

        Measured stages count more than calibrated ones, those of this device more than those of others, and of these the ones whose clips are
        nearest in length. Where only the same
        encoder with spectrograms of another size is known, the time is taken to be in proportion to their size.
        """
        known, pixels = self._by_work.get(work_of_task(task)), 1.0
        if not known:
            known = self._of_nearest_size(task)
            pixels = known[0].pixels_per_s / pixels_per_s(task) if known else 1.0
        if not known:
            return None
        best = min(known, key=lambda item: (item.calibrated, item.converted, abs(item.clip_s - task.config.clip_s)))
        nearest, how = best.clip_s, (best.calibrated, best.converted)
        like = [item for item in known if item.clip_s == nearest and (item.calibrated, item.converted) == how]
        scale = pixels * nearest / task.config.clip_s
        rough = SCALING_ERROR if nearest != task.config.clip_s or any(how) else 1.0
        train = self._seconds(task, like, scale, rough)
        evaluate = NO_TIME if task.config.predicts else self._evaluation(task, like, train)
        basis: Basis = (
            "calibrated" if best.calibrated else "converted" if best.converted else "measured" if rough == 1.0 else "scaled"
        )
        return EpochCost(
            low_s=train.low + evaluate.low,
            middle_s=train.middle + evaluate.middle,
            high_s=train.high + evaluate.high,
            basis=basis,
        )

    def _of_nearest_size(self, task: StageTask) -> list[Measurement]:
        """The measurements of the same work with spectrograms of the size that is nearest to the task's."""
        known, wanted = self._by_like.get(like_of_task(task), []), pixels_per_s(task)
        nearest = min((item.pixels_per_s for item in known), key=lambda size: abs(math.log(size / wanted)), default=0.0)
        return [item for item in known if item.pixels_per_s == nearest]

    def clips(self, task: StageTask) -> int:
        """Return the number of training clips of an epoch; for predictions, of as many as take the same time; for embeddings and for
        predictions by a head on them, of windows."""
        config = task.config
        if config.embeds:
            return self._heard.embedded_windows(config.clip_s)
        if config.predicts:
            return max(1, round((1.0 if task.encoder_work else FORWARD_SHARE) * self._heard.predicted_windows(config)))
        return self._sizes[config.label_space].clips(config)

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


def speeds_of(summaries: Iterable[StageSummary], device: str) -> DeviceSpeeds:
    """Return how fast devices are beside `device`, by the stages of a store: the same work with clips of the same length."""
    speeds = DeviceSpeeds(base=device)
    for item in summaries:
        if item.clips_per_s is not None and item.clips_per_s.low > 0:
            speeds.learn(item.device, (item.work, item.clip_s), item.clips_per_s.middle)
    return speeds


def measured(summaries: Iterable[StageSummary], speeds: DeviceSpeeds) -> list[Measurement]:
    """Return the measurements that the stages of a store contain, as of the base of `speeds`."""
    return [
        _converted(item, item.clips_per_s, speeds)
        for item in summaries
        if item.clips_per_s is not None and item.clips_per_s.low > 0 and speeds.is_joined(item.device)
    ]


def _converted(item: StageSummary, clips_per_s: Spread, speeds: DeviceSpeeds) -> Measurement:
    """The measurement of a stage; one of another device as the base would have done it."""
    speed = speeds.of(item.device).value
    return Measurement(
        work=item.work,
        clip_s=item.clip_s,
        clips_per_s=clips_per_s.scaled(1 / speed),
        data=item.data,
        evaluate_s=item.evaluate_s and item.evaluate_s.scaled(speed),
        converted=item.device != speeds.base,
    )


def work_of_task(task: StageTask) -> str:
    """Return the kind of work of a task, see `StageSummary.work`."""
    if task.config.embeds:
        return work_of_embeddings(task.identity)
    return task.encoder_work or work_of(*_identity_of_work(task))


def like_of_task(task: StageTask) -> str:
    """Return the kind of work of a task whatever the size of its spectrograms; empty for embeddings and what a head on them predicts."""
    if task.config.embeds or task.encoder_work:
        return ""
    model, stage = _identity_of_work(task)
    return work_of({**model, "spectrogram": {"deltas": task.model.spectrogram.deltas}}, stage)


def _identity_of_work(task: StageTask) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What the time for a clip depends on: for predictions of a whole model, that of training it."""
    if task.config.predicts:
        return canonical(task.model), canonical(replace(task.config, predicts="", predicts_on="unlabelled"))
    return task.identity["model"], task.identity["stage"]


def pixels_per_s(task: StageTask) -> float:
    """Return the mel bins times the frames of a second of sound."""
    spectrogram = task.model.spectrogram
    return spectrogram.num_mels * SAMPLE_RATE_HZ / spectrogram.hop_length
