"""A detector as it is deployed: one network or several, their spectrograms, and the procedure that turns sound into logits.

Shapes: B windows, T samples, K channels, F mel bins, N frames, D features, C species.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from birdclef_core.audio.spectrogram import MelSpectrogram
from birdclef_core.config import SAMPLE_RATE_HZ, ModelConfig, SpectrogramConfig
from birdclef_core.errors import InputError
from birdclef_core.identity import fingerprint
from birdclef_core.inference.pooling import pool
from birdclef_core.inference.procedure import DEFAULT, Procedure
from birdclef_core.inference.results.calibration import Calibration
from birdclef_core.inference.runtime import BATCH_SIZE, WINDOWS_AT_ONCE, Runtime
from birdclef_core.inference.threads import on_each_thread
from birdclef_core.inference.windows import Window, stream_windows

SHOWN_DIGITS = 16
"""Digits of a model's id in tables."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One network of a detector."""

    model_id: str
    """Id of the stage that its weights are of."""
    config: ModelConfig
    species: tuple[str, ...]
    """Species codes in the order of the network's classes."""
    runtime: Runtime
    weight: float = 1.0
    """Share of its logits in the detector's, relative to the other members."""
    takes_sound: bool = False
    """Whether the network has its spectrogram in itself, so that it is given the sound."""
    clip_s: float | None = None
    """Seconds that a head on embeddings hears at once; None: another network, which hears the whole context."""

    @property
    def clip(self) -> int | None:
        """Samples that a head on embeddings hears at once."""
        return None if self.clip_s is None else round(self.clip_s * SAMPLE_RATE_HZ)


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What a detector says of windows."""

    logits_BC: NDArray[np.float32]
    """Logits, species in sorted order."""
    embedding_BD: NDArray[np.float32]
    """Mean of the encoder's features, of the member with the largest weight."""


