"""Windows of real sound with labels, on which a bundle is compared with what it was made of.

Noise and silence are no substitute: networks that agree on them can differ on birds.
Shapes: R windows, T samples, C species.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.data.dataset import Dataset
from birdclef_core.data.targets import validation_truth
from birdclef_core.errors import DataError
from birdclef_core.inference.procedure import Procedure
from birdclef_core.inference.sound import SoundFile
from birdclef_core.inference.windows import heard
from birdclef_core.taxonomy import LabelSpace

FEWEST, MOST = 64, 128
"""Windows that a comparison must have, and that it takes."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Windows of real sound."""

    wave_RT: NDArray[np.float32]
    """What a model hears of each window."""
    truth_RC: NDArray[np.uint8]
    """1 for the species of its labels, in sorted order."""
    source: str
    """Where they are from, for people."""


@dataclass(frozen=True)
class _Place:
    """A window of a file."""

    path: Path
    start_s: float
    truth_C: NDArray[np.uint8]


def find_examples(dataset: Dataset, species: Sequence[str], procedure: Procedure, most: int = MOST) -> Examples:
    """Return labelled windows of a data folder: those of its soundscapes, and the first of validation recordings as far as more are needed.

    Windows with a species come before those without. A file that cannot be read has none.
    """
    space = LabelSpace.of("deployed", species)
    soundscapes = _spread(list(_of_soundscapes(dataset, space, procedure)), most)
    recordings = _spread(list(_of_recordings(dataset, space)), max(0, most - len(soundscapes)))
    waves, truths, counts = [], [], []
    for places in (soundscapes, recordings):
        found = list(_read(places, procedure))
        waves += [wave_T for wave_T, _ in found]
        truths += [truth_C for _, truth_C in found]
        counts.append(len(found))
    return Examples(
        wave_RT=np.stack(waves) if waves else np.zeros((0, procedure.context), dtype=np.float32),
        truth_RC=np.stack(truths) if truths else np.zeros((0, len(space)), dtype=np.uint8),
        source=f"{counts[0]} windows of labelled soundscapes and {counts[1]} of validation recordings in {dataset.root}",
    )


def no_examples(procedure: Procedure, reason: str) -> Examples:
    """Return no windows, and why there are none."""
    return Examples(
        wave_RT=np.zeros((0, procedure.context), dtype=np.float32), truth_RC=np.zeros((0, 0), dtype=np.uint8), source=reason
    )


def _of_soundscapes(dataset: Dataset, space: LabelSpace, procedure: Procedure) -> Iterator[_Place]:
    if dataset.soundscapes is None:
        return
    soundscapes = dataset.soundscapes
    truth_RC = soundscapes.truth(space)
    for row, (file, end_s) in enumerate(soundscapes.windows[["file", "end_s"]].itertuples(index=False)):
        yield _Place(soundscapes.root / soundscapes.files["path"][file], end_s - procedure.window_s, truth_RC[row])


def _of_recordings(dataset: Dataset, space: LabelSpace) -> Iterator[_Place]:
    rows_R, truth_RC = validation_truth(dataset, space)
    for row, truth_C in zip(rows_R, truth_RC, strict=True):
        yield _Place(dataset.root / dataset.recordings["path"].iloc[row], 0.0, truth_C)


def _spread(places: list[_Place], most: int) -> list[_Place]:
    """Return at most so many places, evenly from all: those with a species first."""
    chosen: list[_Place] = []
    for wanted in (True, False):
        group = [place for place in places if bool(place.truth_C.any()) == wanted]
        count = min(len(group), most - len(chosen))
        chosen += [group[index] for index in np.linspace(0, len(group) - 1, count).round().astype(int)]
    return chosen


def _read(places: Sequence[_Place], procedure: Procedure) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
    for path in dict.fromkeys(place.path for place in places):
        try:
            sound = _Whole(np.concatenate(list(SoundFile(path, procedure).blocks())))
        except DataError:
            continue
        for place in places:
            start = max(0, round(place.start_s * SAMPLE_RATE_HZ))
            if place.path == path and start < len(sound.wave_T):
                yield heard(sound, start, len(sound.wave_T), procedure), place.truth_C


@dataclass(frozen=True)
class _Whole:
    """A file in memory."""

    wave_T: NDArray[np.float32]

    def read(self, start: int, end: int) -> NDArray[np.float32]:
        return self.wave_T[start:end]
