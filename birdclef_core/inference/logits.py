"""Logits of the deployed procedure for a data folder's validation recordings and labelled soundscapes, kept in the store.

They are what ensembles and calibrations are made of. Probabilities could not be turned back into them: a logit of 17 reads back as 16.64.
Shapes: B windows, T samples, C species, R rows that are scored.
"""

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from birdclef_core.code_version import code_version, read_module
from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.data.decode import INT16_SCALE
from birdclef_core.data.soundscapes import WINDOW_S
from birdclef_core.data.targets import validation_truth
from birdclef_core.data.wave_cache import WaveCache
from birdclef_core.data.windows import SoundscapeWindows
from birdclef_core.errors import InputError, StoreError
from birdclef_core.identity import fingerprint
from birdclef_core.inference.deployed import DeployedDetector
from birdclef_core.inference.procedure import Procedure
from birdclef_core.inference.runtime import BATCH_SIZE
from birdclef_core.inference.windows import heard, heard_until, num_windows
from birdclef_core.output_place import writing_to
from birdclef_core.stages.training_data import TrainingData
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import scratch_folder
from birdclef_core.taxonomy import LabelSpace

SCORED_S = 60.0
"""Seconds of a validation recording that count, as in the scores of stages."""

_FILE = "logits.safetensors"
_MODULES = (
    "deployed",
    "logits",
    "networks/encoder_head",
    "networks/file_runtime",
    "networks/network",
    "networks/torch_runtime",
    "pooling",
    "procedure",
    "runtime",
    "stored",
    "threads",
    "windows",
)

Progress = Callable[[int, int], None]
"""Gets (windows done, windows in all)."""


@dataclass(frozen=True, kw_only=True)
class DeployedLogits:
    """Logits of one detector. Species are in sorted order."""

    recordings_RC: NDArray[np.float32]
    """The largest over the windows of a validation recording. Rows are those of `validation_truth`."""
    soundscapes_RC: NDArray[np.float32]
    """One row a labelled window of the soundscapes, in their order; none where the data have no soundscapes."""


def deployed_logits(
    store: StageStore,
    detector: DeployedDetector,
    data: TrainingData,
    data_fingerprint: str,
    *,
    kept_with: str = "",
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
) -> DeployedLogits:
    """Return the logits of a detector with one member, from the store if they are there, and keep them there if not.

    They are kept by member, data and procedure, and by the code that computes them, until the stage `kept_with` is removed (empty:
    the stage that the member is). Audio comes from the cache, so the mean of a
    recording is always removed. Raises InputError when the procedure's windows are not as long as those of the labels.
    """
    (member,) = detector.members
    if detector.procedure.window_s != WINDOW_S:
        raise InputError(
            f"window_s == {WINDOW_S} must hold, as labels are of such windows, but got {detector.procedure.window_s}."
        )
    parts = [member.model_id, data_fingerprint, detector.procedure.fingerprint, list(detector.species), inference_code()]
    place = f"logits/{kept_with or member.model_id}/{fingerprint(parts)[:32]}"
    try:
        arrays = load_file(store.storage.read_bundle(place, scratch_folder()) / _FILE)
        return DeployedLogits(recordings_RC=arrays["recordings"], soundscapes_RC=arrays["soundscapes"])
    except StoreError:
        logits = _compute(detector, data, batch_size, progress)
    with writing_to(Path(store.storage.root), way_out="use another --storage"), store.storage.write_bundle(place) as folder:
        try:
            save_file({"recordings": logits.recordings_RC, "soundscapes": logits.soundscapes_RC}, folder / _FILE)
        except SafetensorError as error:  # it has an error of its own for a full disk
            raise OSError(errno.EIO, str(error)) from error
    return logits


def _compute(detector: DeployedDetector, data: TrainingData, batch_size: int, progress: Progress | None) -> DeployedLogits:
    procedure = detector.procedure
    recordings = list(_recording_windows(data, detector, procedure))
    soundscapes = _soundscape_windows(data, detector, batch_size)
    total = len(recordings) + (soundscapes.num_windows if soundscapes else 0)

    def note(done: int) -> None:
        if progress:
            progress(done, total)

    num_recordings = recordings[-1].row + 1 if recordings else 0
    recordings_RC = _largest(detector, recordings, num_recordings, batch_size, note)
    soundscapes_RC = np.zeros((0, len(detector.species)), dtype=np.float32)
    if soundscapes:
        silent_R = _silent_from(data, procedure)
        soundscapes_RC = _each(detector, soundscapes, silent_R, lambda done: note(len(recordings) + done))
    return DeployedLogits(recordings_RC=recordings_RC, soundscapes_RC=soundscapes_RC)


