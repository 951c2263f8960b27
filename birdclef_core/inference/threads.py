"""Runs work on the cores of a CPU, a thread of torch for each: windows do not need each other, so no core waits for another."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")


def on_each_thread(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """Return what `work` returns for each part, in their order. It runs in as many threads as torch has, and with one thread of torch each.

    An error of `work` is raised once the threads have ended.
    """
    num_threads = torch.get_num_threads()
    if num_threads == 1:
        return [work(part) for part in parts]
    try:
        with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, parts))
    finally:
        # Each thread has a number of its own, and those that begin later take the last one that was set.
        torch.set_num_threads(num_threads)
