"""What a runtime is: it runs a network, from what it hears to outputs. Nothing else of inference knows how.

Shapes: B windows, T samples, K channels, F mel bins, N frames, D features, S segments, C species.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

WINDOWS_AT_ONCE = 4
"""Windows that a core of a CPU takes at once. One, two, four and sixteen cost about the same, and four spectrograms fit into a cache."""

BATCH_SIZE = 16 * WINDOWS_AT_ONCE
"""Windows that a detector is given at once: enough for 16 cores of a CPU, or for a GPU. Their sound takes 80 MB."""


class Outputs(NamedTuple):
    """What a network says of the windows that it was given, in float32."""

    clip_BC: Tensor
    """Logits of everything that was heard."""
    segments_BSC: Tensor | None
    """SED: logits of each segment of time. CNN: None."""
    embedding_BD: Tensor
    """Mean of the encoder's features over frequency and time."""


class Runtime(Protocol):
    """Runs one network. Spectrograms and pooling stay outside of it, so that every runtime shares them; but a network of a bundle may have
    its spectrogram in itself."""

    def __call__(self, heard: Tensor, /) -> Outputs:
        """Return the outputs for any number of windows in float32: spectrograms mel_BKFN, or wave_BT where the network makes them.

        Several threads may call it at once.
        """
        ...


def outputs_of(tensors: Sequence[Tensor]) -> Outputs:
    """Return the outputs that the tensors of a network stand for."""
    return Outputs(tensors[0], tensors[1] if len(tensors) == 3 else None, tensors[-1])
