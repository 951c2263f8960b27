"""How long work waits for a storage that is away, and which errors mean that it is: an object store is away for minutes now and then."""

import _thread
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Say = Callable[[str], None]

DEFAULT_MINUTES = 15.0
PAUSES_S = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
"""Seconds between attempts. Each attempt takes some seconds by itself, because the library below tries three times."""

NO_REASON = "No response body"
"""In an error of a request that is answered without a reason."""
_EXPIRED = (
    "its credentials have expired: renew them where they came from (such as ~/.aws/credentials), and the work goes on by itself"
)
_SKEWED = "this machine's clock differs too much from the storage's: set it right, and the work goes on by itself"
_BUSY = "it takes fewer requests than it gets"
_AWAY = "it cannot be reached"
_SIGNS = (
    (_EXPIRED, ("ExpiredToken", "EXPIRED_TOKEN", "REQUEST_EXPIRED", "RequestExpired", "TokenRefreshRequired")),
    (_SKEWED, ("REQUEST_TIME_TOO_SKEWED", "RequestTimeTooSkewed")),
    (_BUSY, ("SLOW_DOWN", "SlowDown", "THROTTLING", "HTTP status 429", "HTTP status 503", "RESOURCE_EXHAUSTED")),
    (
        _AWAY,
        (
            "NETWORK_CONNECTION",
            "INTERNAL_FAILURE",
            "REQUEST_TIMEOUT",
            "HTTP status 5",
            "curlCode",
            "UNAVAILABLE",
            "DEADLINE_EXCEEDED",
        ),
    ),
)
"""What is said of an error of pyarrow's file systems, by words in it."""

_log = logging.getLogger(__name__)


class StorageAway(OSError):
    """The storage was away for longer than work waits for it."""


class Clock(Protocol):
    """The time by which work waits."""

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


def reason_of(error: OSError) -> str:
    """Return why an operation on a remote storage failed if it may succeed later; an empty text for every other error."""
    text = str(error)
    return next((reason for reason, signs in _SIGNS if any(sign in text for sign in signs)), "")


class Patience:
    """Waits for a storage that is away and says so once. Shared by all that use the storage in a process; any thread may call it.

    A copy in another process says what it has to say to that process's log.
    """

    def __init__(self, limit_s: float = 0.0, say: Say | None = None, clock: Clock = time, *, interrupts: bool = False) -> None:
        """`limit_s`: for how long one operation waits; 0: not at all. `say`: told when the storage is away, and when it is back.

        `interrupts`: whether the process's main thread is interrupted, as by Ctrl-C, when another thread gives up.
        """
        self._interrupts = interrupts
        self.limit_s, self._say, self._clock = limit_s, say or _log.warning, clock
        self.given_up = ""
        """What to tell the user once the storage was away for too long: nothing waits for it any more. Empty until then."""
        self._away_since: float | None = None
        self._next_attempt = 0.0
        self._attempts = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["Patience"], tuple[Any, ...]]:
        return Patience, (self.limit_s, None, self._clock) if self._clock is not time else (self.limit_s,)

    @property
    def is_away(self) -> bool:
        """Whether the storage did not answer when it was last asked for something that can wait."""
        return self._away_since is not None

    def wait_for(self, place: str, work: Callable[[], T], explain: Callable[[], None]) -> T:
        """Return what `work` returns, and try again while the storage is away. Raises StorageAway when it was for too long.

        `explain` is called after an error without a reason; it asks the storage for something that is answered with one.
        """
        started, attempts = self._clock.monotonic(), 0
        while True:
            try:
                result = work()
            except OSError as error:
                reason = _ask(error, explain)
                if not reason or not self.limit_s:
                    raise
                self._note_away(place, reason)
                waited_s = self._clock.monotonic() - started
                if self.given_up or waited_s >= self.limit_s:
                    raise self._give_up(place, reason) from error
                self._clock.sleep(min(PAUSES_S[min(attempts, len(PAUSES_S) - 1)], self.limit_s - waited_s))
                attempts += 1
            else:
                self._note_back(place)
                return result

    def attempt(self, place: str, work: Callable[[], None], explain: Callable[[], None]) -> bool:
        """Do `work` if the storage is there, and return whether it was. While it is away, call again: most calls return at once.

        Raises StorageAway when it was away for too long, and any other error of `work`.
        """
        if self.given_up or (self._away_since is not None and self._clock.monotonic() < self._next_attempt):
            return False
        try:
            work()
        except OSError as error:
            reason = _ask(error, explain)
            if not reason or not self.limit_s:
                raise
            since = self._note_away(place, reason)
            if self._clock.monotonic() - since >= self.limit_s:
                raise self._give_up(place, reason) from error
            return False
        self._note_back(place)
        return True

    def _note_away(self, place: str, reason: str) -> float:
        with self._lock:
            now = self._clock.monotonic()
            if self._away_since is None:
                self._away_since, self._attempts = now, 0
                minutes = f"{self.limit_s / 60:.3g} minutes"
                self._say(
                    f"The storage {place} is away: {reason}. What must be written waits, for at most {minutes}; trials go on."
                )
            self._next_attempt = now + PAUSES_S[min(self._attempts, len(PAUSES_S) - 1)]
            self._attempts += 1
            return self._away_since

    def _note_back(self, place: str) -> None:
        if self._away_since is None:
            return
        with self._lock:
            if self._away_since is not None:
                self._say(f"The storage {place} is back after {self._clock.monotonic() - self._away_since:.0f} s.")
                self._away_since = None

    def _give_up(self, place: str, reason: str) -> StorageAway:
        is_first = not self.given_up
        self.given_up = f"The storage {place} was away for {self.limit_s / 60:.3g} minutes: {reason}."
        if is_first and self._interrupts and threading.current_thread() is not threading.main_thread():
            _thread.interrupt_main()
        return StorageAway(self.given_up)


def _ask(error: OSError, explain: Callable[[], None]) -> str:
    if isinstance(error, (StorageAway, FileNotFoundError)):
        return ""
    reason = reason_of(error)
    if not reason and NO_REASON in str(error):
        try:
            explain()
        except OSError as told:
            return reason_of(told)
    return reason
