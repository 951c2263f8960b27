"""Teachers that hear windows together: trained detectors, and heads on embeddings with their encoders.

Shapes: B windows, T samples, K channels, F mel bins, N frames, C species.
"""

from collections.abc import Iterator, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from birdclef_core.config import ModelConfig
from birdclef_core.errors import StoreError
from birdclef_core.identity import restore
from birdclef_core.models.detector import Detector
from birdclef_core.models.heads import Output
from birdclef_core.stages.embeddings.clips import clips_around, side_of
from birdclef_core.stages.embeddings.hearing import HearingHead, with_encoder
from birdclef_core.store.stage_store import StageEntry, StageStore
from birdclef_core.taxonomy import LabelSpace

SMALLEST = 1e-6
"""Nearest that a softmax comes to 0 or 1 where it becomes a logit."""


class Together(nn.Module):
    """Teachers that hear together: their logits are averaged with weights, by species.

    The sigmoid of a logit is the probability of the species, as the loss of its model means it: cross-entropy compares the species of a
    clip with each other, so the probabilities of such a model are the softmax over all that it knows.
    """

    def __init__(
        self,
        models: Sequence[Detector | HearingHead],
        weights: Sequence[float],
        columns: Sequence[Tensor],
        compares: Sequence[bool],
        window: int,
    ) -> None:
        """`columns`: for each model, the class of each species of the result; `compares`: whether it was trained by cross-entropy. `window`:
        samples of a window."""
        super().__init__()
        self._compares = compares
        self.models = nn.ModuleList(models)
        self._shares = [weight / sum(weights) for weight in weights]
        self._columns, self._window = columns, window
        self.side = max((side_of(window, model.clip) for model in models if isinstance(model, HearingHead)), default=0)
        """Samples that it takes on each side of a window, because the clips of a head may be longer."""

    @classmethod
    def of_stages(
        cls, store: StageStore, entries: Sequence[StageEntry], weights: Sequence[float], window: int, device: torch.device
    ) -> tuple[Self, LabelSpace]:
        """Return trained stages as teachers on their device, and the species that all of them know.

        Raises StoreError when they have none in common or the embeddings of a head are not in the store, and as `with_encoder` does.
        """
        species = _species(entries)
        models = [_model(store, entry, device) for entry in entries]
        columns = [
            torch.tensor([entry.record.species.index(code) for code in species.species], device=device) for entry in entries
        ]
        compares = [entry.record.identity["stage"].get("loss") == "ce" for entry in entries]
        return cls(models, weights, columns, compares, window).to(device).eval(), species

    def spectrograms(self, wave_BT: Tensor) -> Tensor:
        """Return the waves as they are: models may have different spectrograms."""
        return wave_BT

    def forward(self, wave_BT: Tensor) -> Output:
        total_BC: Tensor | float = 0.0
        for model, share, columns, compares in zip(self.models, self._shares, self._columns, self._compares, strict=True):
            heard = [
                torch.logit(logits_BC.softmax(dim=1), eps=SMALLEST) if compares else logits_BC
                for logits_BC in self._logits(model, wave_BT)
            ]
            largest_BC = torch.stack(heard).amax(dim=0) if len(heard) > 1 else heard[0]
            total_BC = total_BC + share * largest_BC[:, columns]
        assert isinstance(total_BC, Tensor)
        return Output(total_BC, None, None)

    def _logits(self, model: nn.Module, wave_BT: Tensor) -> Iterator[Tensor]:
        """Yield the logits of each clip by which a model hears the windows: a detector hears them at once."""
        if isinstance(model, HearingHead):
            for start in clips_around(self._window, self.side, model.clip):
                yield model(wave_BT[:, start : start + model.clip])
            return
        with torch.autocast(wave_BT.device.type, enabled=False):
            mel_BKFN = model.spectrograms(wave_BT[:, self.side : self.side + self._window])  # type: ignore[operator]
        yield model(mel_BKFN).logits_BC.float()


def _species(entries: Sequence[StageEntry]) -> LabelSpace:
    """The species that all teachers know."""
    shared = set.intersection(*(set(entry.record.species) for entry in entries))
    if not shared:
        raise StoreError("Teachers that predict together must have species in common, but have none.")
    return LabelSpace.of("predicted", shared)


def _model(store: StageStore, entry: StageEntry, device: torch.device) -> Detector | HearingHead:
    config = restore(ModelConfig, entry.record.identity["model"])
    if entry.record.is_head:
        embeddings = store.open(entry.record.identity["embeddings"])
        if embeddings is None:
            raise StoreError(
                f"The head {entry.record.stage_id[:12]} hears with the encoder of {entry.record.identity['embeddings'][:12]}, which is not in "
                "the store."
            )
        return HearingHead(with_encoder(entry.record, config, entry.weights(), embeddings), device)
    model = Detector(config, len(entry.record.species))
    model.load_state_dict(entry.weights())
    model.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model
