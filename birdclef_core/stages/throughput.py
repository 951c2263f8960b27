"""Measures where the time of an epoch goes: to the device, to waiting for data, or to neither.

The measurement does not wait for the device: on a GPU it records events, which are read when the epoch is over.
"""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch

from birdclef_core.data.feed import TrainFeed

_SHARE_OF_NOTE = 0.1
"""From this share of the time on, waiting for clips is reported."""


class StepClock:
    """Measures the time that a device spends on steps."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._seconds = 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Measure the step within the block."""
        if self._device.type != "cuda":
            started = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - started
            return
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        yield
        end.record()
        self._events.append((begin, end))

    def total_s(self) -> float:
        """Return the seconds of all steps so far. Waits for the device."""
        if self._events:
            self._events[-1][1].synchronize()
            self._seconds += sum(begin.elapsed_time(end) for begin, end in self._events) / 1000
            self._events.clear()
        return self._seconds


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Clips and times of the training of an epoch, or of a part of it."""

    clips: int = 0
    """Clips that were trained on."""
    train_s: float = 0.0
    """Elapsed time."""
    waited_s: float = 0.0
    """Time in which training waited for clips."""
    device_s: float = 0.0
    """Time in which the device worked on steps."""
    reader_s: float = 0.0
    """Time in which the threads that read clips worked, summed over threads."""

    def __add__(self, other: "Throughput") -> "Throughput":
        return Throughput(**{item.name: getattr(self, item.name) + getattr(other, item.name) for item in fields(self)})

    @property
    def clips_per_s(self) -> float:
        return self.clips / self.train_s

    @property
    def waits_for_data(self) -> bool:
        """Whether more than a tenth of the time went into waiting for clips."""
        return self.waited_s > _SHARE_OF_NOTE * self.train_s


class EpochMeter:
    """Measures the training of an epoch from where it starts or continues."""

    def __init__(self, feed: TrainFeed, device: torch.device, before: Throughput) -> None:
        """Start measuring. `before` is the part of the epoch that was done before an interruption."""
        self._feed, self._before = feed, before
        self.clock = StepClock(device)
        self._started, self._stats = time.perf_counter(), feed.stats

    def so_far(self, clips: int) -> Throughput:
        """Return the throughput of the epoch up to now; `clips` of its clips came since this meter started. Waits for the device."""
        device_s = self.clock.total_s()
        stats = self._feed.stats - self._stats
        train_s = time.perf_counter() - self._started
        now = Throughput(clips=clips, train_s=train_s, waited_s=stats.waited_s, device_s=device_s, reader_s=stats.busy_s)
        return self._before + now


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak of memory use, where the device can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak memory use: of this process on the GPU since the last reset; without a GPU, of the process since its start."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
