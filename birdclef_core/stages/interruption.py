"""Reasons for which a stage ends before its end, at its next step and with its checkpoint written: time is up, SIGTERM."""

import signal
import time
from collections.abc import Callable
from types import FrameType

Stop = Callable[[], str]
"""Asked after every step; gives the reason to stop, or an empty text to go on."""


class StageInterrupted(Exception):
    """A stage stopped on request. Its checkpoint is written: the same call goes on from there. No failure, so no BirdclefError."""


def never() -> str:
    """Does not stop."""
    return ""


class TimeLimit:
    """Stops when `limit_s` seconds have passed since it was made."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._end = time.monotonic() + limit_s

    def __call__(self) -> str:
        return f"the time limit of {self._limit_s:g} s has passed" if time.monotonic() >= self._end else ""


class Termination:
    """Stops after this process was sent SIGTERM, as machines that are taken away do some time before. A context manager, in the
    main thread only: Python allows signal handlers nowhere else."""

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
    """Stops when one of them does, for its reason."""
    return lambda: next((reason for stop in stops if (reason := stop())), "")
