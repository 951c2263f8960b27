"""Changes the logits of a file by those of its other windows. Off by default: it helps some models and hurts others.

Shapes: W windows of one file, C species.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from birdclef_core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class PostProcessing:
    """What is done to the logits of a file. It never looks at another file."""

    smooth: float = 0.0
    """Weight of each of the two neighbours of a window; the window itself has what is left to 1. An edge is its own neighbour."""
    peak: float = 0.0
    """Weight of the largest logit that a species has in the file; the window has what is left to 1."""

    def __post_init__(self) -> None:
        if not (0 <= self.smooth <= 1 / 3 and 0 <= self.peak <= 1):
            raise InputError(f"0 <= smooth <= 1/3 and 0 <= peak <= 1 must hold, but got smooth={self.smooth}, peak={self.peak}.")

    def apply(self, logits_WC: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the changed logits: neighbours first, then the peak of what comes out."""
        if self.smooth and len(logits_WC):
            padded = np.concatenate([logits_WC[:1], logits_WC, logits_WC[-1:]])
            logits_WC = (1 - 2 * self.smooth) * logits_WC + self.smooth * (padded[:-2] + padded[2:])
        if self.peak and len(logits_WC):
            logits_WC = (1 - self.peak) * logits_WC + self.peak * logits_WC.max(axis=0)
        return logits_WC.astype(np.float32, copy=False)


NO_POSTPROCESSING = PostProcessing()
