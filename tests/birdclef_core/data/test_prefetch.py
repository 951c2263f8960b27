import threading
import time

import pytest

from birdclef_core.data.prefetch import Prefetcher


def test_order_is_kept_and_threads_are_started_once() -> None:
    names = set()

    def make(task: int) -> int:
        names.add(threading.current_thread().name)
        time.sleep(0.002 * (task % 3))
        return task

    prefetcher = Prefetcher(make, threads=2)
    for _ in range(3):
        assert list(prefetcher.batches(range(20))) == list(range(20))
    prefetcher.close()
    assert len(names) == 2


def test_an_error_reaches_the_consumer_at_its_batch() -> None:
    def make(task: int) -> int:
        if task == 3:
            raise ValueError("batch 3 is broken")
        return task

    prefetcher = Prefetcher(make)
    seen = []
    with pytest.raises(ValueError, match="batch 3"):
        seen.extend(prefetcher.batches(range(10)))
    assert list(prefetcher.batches([7])) == [7]
    prefetcher.close()


def test_no_more_is_made_than_the_depth() -> None:
    made = []
    prefetcher = Prefetcher(made.append, depth=3)
    batches = prefetcher.batches(range(100))
    next(batches)
    time.sleep(0.05)
    assert len(made) <= 4
    batches.close()
    prefetcher.close()


def test_who_waited_for_whom_is_counted() -> None:
    slow, quick = (Prefetcher(lambda task, s=s: time.sleep(s), threads=1, depth=3) for s in (0.02, 0.0))
    for prefetcher in (slow, quick):
        list(prefetcher.batches(range(3)))
        before = prefetcher.stats
        for _ in prefetcher.batches(range(5)):
            time.sleep(0.005)
        stats = prefetcher.stats - before
        assert stats.batches == 5
        if prefetcher is slow:
            assert 0.06 < stats.waited_s < 0.2 and 0.1 < stats.busy_s < 0.2 and stats.ready == 0
        else:
            assert stats.waited_s < 0.02 and stats.busy_s < 0.02 and stats.ready >= 8
        prefetcher.close()
