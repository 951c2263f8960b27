"""Embeddings of windows, as a stage publishes them, and by which clips of sound a window is heard.

Shapes: W windows, D numbers of an embedding.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

EMBEDDINGS = "embeddings.safetensors"
TIMM_WEIGHTS, ONNX_FILE = "encoder.safetensors", "encoder.onnx"
"""The encoder of a stage of embeddings: the weights of a timm encoder, or a copy of the ONNX file."""


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Embeddings of windows of all recordings, and of the labelled windows of soundscapes that score."""

    row_W: NDArray[np.int64]
    """Row of the dataset's recordings, in rising order."""
    start_W: NDArray[np.int64]
    """First sample of each window, at 32 kHz."""
    embedding_WD: NDArray[np.float16]
    scored_WD: NDArray[np.float16]
    """Of the labelled windows of soundscapes, in their order, each as many clips as `clips_of` says; none: (0, D)."""

    def save(self, folder: Path) -> None:
        """Write the embeddings into `folder`."""
        save_file({name: np.ascontiguousarray(array) for name, array in vars(self).items()}, folder / EMBEDDINGS)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the embeddings in `folder`."""
        return cls(**load_file(folder / EMBEDDINGS))
