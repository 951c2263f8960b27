"""Labelled rows and the logits of a detector for them: windows of soundscapes, or validation recordings.

Files are heard as `birdclef predict` hears them, so what is fitted is what will be used. Shapes: R rows, C species, W windows of a file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.data.dataset import Dataset
from birdclef_core.data.soundscapes import WINDOW_S, Soundscapes
from birdclef_core.data.targets import validation_truth
from birdclef_core.errors import InputError
from birdclef_core.inference.logits import SCORED_S
from birdclef_core.inference.results.calibration import Source
from birdclef_core.inference.results.file_logits import FileLogits
from birdclef_core.inference.results.formats import AudioFile
from birdclef_core.inference.results.postprocess import PostProcessing
from birdclef_core.inference.run.files import FoundAudio, Unreadable
from birdclef_core.inference.run.job import Progress, hear_all, run_of
from birdclef_core.inference.run.journal import Journal
from birdclef_core.inference.run.predictor import Predictor
from birdclef_core.taxonomy import LabelSpace

WHOLE_FILE = -1
"""Stands for the end second of a row that is a whole recording."""


@dataclass(frozen=True, kw_only=True)
class LabelledRows:
    """Rows with labels, and the files that they are of. Nothing has been heard yet."""

    source: Source
    files: tuple[AudioFile, ...]
    file_R: NDArray[np.int64]
    end_s_R: NDArray[np.int64]
    """End second of the window; WHOLE_FILE for a recording."""
    truth_RC: NDArray[np.uint8]
    group_R: NDArray[np.int64]
    """Rows with equal values are of one soundscape file, or of recordings of one author."""


def soundscape_rows(soundscapes: Soundscapes, species: Sequence[str]) -> LabelledRows:
    """Return the labelled windows of soundscapes. Species that the detector does not know do not count."""
    space = LabelSpace.of("deployed", species)
    file_R = soundscapes.windows["file"].to_numpy(dtype=np.int64)
    return LabelledRows(
        source="soundscapes",
        files=tuple(_audio(soundscapes.root, path) for path in soundscapes.files["path"]),
        file_R=file_R,
        end_s_R=soundscapes.windows["end_s"].to_numpy(dtype=np.int64),
        truth_RC=soundscapes.spelled_as(space).truth(space),
        group_R=file_R,
    )


def recording_rows(dataset: Dataset, species: Sequence[str]) -> LabelledRows:
    """Return the validation recordings of a dataset whose primary species the detector knows."""
    rows_R, truth_RC = validation_truth(dataset, LabelSpace.of("deployed", species))
    recordings = dataset.recordings.iloc[rows_R]
    groups = recordings["group"].astype(str).to_numpy()
    return LabelledRows(
        source="recordings",
        files=tuple(_audio(dataset.root, path) for path in recordings["path"]),
        file_R=np.arange(len(rows_R)),
        end_s_R=np.full(len(rows_R), WHOLE_FILE),
        truth_RC=truth_RC,
        group_R=np.unique(groups, return_inverse=True)[1].astype(np.int64),
    )


@dataclass(frozen=True, kw_only=True)
class HeardRows:
    """Labelled rows that were heard."""

    source: Source
    truth_RC: NDArray[np.bool_]
    group_R: NDArray[np.int64]
    files: tuple[FileLogits, ...]
    rows_of_file: tuple[NDArray[np.int64], ...]
    windows_of_file: tuple[tuple[NDArray[np.int64], ...], ...]
    """For each row of a file, the windows of which the largest logit counts."""
    num_left_out: int
    """Rows that no window of the detector is: their file cannot be read or is too short, or they begin between two windows."""
    unreadable: tuple[Unreadable, ...]

    def logits(self, postprocessing: PostProcessing) -> NDArray[np.float64]:
        """Return the logits (R, C) after post-processing."""
        logits_RC = np.empty(self.truth_RC.shape)
        for file, rows, windows in zip(self.files, self.rows_of_file, self.windows_of_file, strict=True):
            changed_WC = postprocessing.apply(file.logits_WC)
            for row, window_N in zip(rows, windows, strict=True):
                logits_RC[row] = changed_WC[window_N].max(axis=0)
        return logits_RC


def hear_rows(rows: LabelledRows, predictor: Predictor, journal: Path, progress: Progress | None = None) -> HeardRows:
    """Hear the files of labelled rows, continuing an earlier run with the same journal.

    Raises InputError when no row could be heard, or none of the species is heard in one.
    """
    window_s = predictor.detector.procedure.window_s
    if rows.source == "soundscapes" and window_s != WINDOW_S:
        raise InputError(f"window_s == {WINDOW_S} must hold, as labels are of such windows, but got {window_s}.")
    kept = Journal(journal)
    with kept.opened(run_of(predictor)):
        heard = hear_all(predictor, FoundAudio(rows.files, ()), kept, progress)
        found = {audio.label: kept.read(key) for audio, key in heard.keys}
    files, kept_R, windows = [], [], []
    for number, audio in enumerate(rows.files):
        logits = found.get(audio.label)
        if logits is None:
            continue
        files.append(logits[0])
        own = [(row, _windows(logits[0], int(rows.end_s_R[row]))) for row in np.flatnonzero(rows.file_R == number)]
        kept_R.append([row for row, window_N in own if len(window_N)])
        windows.append(tuple(window_N for _, window_N in own if len(window_N)))
    order_R = np.array([row for of_file in kept_R for row in of_file], dtype=np.int64)
    if not len(order_R) or not rows.truth_RC[order_R].any():
        raise InputError(
            f"At least one labelled row must have a species of the model and audio that can be heard, but none of {len(rows.file_R):,} has"
            + (f" ({heard.unreadable[0].label}: {heard.unreadable[0].reason})." if heard.unreadable else ".")
        )
    ends = np.cumsum([len(of_file) for of_file in kept_R])
    return HeardRows(
        source=rows.source,
        truth_RC=rows.truth_RC[order_R] > 0,
        group_R=rows.group_R[order_R],
        files=tuple(files),
        rows_of_file=tuple(np.arange(end - len(of_file), end) for end, of_file in zip(ends, kept_R, strict=True)),
        windows_of_file=tuple(windows),
        num_left_out=len(rows.file_R) - len(order_R),
        unreadable=tuple(heard.unreadable),
    )


def _windows(logits: FileLogits, end_s: int) -> NDArray[np.int64]:
    if end_s == WHOLE_FILE:
        return np.flatnonzero(logits.start_W < SCORED_S * SAMPLE_RATE_HZ)
    return np.flatnonzero(logits.start_W == (end_s - WINDOW_S) * SAMPLE_RATE_HZ)


def _audio(root: Path, path: str) -> AudioFile:
    return AudioFile(root / path, path, root, PurePosixPath(path).with_suffix(""))
