"""How fast devices are beside each other. A cluster may have several kinds of GPUs, and what work costs on one tells what it costs on another.

A speed is a multiple of that of one device, the base, in which costs are known. It is the median of how many times as fast the same
work was, over all kinds of work that both have done. Devices that no work joins to the base count as equally fast.
"""

import statistics
from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

REMEMBERED_RATES = 50
"""The rate of a kind of work on a device is the median of at most this many."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast a device is."""

    value: float = 1.0
    """Times as fast as the base."""
    measured_from: int = 0
    """Number of measurements that it follows from, on this device; 0: nothing is known, and it counts as equally fast."""


@dataclass(kw_only=True)
class DeviceSpeeds:
    """Learns the speeds of devices from work that several of them have done."""

    base: str = ""
    """The device that has the speed 1; empty: the first of which something is learned."""
    _rates: defaultdict[Hashable, dict[str, deque[float]]] = field(default_factory=lambda: defaultdict(dict))
    """How fast each kind of work was done, by device."""
    _speeds: dict[str, Speed] | None = None
    """What follows from the rates; None when there are new ones."""

    def learn(self, device: str, work: Hashable, rate: float, times: int = 1) -> None:
        """Take into account how fast a device did a kind of work, in any unit that is the same for all devices."""
        self.base = self.base or device
        known = self._rates[work]
        self._speeds = None if device not in known or len(known) > 1 else self._speeds
        known.setdefault(device, deque(maxlen=REMEMBERED_RATES)).extend([rate] * times)

    def of(self, device: str) -> Speed:
        """Return the speed of a device."""
        if self._speeds is None:
            self._speeds = self._follow()
        return self._speeds.get(device, Speed())

    def is_joined(self, device: str) -> bool:
        """Whether the speed of a device is known."""
        return device == self.base or self.of(device).measured_from > 0

    def mean(self, devices: Mapping[str, int]) -> float:
        """Return the mean speed of so many workers of each device; 1 for none. All of them together do as much as if each had it."""
        workers = sum(devices.values())
        return sum(number * self.of(device).value for device, number in devices.items()) / workers if workers else 1.0

    def _follow(self) -> dict[str, Speed]:
        """Return the speed of every device that work joins to the base, directly or through others."""
        rates = {work: {name: statistics.median(item) for name, item in found.items()} for work, found in self._rates.items()}
        speeds = {self.base: Speed(measured_from=sum(len(found.get(self.base, ())) for found in self._rates.values()))}
        while True:
            ratios: defaultdict[str, list[float]] = defaultdict(list)
            counts: defaultdict[str, int] = defaultdict(int)
            for work, of_device in rates.items():
                known = [rate / speeds[device].value for device, rate in of_device.items() if device in speeds]
                for device, rate in of_device.items() if known else ():
                    if device not in speeds:
                        ratios[device].append(rate / statistics.median(known))
                        counts[device] += len(self._rates[work][device])
            if not ratios:
                return speeds
            speeds |= {
                device: Speed(value=statistics.median(found), measured_from=counts[device]) for device, found in ratios.items()
            }


@dataclass(frozen=True, kw_only=True)
class DeviceShare:
    """The workers of a sweep that have one kind of device."""

    device: str
    workers: int
    speed: Speed


def device_list(shares: Iterable[DeviceShare]) -> str:
    """Return devices with their speeds: `2 x H100 at 1.00, 1 x T4 at 0.18 (from 14 measurements)`."""
    return ", ".join(_described(share) for share in shares)


def _described(share: DeviceShare) -> str:
    known = share.speed.measured_from
    why = f"from {known} stages" if known else "nothing is known of it"
    return f"{share.workers} x {share.device} at {share.speed.value:.2f} ({why})"
