"""What a runtime is: it runs a network, from spectrograms to outputs. Nothing else of inference knows how.

Shapes: B windows, K channels, F mel bins, N frames, D features, S segments, C species.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor


class Outputs(NamedTuple):
    """What a network says of the spectrograms that it was given, in float32."""

    clip_BC: Tensor
    """Logits of everything that was heard."""
    segments_BSC: Tensor | None
    """SED: logits of each segment of time. CNN: None."""
    embedding_BD: Tensor
    """Mean of the encoder's features over frequency and time."""


class Runtime(Protocol):
    """Runs one network. Spectrograms and pooling stay outside of it, so that every runtime shares them."""

    def __call__(self, mel_BKFN: Tensor) -> Outputs:
        """Return the outputs for float32 spectrograms with any number of windows."""
        ...


def outputs_of(tensors: Sequence[Tensor]) -> Outputs:
    """Return the outputs that the tensors of a network stand for."""
    return Outputs(tensors[0], tensors[1] if len(tensors) == 3 else None, tensors[-1])
