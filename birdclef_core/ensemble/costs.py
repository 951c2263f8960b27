"""What candidates cost: milliseconds of CPU time for a window, measured on this machine.

Members whose decibels are the same share them, so a member costs less beside such a one than alone.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch

from birdclef_core.audio.spectrogram import MelSpectrogram
from birdclef_core.inference.deployed import DeployedDetector, Member, decibels_of
from birdclef_core.inference.procedure import Procedure

FILE_S = 600.0
"""Seconds of a file where a cost is given for a file: a soundscape of BirdCLEF 2023."""

_WINDOWS = 8
_RUNS = 3


@dataclass(frozen=True, kw_only=True)
class CandidateCost:
    """What one network takes for a window."""

    network_ms: float
    spectrogram_ms: float
    decibels: Hashable
    """Equal for candidates that share decibels."""

    def times(self, count: int) -> "CandidateCost":
        """Return what so many networks of one model take together: they share their decibels."""
        return replace(self, network_ms=count * self.network_ms)


@dataclass(frozen=True)
class Costs:
    """What candidates cost, together and alone."""

    candidates: tuple[CandidateCost, ...]

    def __call__(self, members: Sequence[int]) -> float:
        """Return the milliseconds for a window that candidates take together."""
        chosen = [self.candidates[member] for member in members]
        spectrograms = {cost.decibels: cost.spectrogram_ms for cost in chosen}
        return sum(cost.network_ms for cost in chosen) + sum(spectrograms.values())

    def added(self, members: Sequence[int]) -> tuple[float, ...]:
        """Return the milliseconds that each candidate adds to those before it."""
        totals_ms = [self(members[:count]) for count in range(len(members) + 1)]
        return tuple(after - before for before, after in pairwise(totals_ms))


def measure(member: Member, procedure: Procedure) -> CandidateCost:
    """Return what a member that runs on the CPU takes, on one thread and without reading audio: the least of three runs of eight windows."""
    detector = DeployedDetector((member,), procedure)
    wave_BT = np.random.default_rng(0).normal(0, 0.05, (_WINDOWS, procedure.context)).astype(np.float32)
    decibels: Hashable = member.model_id if member.takes_sound else decibels_of(member)
    spectrogram, heard_BT = MelSpectrogram(member.config.spectrogram), detector.sound_of(member, torch.from_numpy(wave_BT))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        all_ms = _least_ms(lambda: detector.hear(wave_BT))
        with torch.inference_mode():
            spectrogram_ms = 0.0 if member.takes_sound else _least_ms(lambda: spectrogram.mel_db(heard_BT))
    finally:
        torch.set_num_threads(threads)
    return CandidateCost(network_ms=max(0.0, all_ms - spectrogram_ms), spectrogram_ms=spectrogram_ms, decibels=decibels)


def per_file_s(ms_per_window: float, procedure: Procedure) -> float:
    """Return the seconds of CPU time for a file of ten minutes."""
    return ms_per_window / 1000 * FILE_S / procedure.step_s


def _least_ms(run: Callable[[], object]) -> float:
    run()
    taken = []
    for _ in range(_RUNS):
        started = time.process_time()
        run()
        taken.append(time.process_time() - started)
    return 1000 * min(taken) / _WINDOWS
