"""What a detector says of one file.

Shapes: W windows of one file, C species, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FileLogits:
    """What a detector says of one file."""

    start_W: NDArray[np.int64]
    """First sample of each window, at 32 kHz."""
    end_W: NDArray[np.int64]
    """Sample behind each window."""
    logits_WC: NDArray[np.float32]
    embedding_WD: NDArray[np.float32]
    """No columns unless embeddings were asked for."""


def joined(parts: Sequence[FileLogits]) -> FileLogits:
    """Return parts that follow each other as one; there must be one at least."""
    return FileLogits(
        np.concatenate([part.start_W for part in parts]),
        np.concatenate([part.end_W for part in parts]),
        np.concatenate([part.logits_WC for part in parts]),
        np.concatenate([part.embedding_WD for part in parts]),
    )