@dataclass(frozen=True)
class DeployedDetector:
    """One or several networks that hear the same windows. Their logits are averaged by weight."""

    members: tuple[Member, ...]
    procedure: Procedure = DEFAULT
    device: torch.device = field(default=torch.device("cpu"))
    """Where spectrograms are computed."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What people call a species, by its code."""
    weights_of_first: tuple[tuple[float, ...], ...] = ()
    """For each k, the weights of the first k members when only these run; none: they keep their own."""
    calibration: Calibration | None = None
    """How its logits become probabilities, where that is known."""

    def __post_init__(self) -> None:
        if not self.members or any(member.weight <= 0 for member in self.members):
            raise InputError("A detector must have at least one member, and weights above 0.")
        if len({tuple(sorted(member.species)) for member in self.members}) > 1:
            sizes = ", ".join(f"{member.model_id[:SHOWN_DIGITS]}: {len(member.species)}" for member in self.members)
            raise InputError(f"The members of a detector must know the same species, but do not ({sizes}).")
        longest_s = max((member.clip_s or 0.0 for member in self.members), default=0.0)
        if longest_s > self.procedure.context_s:
            raise InputError(
                f"context_s >= {longest_s:g} must hold, as a head on embeddings hears clips of {longest_s:g} s, but the procedure has "
                f"context_s={self.procedure.context_s:g}."
            )
        if self.weights_of_first and [len(weights) for weights in self.weights_of_first] != list(range(1, len(self.members) + 1)):
            raise InputError("weights_of_first must have k weights for the first k members, for each k.")

    @cached_property
    def species(self) -> tuple[str, ...]:
        """Species codes in sorted order, one for each logit."""
        return tuple(sorted(self.members[0].species))

    @cached_property
    def model_id(self) -> str:
        """Id of the only member, or the hash of all members' ids and shares."""
        return detector_id([member.model_id for member in self.members], [member.weight for member in self.members])

    @property
    def frequencies_hz(self) -> tuple[float, float]:
        """The lowest and the highest frequency that a member hears."""
        spectrograms = [member.config.spectrogram for member in self.members]
        return min(item.f_min_hz for item in spectrograms), max(item.f_max_hz for item in spectrograms)

    def first(self, count: int) -> "DeployedDetector":
        """Return a detector of the first `count` members, with the weights that they have then, and without a calibration."""
        if count == len(self.members):
            return self
        kept = self.members[:count]
        weights = self.weights_of_first[count - 1] if self.weights_of_first else [member.weight for member in kept]
        members = tuple(replace(member, weight=weight) for member, weight in zip(kept, weights, strict=True))
        return replace(self, members=members, weights_of_first=self.weights_of_first[:count], calibration=None)

    def with_procedure(self, procedure: Procedure) -> "DeployedDetector":
        """Return the same networks with another procedure."""
        return replace(self, procedure=procedure)

    def name(self, species: str) -> str:
        """Return what people call a species; its code where that is not known."""
        return self.names.get(species) or species

    def hear(self, wave_BT: NDArray[np.float32]) -> Heard:
        """Return what the detector says of windows. `wave_BT` is their context at 32 kHz, as `windows.heard` gives it."""
        (heard,) = self.hear_each([wave_BT])
        return heard

    def hear_each(self, batches: Iterable[NDArray[np.float32]]) -> Iterator[Heard]:
        """Yield what the detector says of each batch of windows.

        On a CPU, each of as many threads as torch has takes a few windows from the sound to the logits, so that no two wait for each other;
        and while they hear a batch, the next one is read.
        """
        if self.device.type != "cpu":
            yield from map(self._hear, batches)
            return
        groups = (
            [wave_BT[first : first + WINDOWS_AT_ONCE] for first in range(0, len(wave_BT), WINDOWS_AT_ONCE)] for wave_BT in batches
        )
        for heard in on_each_thread(self._hear, groups):
            yield Heard(
                logits_BC=np.concatenate([part.logits_BC for part in heard]),
                embedding_BD=np.concatenate([part.embedding_BD for part in heard]),
            )

    def hear_stream(
        self, blocks: Iterable[NDArray[np.float32]], *, first: int = 0, batch_size: int = BATCH_SIZE
    ) -> Iterator[tuple[list[Window], Heard]]:
        """Yield the windows of a stream of samples, batch by batch from window number `first` on, and what the detector says of them."""
        windows = stream_windows(blocks, self.procedure, first=first)
        taken: deque[list[Window]] = deque()

        def waves() -> Iterator[NDArray[np.float32]]:
            while batch := list(islice(windows, batch_size)):
                taken.append([window for window, _ in batch])
                wave_BT = np.stack([wave_T for _, wave_T in batch])
                del batch  # 80 MB, which would stay while the windows are heard
                yield wave_BT

        for heard in self.hear_each(waves()):
            yield taken.popleft(), heard

    @torch.inference_mode()
    def _hear(self, wave_BT: NDArray[np.float32]) -> Heard:
        total_BC = torch.zeros(0)
        embedding_BD = torch.zeros(0)
        main = max(self.members, key=lambda member: member.weight)
        heard = zip(self.inputs(wave_BT), self.members, self._shares, self._orders, strict=True)
        for given, member, share, order in heard:
            outputs = member.runtime(given)
            logits_BC = _of_windows(pool(outputs, self.procedure), len(wave_BT)).amax(dim=1)
            logits_BC = logits_BC.double().cpu()[:, order] * share
            total_BC = logits_BC if not total_BC.numel() else total_BC + logits_BC
            if member is main:
                embedding_BD = _of_windows(outputs.embedding_BD.float(), len(wave_BT)).mean(dim=1).cpu()
        return Heard(logits_BC=total_BC.float().numpy(), embedding_BD=embedding_BD.numpy())

    def inputs(self, wave_BT: NDArray[np.float32]) -> Iterator[Tensor]:
        """Yield what each member is given of windows: spectrograms mel_BKFN, or their sound wave_BT. A head on embeddings is given clips,
        those of a window one after the other."""
        wave = torch.from_numpy(wave_BT).to(self.device)
        decibels: dict[Decibels, Tensor] = {}
        for member in self.members:
            heard = self.sound_of(member, wave)
            yield heard if member.takes_sound else self._spectrogram(member, heard, decibels)

    def sound_of(self, member: Member, wave_BT: Tensor) -> Tensor:
        """Return what a member hears of windows: their context, or the clips of a head on embeddings."""
        if (clip := member.clip) is None:
            return wave_BT
        parts = [wave_BT[:, start : start + clip] for start in self.procedure.clips(clip)]
        return torch.stack(parts, dim=1).flatten(0, 1)

    def _spectrogram(self, member: Member, wave_BT: Tensor, decibels: "dict[Decibels, Tensor]") -> Tensor:
        """Return mel_BKFN that a member hears. Members whose decibels are the same share them.

        Decibels are cut below the maximum of the whole context, before a CNN's window is cut out of it.
        """
        config, same = member.config, decibels_of(member)
        front = self._fronts[config.spectrogram]
        if same not in decibels:
            decibels[same] = front.mel_db(wave_BT)
        db_BFN = decibels[same]
        if config.head == "cnn" and member.clip is None:
            first, last = self.procedure.frames(db_BFN.shape[2], config.spectrogram.hop_length)
            db_BFN = db_BFN[:, :, first:last]
        return front.to_channels(front.scale(db_BFN))

    @cached_property
    def _fronts(self) -> dict[SpectrogramConfig, MelSpectrogram]:
        configs = {member.config.spectrogram for member in self.members}
        return {config: MelSpectrogram(config).to(self.device) for config in configs}

    @cached_property
    def _shares(self) -> tuple[float, ...]:
        return shares([member.weight for member in self.members])

    @cached_property
    def _orders(self) -> list[list[int]]:
        """For each member, the class of each species."""
        return [[member.species.index(code) for code in self.species] for member in self.members]


Decibels = tuple[SpectrogramConfig, int | None]
"""What decibels depend on: settings, and the samples of a clip where not the context is heard."""


def decibels_of(member: Member) -> Decibels:
    """Return what a member's decibels depend on. Members for which it is equal share them."""
    default = SpectrogramConfig()
    return replace(member.config.spectrogram, db_scale=default.db_scale, deltas=default.deltas), member.clip


def _of_windows(values: Tensor, num_windows: int) -> Tensor:
    """Return values of clips (B * clips, ...) by windows: (B, clips, ...). A network that hears the context has one a window."""
    return values.unflatten(0, (num_windows, -1))


def soup_id(stage_ids: Sequence[str]) -> str:
    """Return the id of a network whose weights are the mean of those of stages: of one stage its own, else a hash of all their ids."""
    return stage_ids[0] if len(stage_ids) == 1 else fingerprint(["soup", *sorted(stage_ids)])


def shares(weights: Sequence[float]) -> tuple[float, ...]:
    """Return weights so that they sum to 1."""
    total = sum(weights)
    return tuple(weight / total for weight in weights)


def detector_id(model_ids: Sequence[str], weights: Sequence[float]) -> str:
    """Return the id of a detector: that of its only network, or a hash of the ids and shares of all."""
    if len(model_ids) == 1:
        return model_ids[0]
    return fingerprint([[model_id, share] for model_id, share in zip(model_ids, shares(weights), strict=True)])
