"""Batches made ahead of the device by threads that start once and live as long as their feed."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, TypeVar

Task = TypeVar("Task")
Batch = TypeVar("Batch")


class Prefetcher(Generic[Task, Batch]):
    """Runs `make(task)` for a few tasks ahead, in order. An error in a thread is raised where its batch is asked for."""

    def __init__(self, make: Callable[[Task], Batch], *, threads: int = 2, depth: int = 4) -> None:
        self._make = make
        self._depth = depth
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="feed")
        self.waited_s = 0.0
        """Seconds that the consumer has waited for batches so far."""

    def batches(self, tasks: Iterable[Task]) -> Iterator[Batch]:
        """The batch of each task. Whatever was made ahead is dropped when the caller stops early."""
        remaining = iter(tasks)
        ahead: deque[Future[Batch]] = deque(self._pool.submit(self._make, task) for task in islice(remaining, self._depth))
        try:
            while ahead:
                started = time.perf_counter()
                batch = ahead.popleft().result()
                self.waited_s += time.perf_counter() - started
                ahead.extend(self._pool.submit(self._make, task) for task in islice(remaining, 1))
                yield batch
        finally:
            for job in ahead:
                job.cancel()

    def close(self) -> None:
        """Ends the threads. To be called once, after the last batch."""
        self._pool.shutdown(cancel_futures=True)
