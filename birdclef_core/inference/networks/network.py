"""A network as it is deployed: from spectrograms to outputs, as a module that every runtime and every format of a bundle is made of.

Shapes: B windows, K channels, F mel bins, N frames, D features, H and W the feature map (frequency, time), S segments, C species.
"""

from torch import Tensor, nn

from birdclef_core.audio.spectrogram import MelSpectrogram
from birdclef_core.config import ModelConfig
from birdclef_core.inference.procedure import Procedure
from birdclef_core.models.detector import Detector
from birdclef_core.models.heads import SedHead
from birdclef_core.stages.embeddings.hearing import EncoderWithHead


class Network(nn.Module):
    """A detector without its spectrogram: mel_BKFN -> the tensors of `output_names`."""

    input_name = "mel"

    def __init__(self, model: Detector | EncoderWithHead) -> None:
        super().__init__()
        self.model = model.eval()

    @property
    def output_names(self) -> tuple[str, ...]:
        """What it says, in order: logits of all that it hears, of a SED also those of each segment, and the embedding."""
        return ("clip", "segments", "embedding") if isinstance(self.model.head, SedHead) else ("clip", "embedding")

    def forward(self, mel_BKFN: Tensor) -> tuple[Tensor, ...]:
        # Not by the model's own call, which takes whole pieces of five seconds only: a window has one frame less with some hops.
        features_BDHW = self.model.encoder(self.model.input_norm(mel_BKFN))
        scores = self.model.head(features_BDHW)
        embedding_BD = features_BDHW.float().mean(dim=(2, 3))
        if scores.frame_logits_BNC is None:
            return scores.logits_BC, embedding_BD
        return scores.logits_BC, scores.frame_logits_BNC, embedding_BD


def input_shape(config: ModelConfig, procedure: Procedure, clip: int | None = None) -> tuple[int, int, int]:
    """Return (K, F, N) of the spectrograms that a network takes in a procedure: all frames of a SED, the window's of a CNN, or those of a
    clip of so many samples for a head on embeddings."""
    spectrogram = config.spectrogram
    num_frames = MelSpectrogram(spectrogram).num_frames(clip or procedure.context)
    if config.head == "cnn" and clip is None:
        first, last = procedure.frames(num_frames, spectrogram.hop_length)
        num_frames = last - first
    return spectrogram.num_channels, spectrogram.num_mels, num_frames
