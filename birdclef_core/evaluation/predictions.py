"""From the scores of windows to one row a recording, which makes trials with different clip lengths comparable.

Shapes: W windows, R recordings, C species.
"""

import numpy as np
from numpy.typing import NDArray

from birdclef_core.errors import InputError


def gather_windows(score_WC: NDArray[np.floating], recording_W: NDArray[np.integer], num_recordings: int) -> NDArray[np.floating]:
    """score_RC: the maximum over each recording's windows, in any order. Raises InputError for a recording without a window."""
    missing = np.setdiff1d(np.arange(num_recordings), recording_W)
    if len(missing):
        raise InputError(
            f"Every recording must have a window, but {len(missing)} of {num_recordings} have none, such as row {missing[0]}."
        )
    score_RC = np.full((num_recordings, score_WC.shape[1]), -np.inf, score_WC.dtype)
    np.maximum.at(score_RC, recording_W, score_WC)
    return score_RC
