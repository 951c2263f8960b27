"""Runs a network in plain torch, which is always there.

Shapes: B windows, K channels, F mel bins, N frames, D features, S segments, C species.
"""

import torch
from torch import Tensor

from birdclef_core.config import Precision
from birdclef_core.inference.networks.network import Network
from birdclef_core.inference.runtime import Outputs, outputs_of
from birdclef_core.models.detector import Detector
from birdclef_core.stages.embeddings.hearing import EncoderWithHead
from birdclef_core.stages.precision import Arithmetic


class TorchRuntime:
    """Runs a detector in plain torch, in float32 by default. If memory is too small, it takes fewer windows at once."""

    def __init__(self, model: Detector | EncoderWithHead, device: torch.device, *, precision: Precision = "float32") -> None:
        """Move the model to the device and into evaluation mode. Its spectrogram is not used. `precision`: of the encoder; TF32 counts as
        float32."""
        # By default, torch rounds convolutions to TF32.
        self._arithmetic = Arithmetic("bfloat16" if precision == "bfloat16" else "float32", device)
        self._network, self._device = Network(model).to(device), device
        model.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._at_once: int | None = None

    @torch.inference_mode()
    def __call__(self, mel_BKFN: Tensor) -> Outputs:
        while True:
            try:
                parts = [self._run(part) for part in mel_BKFN.split(self._at_once or len(mel_BKFN))]
                return parts[0] if len(parts) == 1 else _joined(parts)
            except torch.OutOfMemoryError:
                if self._at_once == 1 or len(mel_BKFN) == 1:
                    raise
            self._at_once = -(-(self._at_once or len(mel_BKFN)) // 2)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _run(self, mel_BKFN: Tensor) -> Outputs:
        with self._arithmetic.autocast():
            return outputs_of(self._network(mel_BKFN.to(self._device)))


def _joined(parts: list[Outputs]) -> Outputs:
    clips, segments, embeddings = zip(*parts, strict=True)
    return Outputs(torch.cat(clips), None if segments[0] is None else torch.cat(segments), torch.cat(embeddings))
