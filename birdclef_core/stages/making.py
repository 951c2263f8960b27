"""Makes a stage, whatever kind it is."""

from collections.abc import Callable, Collection, Iterator

import torch

from birdclef_core.stages.epochs import EpochMetrics
from birdclef_core.stages.interruption import Stop, never
from birdclef_core.stages.predicting import predict_stage
from birdclef_core.stages.task import StageTask
from birdclef_core.stages.training import train_stage
from birdclef_core.stages.training_data import TrainingData
from birdclef_core.store.stage_store import StageStore


def make_stage(
    task: StageTask,
    data: TrainingData,
    store: StageStore,
    device: torch.device,
    *,
    stop: Stop = never,
    on_note: Callable[[str], None] = lambda note: None,
    trained_by: str = "",
    soundscapes_at: Collection[int] = (),
) -> Iterator[EpochMetrics]:
    """Train the stage or make its predictions, yield after every epoch, and publish it after the last one.

    The arguments and errors are those of `train_stage` and `predict_stage`.
    """
    if task.teachers:
        return predict_stage(task, data, store, device, stop=stop, on_note=on_note, trained_by=trained_by)
    return train_stage(
        task, data, store, device, stop=stop, on_note=on_note, trained_by=trained_by, soundscapes_at=soundscapes_at
    )
