"""Reasons to stop a stage early: a time limit, or SIGTERM. It stops after its next step, with its checkpoint written."""

import signal
import time
from collections.abc import Callable
from types import FrameType

Stop = Callable[[], str]
"""Called after every step; returns the reason to stop, or an empty text to continue."""


class StageInterrupted(Exception):
    """A stage stopped on request. Its checkpoint is written, so the same call continues from there. Not a failure: no BirdclefError."""


def never() -> str:
    """Never stop."""
    return ""


class TimeLimit:
    """A `Stop` that stops `limit_s` seconds after it was made."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._end = time.monotonic() + limit_s

    def __call__(self) -> str:
        return f"the time limit of {self._limit_s:g} s has passed" if time.monotonic() >= self._end else ""


class Termination:
    """A `Stop` that stops after this process has received SIGTERM, which is sent some time before a machine is taken away.

    It is a context manager for the main thread: Python allows signal handlers nowhere else.
    """

    def __init__(self) -> None:
        self._received = False

    def __call__(self) -> str:
        return "SIGTERM was received" if self._received else ""

    def __enter__(self) -> "Termination":
        self._previous = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = True


def any_of(*stops: Stop) -> Stop:
    """Return a `Stop` that stops when one of `stops` does, for its reason."""
    return lambda: next((reason for stop in stops if (reason := stop())), "")
