"""What a stage that predicts publishes: the logits of windows of sound, and of which windows.

Shapes: W windows, C species.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

PREDICTIONS = "predictions.safetensors"


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Logits of windows, in the order of their files and in a file in the order of time."""

    row_W: NDArray[np.int64]
    """File of each window: a row of the dataset's recordings, or of its soundscapes without labels."""
    start_W: NDArray[np.int64]
    """First sample of each window, at 32 kHz."""
    window_samples: int
    logits_WC: NDArray[np.float16]
    """Logits; half precision changes a probability by less than .0002."""

    def save(self, folder: Path) -> None:
        """Write the predictions into `folder`."""
        arrays = {
            "rows": self.row_W,
            "starts": self.start_W,
            "window_samples": np.array([self.window_samples]),
            "logits": self.logits_WC,
        }
        save_file(arrays, folder / PREDICTIONS)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the predictions in `folder`."""
        arrays = load_file(folder / PREDICTIONS)
        return cls(
            row_W=arrays["rows"],
            start_W=arrays["starts"],
            window_samples=int(arrays["window_samples"][0]),
            logits_WC=arrays["logits"],
        )
