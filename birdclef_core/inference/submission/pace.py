"""Keeps a run within its time: measures what each network takes, projects the end, and says how many networks can go on.

The clock is given, so that all of it can be tested without waiting.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import ceil
from threading import Lock

from torch import Tensor

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.inference.deployed import DeployedDetector
from birdclef_core.inference.runtime import WINDOWS_AT_ONCE, Outputs, Runtime
from birdclef_core.inference.submission.rows import WINDOW_S
from birdclef_core.wording import format_duration

Clock = Callable[[], float]
"""Returns seconds from some beginning."""
Say = Callable[[str], None]

MARGIN = 1.05
"""A projection counts what is left so many times: it is made from a part of the files."""
MEASURED_S = 300.0
"""Seconds of audio that must have been heard before a projection counts; a tenth of all audio is enough too."""
RESERVED_SHARE = 0.02
"""Share of the time that is kept for writing, besides `SECONDS_PER_VALUE`."""
SECONDS_PER_VALUE = 3e-6
"""Time to write one score, on a slow disk."""


class OutOfTimeError(Exception):
    """There is no time left to hear anything more."""


class FewerMembersError(Exception):
    """The run can end in time only with fewer members; the file that is being heard is heard again with them."""


@dataclass
class Stopwatch:
    """Seconds that each network has taken, in all threads together."""

    clock: Clock
    seconds: list[float]
    lock: Lock = field(default_factory=Lock)

    def timed(self, detector: DeployedDetector) -> DeployedDetector:
        """Return a detector whose networks are timed, in the order of its members."""
        members = tuple(
            replace(member, runtime=_Timed(member.runtime, self, number)) for number, member in enumerate(detector.members)
        )
        return replace(detector, members=members)


@dataclass(frozen=True)
class _Timed:
    runtime: Runtime
    watch: Stopwatch
    number: int

    def __call__(self, mel_BKFN: Tensor) -> Outputs:
        began = self.watch.clock()
        outputs = self.runtime(mel_BKFN)
        took_s = self.watch.clock() - began
        with self.watch.lock:  # other threads run other windows
            self.watch.seconds[self.number] += took_s
        return outputs


@dataclass
class _Cost:
    """What something takes for a second of audio."""

    took_s: float = 0.0
    heard_s: float = 0.0

    def add(self, took_s: float, heard_s: float) -> None:
        self.took_s += took_s
        self.heard_s += heard_s

    @property
    def rate(self) -> float:
        return self.took_s / self.heard_s if self.heard_s else 0.0


@dataclass
class Pace:
    """The time of one run. `begin` is called before each file and `advance` with each batch."""

    watch: Stopwatch
    deadline: float | None
    """The clock's time at which hearing must have ended; None: there is no limit."""
    total_s: float
    """Seconds of audio of all files that are to be heard."""
    num_members: int
    """Members that hear now."""
    say: Say
    num_threads: int = 1
    """Threads that hear windows at once, each a few."""
    left_s: float = field(init=False)
    """Seconds of audio of the files that have not been begun."""

    def __post_init__(self) -> None:
        self.left_s = self.total_s
        self._shared, self._members = _Cost(), [_Cost() for _ in range(self.num_members)]
        self._file_s = self._place_s = self._batch_s = 0.0
        self._last, self._before = self.watch.clock(), list(self.watch.seconds)
        self._is_warm = self._is_late = False

    def begin(self, duration_s: float, heard_before_s: float = 0.0) -> None:
        """Note that a file is begun, of which an earlier run may have heard a part. Raises OutOfTimeError and FewerMembersError."""
        self._file_s, self._place_s = duration_s, heard_before_s
        self.left_s -= duration_s
        self._last, self._before = self.watch.clock(), list(self.watch.seconds)
        self._check()

    def advance(self, samples: float) -> None:
        """Note up to which sample the file has been heard. Raises OutOfTimeError and FewerMembersError."""
        now, place_s = self.watch.clock(), samples / SAMPLE_RATE_HZ
        took_s, heard_s = now - self._last, place_s - self._place_s
        threads = min(self.num_threads, ceil(heard_s / (WINDOW_S * WINDOWS_AT_ONCE))) or 1
        own_s = [(after - before) / threads for after, before in zip(self.watch.seconds, self._before, strict=True)]
        # The first batch of a run also pays for what is made once.
        if self._is_warm and heard_s > 0:
            self._shared.add(took_s - sum(own_s), heard_s)
            for cost, seconds in zip(self._members[: self.num_members], own_s, strict=False):
                cost.add(seconds, heard_s)
        self._is_warm, self._batch_s = True, took_s
        self._last, self._before, self._place_s = now, list(self.watch.seconds), place_s
        self._check()

    def projected_end(self, num_members: int, audio_s: float) -> float:
        """Return the clock's time at which so much audio will have been heard by the first members."""
        rate = self._shared.rate + sum(cost.rate for cost in self._members[:num_members])
        return self.watch.clock() + MARGIN * rate * audio_s

    def _check(self) -> None:
        if self.deadline is None:
            return
        if self.watch.clock() + self._batch_s >= self.deadline:
            raise OutOfTimeError
        if self._shared.heard_s < min(MEASURED_S, self.total_s / 10) or self._shared.heard_s == 0:
            return
        rest_s = self.left_s + max(0.0, self._file_s - self._place_s)
        if self.projected_end(self.num_members, rest_s) <= self.deadline:
            return
        whole_s = self.left_s + self._file_s
        fewer = [count for count in range(self.num_members - 1, 0, -1) if self.projected_end(count, whole_s) <= self.deadline]
        count = fewer[0] if fewer else 1
        over_s = self.projected_end(self.num_members, rest_s) - self.deadline
        if count < self.num_members and self.projected_end(count, whole_s) < self.projected_end(self.num_members, rest_s):
            self.say(
                f"Too slow by {format_duration(over_s)}: going on with the first {count} of {len(self._members)} models, with their own weights."
            )
            self.num_members = count
            self.left_s = whole_s
            raise FewerMembersError
        if not self._is_late:
            self._is_late = True
            self.say(f"Too slow by {format_duration(over_s)}, and fewer models do not help: the last rows will not be heard.")


def deadline(limit_s: float | None, started: float, num_values: int) -> float | None:
    """Return the clock's time at which hearing must end so that so many scores can be written within the limit."""
    if limit_s is None:
        return None
    return started + limit_s * (1 - RESERVED_SHARE) - num_values * SECONDS_PER_VALUE
