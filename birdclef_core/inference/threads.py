"""Runs work on the cores of a CPU, a thread of torch for each: windows do not need each other, so no core waits for another."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")


def on_each_thread(work: Callable[[Part], Result], groups: Iterable[Sequence[Part]]) -> Iterator[list[Result]]:
    """Yield for each group what `work` returns for its parts, in their order. It runs in as many threads as torch has, and with one thread of
    torch each.

    While a group is at work, the next one is taken from `groups`, and is begun by the threads that the first has no work for. An error of `work`
    or `groups` is raised once the threads have ended.
    """
    num_threads = torch.get_num_threads()
    if num_threads == 1:
        for group in groups:
            yield [work(part) for part in group]
        return
    pool = ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,))
    at_work: deque[list[Future[Result]]] = deque()
    try:
        for group in groups:
            at_work.append([pool.submit(work, part) for part in group])
            if len(at_work) > 1:
                yield _results(at_work.popleft())
        while at_work:
            yield _results(at_work.popleft())
    finally:
        pool.shutdown(cancel_futures=True)
        # Each thread has a number of its own, and those that begin later take the last one that was set.
        torch.set_num_threads(num_threads)


def _results(jobs: Sequence[Future[Result]]) -> list[Result]:
    return [job.result() for job in jobs]
