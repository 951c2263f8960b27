"""What a stage has to show when it is done, and the recordings it got most wrong.

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
    """All that reports of a trained stage are made of."""

    record: StageRecord
    """Its metrics hold the standard errors `cmap_se` and `cmap_pad5_se` too."""
    model: ModelConfig
    config: StageConfig
    recordings: pd.DataFrame
    """The validation recordings, R rows: recording_id, primary_label, author, duration_s at least."""
    truth_RC: NDArray[np.uint8]
    score_RC: NDArray[np.float64]
    spectrogram: Callable[[int], tuple[NDArray[np.float32], float]]
    """(db_FN, seconds) of the beginning of validation recording r."""


@dataclass(frozen=True)
class WorstRecording:
    """A recording whose own species other species were ranked above."""

    row: int
    species: str
    rank: int
    """Of its species among all, from 1."""
    probability: float


def worst_recordings(outcome: StageOutcome, count: int) -> list[WorstRecording]:
    """The recordings whose species ranks lowest, one a species; those that rank first are none of them."""
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
