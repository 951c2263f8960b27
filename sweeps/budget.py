"""What a sweep may spend: device hours, hours, money; and what may still be begun, so that all that was begun can end.

A device second is a second of one worker. It is as many GPU seconds as the worker has GPUs, or one where workers have none. GPU seconds are
what is limited and what is added up: a sweep may go on with other workers.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from sweeps.options import SweepOptions
from sweeps.wording import figure, format_duration

HOUR_S = 3600.0
SPARE = 1.05
"""What is begun must fit into the budget with this factor: the cost of an epoch varies a little."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that a sweep may spend, in all its parts and by all its drivers. None: no limit."""

    gpu_hours: float | None = None
    """Hours of GPUs, or of workers where these have none."""
    hours: float | None = None
    """Hours in which a driver of the sweep runs."""
    cost: float | None = None
    """Money for GPU hours."""
    price_per_hour: float | None = None
    """Price of a GPU hour, or of a worker's hour where workers have no GPUs."""

    @classmethod
    def of(cls, options: SweepOptions) -> "Limits":
        """Return the limits that a user has set."""
        return cls(
            gpu_hours=options.max_gpu_hours,
            hours=options.max_hours,
            cost=options.max_cost,
            price_per_hour=options.price_per_hour,
        )

    @property
    def any_set(self) -> bool:
        """Whether there is any limit."""
        return any(limit is not None for limit in (self.gpu_hours, self.hours, self.cost))

    def __str__(self) -> str:
        """Return the limits as the flags that set them."""
        flags = (("--max-gpu-hours", self.gpu_hours), ("--max-hours", self.hours), ("--max-cost", self.cost))
        return " ".join(f"{flag} {limit:g}" for flag, limit in flags if limit is not None)


class Budget:
    """What a sweep has spent, what its running trials still need, and what is left of its limits."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        gpus_per_worker: float = 0.0,
        ran_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`gpus_per_worker`: 0 where workers are CPU cores. `ran_s`: seconds in which earlier drivers ran."""
        self.limits = limits or Limits()
        self._devices = gpus_per_worker or 1.0
        self.unit = "GPU hours" if gpus_per_worker else "worker hours"
        """What device hours are called."""
        self._ran_s, self._clock, self._started_s = ran_s, clock, clock()
        self.spent_gpu_s = 0.0
        """GPU seconds that were spent, by earlier drivers too."""
        self._needs: dict[str, float] = {}
        """Device seconds that a running trial still needs to end, by trial."""

    # What is spent, and what is needed.

    def spend(self, seconds: float) -> float:
        """Count device seconds as spent. Return the GPU seconds that they are."""
        self.spent_gpu_s += seconds * self._devices
        return seconds * self._devices

    @property
    def spent_s(self) -> float:
        """What was spent, in device seconds of the present workers."""
        return self.spent_gpu_s / self._devices

    def need(self, trial: str, seconds: float) -> None:
        """Set how many device seconds a running trial still needs to end."""
        self._needs[trial] = seconds

    def release(self, trial: str) -> None:
        """The trial does not run any more."""
        self._needs.pop(trial, None)

    @property
    def ran_s(self) -> float:
        """Seconds in which this driver and earlier ones ran."""
        return self._ran_s + self._clock() - self._started_s

    @property
    def gpu_hours(self) -> float:
        """Hours of GPUs that were spent, or of workers where these have none."""
        return self.spent_gpu_s / HOUR_S

    @property
    def cost(self) -> float | None:
        """Money that was spent; None when the price is not known."""
        price = self.limits.price_per_hour
        return None if price is None else self.gpu_hours * price

    # What may be begun.

    @property
    def remaining_s(self) -> float | None:
        """The most device seconds that a trial may need which begins now, so that it and all that runs can end; None: no limit.

        May be negative, when what runs takes longer than was known when it began.
        """
        if not self.limits.any_set:
            return None
        return min(self._device_left_s - sum(self._needs.values()), self._clock_left_s)

    def may_begin(self, seconds: float) -> bool:
        """Return whether a trial that needs so many device seconds can end, if it begins now. One that needs none always can."""
        remaining_s = self.remaining_s
        return remaining_s is None or seconds == 0 or seconds * SPARE <= remaining_s

    def may_go_on(self, trial: str) -> bool:
        """Return whether a running trial can end. Where not all can, because they need more than was known, those that need least do."""
        own = (self._needs[trial], trial)
        if not self.limits.any_set or own[0] == 0:
            return True
        before_s = sum(seconds for name, seconds in self._needs.items() if (seconds, name) <= own)
        return before_s <= self._device_left_s and own[0] <= self._clock_left_s

    @property
    def _device_left_s(self) -> float:
        """Device seconds that are not spent."""
        by_hours, by_cost = self._device_limits_s()
        return min(by_hours, by_cost) - self.spent_s

    @property
    def _clock_left_s(self) -> float:
        return math.inf if self.limits.hours is None else self.limits.hours * HOUR_S - self.ran_s

    def _device_limits_s(self) -> tuple[float, float]:
        """Return the device seconds that the limits of GPU hours and of money allow."""
        hours, cost, price = self.limits.gpu_hours, self.limits.cost, self.limits.price_per_hour
        by_hours = math.inf if hours is None else hours * HOUR_S / self._devices
        by_cost = math.inf if cost is None or price is None else cost / price * HOUR_S / self._devices
        return by_hours, by_cost

    # For people.

    def nearest_limit(self) -> str:
        """Return the limit of which least is left, as the flag that sets it."""
        limits, (by_hours, by_cost) = self.limits, self._device_limits_s()
        left = {
            f"--max-gpu-hours {limits.gpu_hours or 0:g}": by_hours - self.spent_s,
            f"--max-cost {limits.cost or 0:g}": by_cost - self.spent_s,
            f"--max-hours {limits.hours or 0:g}": self._clock_left_s,
        }
        return min(left, key=lambda flag: left[flag])

    def describe(self) -> str:
        """Return what was spent, beside each limit: `9.6 of 10 GPU hours, 19.2 of 20 in money, ran for 3 h 05 min`."""
        limits = self.limits

        def of(limit: float | None) -> str:
            return "" if limit is None else f" of {limit:g}"

        parts = [f"{figure(self.gpu_hours)}{of(limits.gpu_hours)} {self.unit}"]
        if self.cost is not None:
            parts.append(f"{figure(self.cost)}{of(limits.cost)} in money")
        at_most = "" if limits.hours is None else f" of {format_duration(limits.hours * HOUR_S)}"
        return ", ".join([*parts, f"ran for {format_duration(self.ran_s)}{at_most}"])
