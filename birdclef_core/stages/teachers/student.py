"""Makes windows with targets of what a teacher has predicted, for its student.

Shapes: W windows, C species of the student, S species of the teacher.
"""

import numpy as np
from numpy.typing import NDArray

from birdclef_core.config import StageConfig
from birdclef_core.data.clip_windows import ClipWindows
from birdclef_core.data.targets import TrainingTable, training_table
from birdclef_core.errors import DataError, StoreError
from birdclef_core.stages.teachers.predictions import Predictions
from birdclef_core.stages.training_data import TrainingData
from birdclef_core.store.stage_store import StageEntry
from birdclef_core.taxonomy import LabelSpace
from birdclef_core.teacher_config import TeacherConfig


def predicted_windows(config: StageConfig, data: TrainingData, space: LabelSpace, entry: StageEntry) -> ClipWindows:
    """Return the windows that a student is trained on. `entry`: the stage with the predictions.

    Species that the teacher does not know have a target of 0; those that only the teacher knows are left out. Raises StoreError when
    student and teacher have no species in common, DataError when no window is left.
    """
    teacher, predictions = config.teacher, Predictions.load(entry.folder)
    shared = space.columns_in(LabelSpace.of("predicted", entry.record.species))
    if not shared:
        raise StoreError(f"Stage {config.name} and its teacher must have species in common, but have none.")
    own, theirs = (np.array(columns) for columns in zip(*shared, strict=True))
    logits_WS = predictions.logits_WC.astype(np.float32)
    probability_WC = np.zeros((len(logits_WS), len(space)), np.float32)
    probability_WC[:, own] = 1 / (1 + np.exp(-logits_WS[:, theirs]))
    on_recordings = entry.record.identity["stage"]["predicts_on"] == "recordings"
    target_WC, kept_W = _targets(teacher, probability_WC)
    weight_W = np.full(len(target_WC), teacher.weight, np.float32)
    sampling_W, table, place_W = np.ones(len(target_WC)), None, predictions.row_W
    if on_recordings:
        table = training_table(
            data.dataset,
            space,
            secondary_target=config.secondary_target,
            class_balance=config.class_balance,
            sources=config.sources,
        )
        place_W = _places(table, predictions.row_W)
        kept_W &= place_W >= 0
        weight_W *= table.weight_R[place_W]
        # A recording is drawn as often as without a teacher, whatever its length.
        sampling_W = table.sampling_weight_R[place_W] / np.bincount(predictions.row_W)[predictions.row_W]
        if teacher.mode == "distillation":
            label_WC = table.target_RC[np.maximum(place_W, 0)].toarray()
            target_WC = teacher.label_share * label_WC + (1 - teacher.label_share) * target_WC
    if teacher.resampling == "confidence":
        sampling_W = sampling_W * probability_WC.max(axis=1)
    if not kept_W.any():
        raise DataError(
            f"Stage {config.name} must have at least one window to learn from, but the teacher predicts no species with a probability of "
            f"{teacher.threshold:g} anywhere (its largest is {probability_WC.max():.3g}). A lower teacher.threshold may help."
        )
    if table is not None:
        sampling_W = table.shared(np.where(kept_W, sampling_W, 0.0), place_W)
    return ClipWindows(
        share=teacher.share,
        cache=data.cache if on_recordings else data.unlabelled_cache,
        names_R=_names(data, on_recordings),
        row_W=predictions.row_W[kept_W],
        start_W=predictions.start_W[kept_W],
        window_samples=predictions.window_samples,
        target_WC=target_WC[kept_W].astype(np.float16),
        weight_W=weight_W[kept_W],
        sampling_weight_W=sampling_W[kept_W],
    )


def _targets(teacher: TeacherConfig, probability_WC: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the targets of the windows, and which windows are drawn."""
    if teacher.mode == "distillation":
        return probability_WC**teacher.power, np.ones(len(probability_WC), bool)
    sure_WC = probability_WC >= teacher.threshold
    return np.where(sure_WC, probability_WC**teacher.power, np.float32(0)), np.asarray(sure_WC.any(axis=1))


def _places(table: TrainingTable, row_W: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where in the training table each window's recording is; -1 where it is not."""
    place = np.full(max(int(row_W.max()), int(table.rows_R.max())) + 1, -1)
    place[table.rows_R] = np.arange(len(table.rows_R))
    return place[row_W]


def _names(data: TrainingData, on_recordings: bool) -> NDArray[np.object_]:
    if on_recordings:
        return data.dataset.recordings["recording_id"].to_numpy(dtype=object)
    assert data.dataset.unlabelled is not None
    return data.dataset.unlabelled.files["path"].to_numpy(dtype=object)
