"""What is known about a stage when its training ends, and the recordings that it got most wrong.

Shapes: R validation recordings, C species, F mel bins, N frames.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from birdclef_core.config import ModelConfig, StageConfig
from birdclef_core.store.stage_store import StageRecord


@dataclass(frozen=True, kw_only=True)
class StageOutcome:
    """Everything that the reports of a trained stage are made from."""

    record: StageRecord
    """Its metrics include the standard errors `cmap_se` and `cmap_pad5_se` if these are known (see `standard_errors`)."""
    model: ModelConfig
    config: StageConfig
    recordings: pd.DataFrame
    """The validation recordings, R rows, with at least recording_id, primary_label, author and duration_s."""
    truth_RC: NDArray[np.uint8]
    score_RC: NDArray[np.float64]
    """Probabilities."""
    spectrogram: Callable[[int], tuple[NDArray[np.float32], float]]
    """Returns (db_FN, seconds) of the beginning of the validation recording in a row."""


@dataclass(frozen=True)
class WorstRecording:
    """A recording for which other species were ranked above its own."""

    row: int
    species: str
    """The recording's own species."""
    rank: int
    """Rank of that species among all, from 1."""
    probability: float
    """Probability of that species."""


def worst_recordings(outcome: StageOutcome, count: int) -> list[WorstRecording]:
    """Return the recordings whose own species ranks lowest, one for each species, without those whose species ranks first."""
    truth_RC, score_RC = outcome.truth_RC > 0, outcome.score_RC
    species_R = truth_RC.argmax(axis=1)
    own_R = score_RC[np.arange(len(score_RC)), species_R]
    rank_R = 1 + (score_RC > own_R[:, None]).sum(axis=1)
    found: dict[int, WorstRecording] = {}
    for row in np.lexsort((own_R, -rank_R)):
        species = int(species_R[row])
        if len(found) == count or rank_R[row] == 1:
            break
        if truth_RC[row].any():
            found.setdefault(
                species, WorstRecording(int(row), outcome.record.species[species], int(rank_R[row]), float(own_R[row]))
            )
    return list(found.values())
