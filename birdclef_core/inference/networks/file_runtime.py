"""Runs an encoder in an ONNX file and, on its embeddings, a head. Shapes: B clips, T samples, D numbers of an embedding."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from birdclef_core.inference.bundle.record import BundleMember
from birdclef_core.inference.networks.onnx_runtime import OnnxRuntime
from birdclef_core.inference.runtime import Outputs, Runtime
from birdclef_core.stages.embeddings.onnx_encoder import OnnxEncoder


class FileRuntime:
    """An encoder and a head: wave_BT -> outputs, on the CPU."""

    def __init__(self, encoder: OnnxEncoder, head: Callable[[Tensor], Outputs]) -> None:
        self._encoder, self._head = encoder, head

    def __call__(self, wave_BT: Tensor) -> Outputs:
        return self._head(self._encoder(wave_BT))


def load_onnx_network(member: BundleMember, path: Path) -> Runtime:
    """Return what runs the network of a bundle in an ONNX file: the network, or a head with the encoder that lies beside it.

    Each call takes one thread. Raises InputError when ONNX Runtime is missing or cannot load a file.
    """
    network, head = OnnxRuntime(path), member.head
    if head is None or head.encoder is None:
        return network
    encoder = OnnxEncoder(
        path.with_name(head.encoder.rpartition("/")[2]), head.encoder_rate_hz, head.encoder_output, num_threads=1
    )
    return FileRuntime(encoder, network)