@dataclass(frozen=True)
class _Task:
    """A window to be heard."""

    row: int
    """The row that its logits count for."""
    sound: "_CachedSound"
    start: int


@dataclass(frozen=True)
class _CachedSound:
    """A recording in the cache, or its beginning."""

    cache: WaveCache
    entry: int
    num_samples: int

    def read(self, start: int, end: int) -> NDArray[np.float32]:
        samples_T = self.cache.read(self.entry, start, end - start)
        return np.divide(samples_T, INT16_SCALE, dtype=np.float32)


def _recording_windows(data: TrainingData, detector: DeployedDetector, procedure: Procedure) -> Iterator[_Task]:
    """Yield the windows of each validation recording. One that could not be decoded is a window of silence, so that no row is missing."""
    rows_R, _ = validation_truth(data.dataset, LabelSpace.of("deployed", detector.species))
    for row, entry in enumerate(rows_R):
        num_samples = min(data.cache.num_samples(int(entry)), round(SCORED_S * SAMPLE_RATE_HZ))
        sound = _CachedSound(data.cache, int(entry), num_samples)
        for number in range(max(1, num_windows(num_samples, procedure))):
            yield _Task(row, sound, number * procedure.step)


def _soundscape_windows(data: TrainingData, detector: DeployedDetector, batch_size: int) -> SoundscapeWindows | None:
    """Return the labelled windows with what is heard around them; None where there are no soundscapes."""
    soundscapes, cached = data.dataset.soundscapes, data.soundscape_cache
    if soundscapes is None or cached is None:
        return None
    space, context_s = LabelSpace.of("deployed", detector.species), detector.procedure.side / SAMPLE_RATE_HZ
    return SoundscapeWindows(soundscapes, cached, space, context_s=context_s, batch_size=batch_size)


def _silent_from(data: TrainingData, procedure: Procedure) -> list[int]:
    """Return for each labelled window the sample of its context from which on the procedure has silence."""
    soundscapes, cached = data.dataset.soundscapes, data.soundscape_cache
    assert soundscapes is not None and cached is not None
    silent = []
    for file, end_s in soundscapes.windows[["file", "end_s"]].itertuples(index=False):
        start = round((end_s - WINDOW_S) * SAMPLE_RATE_HZ)
        silent.append(max(0, heard_until(start, cached.num_samples(int(file)), procedure) - (start - procedure.side)))
    return silent


def _each(
    detector: DeployedDetector, windows: SoundscapeWindows, silent_R: list[int], note: Callable[[int], None]
) -> NDArray[np.float32]:
    """Return the logits of each window, (R, C)."""

    def waves() -> Iterator[NDArray[np.float32]]:
        for batch in windows:
            wave_BT = np.divide(batch.wave_BT.numpy(), INT16_SCALE, dtype=np.float32)
            for wave_T, row in zip(wave_BT, batch.recording_B.tolist(), strict=True):
                wave_T[silent_R[row] :] = 0
            yield wave_BT

    parts, done = [], 0
    for heard_B in detector.hear_each(waves()):
        parts.append(heard_B.logits_BC)
        done += len(heard_B.logits_BC)
        note(done)
    return np.concatenate(parts)


def _largest(
    detector: DeployedDetector, tasks: list[_Task], num_rows: int, batch_size: int, note: Callable[[int], None]
) -> NDArray[np.float32]:
    """Return the largest logits over the windows of each row, (R, C)."""
    logits_RC = np.full((num_rows, len(detector.species)), -np.inf, dtype=np.float32)
    batches = [tasks[first : first + batch_size] for first in range(0, len(tasks), batch_size)]
    waves = (
        np.stack([heard(task.sound, task.start, task.sound.num_samples, detector.procedure) for task in batch])
        for batch in batches
    )
    done = 0
    for batch, heard_B in zip(batches, detector.hear_each(waves), strict=True):
        np.maximum.at(logits_RC, [task.row for task in batch], heard_B.logits_BC)
        done += len(batch)
        note(done)
    return logits_RC


@cache
def inference_code() -> str:
    """Return a hash of the code that computes logits: 16 hexadecimal digits."""
    files = [Path(__file__).parent / f"{name}.py" for name in _MODULES]
    return fingerprint([code_version(), *(read_module(file.read_text(encoding="utf-8")).code for file in files)])[:16]
