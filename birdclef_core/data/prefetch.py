"""Makes batches ahead of the device, in threads that start once and live as long as their feed."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

READER_THREADS = 2
"""Number of threads that read clips; docs/benchmarks/data.md says why."""

Task = TypeVar("Task")
Batch = TypeVar("Batch")


@dataclass(frozen=True)
class FeedStats:
    """How well a feed and its consumer kept up with each other since the start; `later - earlier` is what lies between."""

    batches: int = 0
    """Batches that were handed over."""
    waited_s: float = 0.0
    """Time that the consumer waited for batches."""
    busy_s: float = 0.0
    """Time that the threads spent on making batches, added up; near `threads` x duration, the threads are the bottleneck."""
    ready: int = 0
    """Batches that were ready when the consumer asked for one, added up. Where `ready / batches` is near 0, the consumer waits
    for data; where it is near the depth, the data wait for the consumer."""

    def __sub__(self, earlier: "FeedStats") -> "FeedStats":
        return FeedStats(
            self.batches - earlier.batches,
            self.waited_s - earlier.waited_s,
            self.busy_s - earlier.busy_s,
            self.ready - earlier.ready,
        )


class Prefetcher(Generic[Task, Batch]):
    """Runs `make(task)` for a few tasks ahead and gives the results in order. An error in a thread is raised with its batch."""

    def __init__(self, make: Callable[[Task], Batch], *, threads: int = 2, depth: int = 4) -> None:
        """Start the threads; at most `depth` tasks are ahead of the consumer."""
        self.threads, self.depth = threads, depth
        self._make = make
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="feed")
        self._batches = self._ready = 0
        self._waited_s = self._busy_s = 0.0
        self._busy_lock = threading.Lock()

    @property
    def in_use(self) -> int:
        """Most batches that exist at one time: those ahead, the one being consumed, and its successor as it is handed over."""
        return self.depth + 2

    @property
    def stats(self) -> FeedStats:
        """Statistics since the start."""
        return FeedStats(self._batches, self._waited_s, self._busy_s, self._ready)

    def batches(self, tasks: Iterable[Task]) -> Iterator[Batch]:
        """Yield the batch of each task, in order. What was made ahead is dropped when the caller stops early."""
        remaining = iter(tasks)
        ahead: deque[Future[Batch]] = deque(self._pool.submit(self._timed, task) for task in islice(remaining, self.depth))
        try:
            while ahead:
                self._ready += sum(job.done() for job in ahead)
                started = time.perf_counter()
                batch = ahead.popleft().result()
                self._waited_s += time.perf_counter() - started
                self._batches += 1
                ahead.extend(self._pool.submit(self._timed, task) for task in islice(remaining, 1))
                yield batch
        finally:
            for job in ahead:
                job.cancel()

    def close(self) -> None:
        """End the threads. Call it once, after the last batch."""
        self._pool.shutdown(cancel_futures=True)

    def _timed(self, task: Task) -> Batch:
        started = time.perf_counter()
        try:
            return self._make(task)
        finally:
            with self._busy_lock:
                self._busy_s += time.perf_counter() - started
