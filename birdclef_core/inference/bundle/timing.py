"""Measures how much CPU time a network of a bundle takes for a window, with one thread.

Shapes: B windows, T samples.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from birdclef_core.audio.spectrogram import MelSpectrogram
from birdclef_core.config import ModelConfig
from birdclef_core.inference.runtime import Runtime

_WINDOWS, _TIMES = 4, 3


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def network_ms(runtime: Runtime, shape: tuple[int, ...]) -> float:
    """Return the milliseconds of CPU time of a network for one window. `shape` is that of what it is given of a window, which is noise: its
    time does not depend on that."""
    heard = torch.rand(_WINDOWS, *shape, generator=torch.Generator().manual_seed(0))
    return _cpu_ms(lambda: runtime(heard)) / _WINDOWS


def spectrogram_ms(config: ModelConfig, num_samples: int) -> float:
    """Return the milliseconds of CPU time of a spectrogram of so many samples."""
    front = MelSpectrogram(config.spectrogram)
    wave_BT = torch.rand(_WINDOWS, num_samples, generator=torch.Generator().manual_seed(0)) - 0.5
    return _cpu_ms(lambda: front(wave_BT)) / _WINDOWS


def _cpu_ms(work: Callable[[], object]) -> float:
    """The least of several times, after one that is not counted."""
    work()
    times = []
    for _ in range(_TIMES):
        before = time.process_time()
        work()
        times.append(time.process_time() - before)
    return 1000 * min(times)
