"""The outbox leaves the driver its CPU: many requests take a stated share of a core, few are sent at once."""

import pytest

from sweeps.tracking.to_mlflow import outbox as outbox_module
from sweeps.tracking.to_mlflow.outbox import CPU_SHARE, FREE_CPU_S, Outbox


class Clock:
    """A time that passes with work and with rest alone. Everything that takes time takes the CPU."""

    def __init__(self) -> None:
        self.now_s = self.cpu_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def thread_time(self) -> float:
        return self.cpu_s

    def work(self, seconds: float) -> None:
        self.now_s += seconds
        self.cpu_s += seconds

    def rest(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(outbox_module, "time", clock)
    return clock


def test_many_requests_take_their_share_of_a_core_and_few_are_sent_at_once(clock):
    outbox = Outbox(None, "", threads=1)
    outbox.rest = clock.rest
    outbox.at_once(clock.work, [FREE_CPU_S / 10] * 9)
    assert clock.now_s == clock.cpu_s, "a small sweep"
    outbox.at_once(clock.work, [0.1] * 100)
    assert clock.cpu_s / clock.now_s == pytest.approx(CPU_SHARE, rel=0.05)
    assert outbox.steps == 109
    clock.rest(1000)
    before_s = clock.now_s
    outbox.at_once(clock.work, [FREE_CPU_S / 10] * 9)
    assert clock.now_s - before_s == pytest.approx(9 * FREE_CPU_S / 10), "after a pause too"


def test_a_request_that_fails_is_counted_and_nothing_rests_where_nobody_asks_for_it(clock):
    outbox = Outbox(None, "", threads=1)

    def fail(seconds: float) -> None:
        clock.work(seconds)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        outbox.at_once(fail, [1.0] * 3)
    assert clock.now_s == 3.0
    outbox.rest = clock.rest
    outbox.at_once(clock.work, [0.1])
    assert clock.now_s > 3.0 / CPU_SHARE - FREE_CPU_S / CPU_SHARE
