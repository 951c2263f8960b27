"""Where the time of an epoch went: the device, waiting for data, or neither; and what would help.

Times are taken without waiting for the device: on a GPU by events that are read when the epoch is over.
"""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch

from birdclef_core.data.feed import TrainFeed

_SHARE_OF_NOTE = 0.1


class StepClock:
    """Time that a device spends on steps."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._seconds = 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around a step."""
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
        """Seconds of all steps so far. Waits for the device."""
        if self._events:
            self._events[-1][1].synchronize()
            self._seconds += sum(begin.elapsed_time(end) for begin, end in self._events) / 1000
            self._events.clear()
        return self._seconds


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """How an epoch's training, or a part of it, went by."""

    clips: int = 0
    train_s: float = 0.0
    waited_s: float = 0.0
    """Time in which training stood still for data."""
    device_s: float = 0.0
    """Time in which the device worked on steps."""
    reader_s: float = 0.0
    """Time that the threads that read clips were busy, added up."""

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
    """Measures an epoch's training from where it begins or goes on."""

    def __init__(self, feed: TrainFeed, device: torch.device, before: Throughput) -> None:
        """`before` is what of the epoch was done before an interruption."""
        self._feed, self._before = feed, before
        self.clock = StepClock(device)
        self._started, self._stats = time.perf_counter(), feed.stats

    def so_far(self, clips: int) -> Throughput:
        """All of the epoch up to now, of which `clips` clips since this meter began. Waits for the device."""
        device_s = self.clock.total_s()
        stats = self._feed.stats - self._stats
        train_s = time.perf_counter() - self._started
        now = Throughput(clips=clips, train_s=train_s, waited_s=stats.waited_s, device_s=device_s, reader_s=stats.busy_s)
        return self._before + now


def reset_peak_memory(device: torch.device) -> None:
    """Begins a new peak, where the device can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory in use since the last reset: of the GPU by this process; without a GPU, of the process in its life."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
