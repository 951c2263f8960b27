"""How fast a device is follows from work that it shares with others, and where nothing is known that is said."""

import pytest

from sweeps.devices import DeviceShare, DeviceSpeeds, Speed, device_list


def test_a_speed_is_the_median_ratio_of_the_work_that_both_have_done():
    speeds = DeviceSpeeds(base="H100")
    for work, fast, slow in (("a", 100.0, 20.0), ("b", 50.0, 9.0), ("c", 10.0, 1.0)):
        speeds.learn("H100", work, fast)
        speeds.learn("T4", work, slow)
    speeds.learn("T4", "another", 1.0)
    assert speeds.of("T4") == Speed(value=9 / 50, measured_from=3)
    assert speeds.of("H100") == Speed(value=1.0, measured_from=3)
    speeds.learn("T4", "a", 100.0, times=9)
    assert speeds.of("T4").value == 9 / 50, "the median of a kind of work counts once, however often it was done"
    speeds.learn("T4", "c", 10.0, times=9)
    assert speeds.of("T4").value == 1.0


def test_a_device_is_joined_through_others_or_counts_as_equally_fast():
    speeds = DeviceSpeeds(base="H100")
    speeds.learn("A100", "b", 10.0)
    speeds.learn("T4", "b", 4.0)
    assert not speeds.is_joined("T4") and speeds.of("T4") == Speed()
    speeds.learn("H100", "a", 10.0)
    speeds.learn("A100", "a", 5.0)
    assert speeds.of("A100").value == 0.5 and speeds.of("T4").value == pytest.approx(0.2)
    assert speeds.is_joined("T4") and speeds.is_joined("H100") and not speeds.is_joined("L4")


def test_the_first_device_is_the_base_where_none_is_given():
    speeds = DeviceSpeeds()
    assert speeds.mean({}) == 1.0
    speeds.learn("T4", "a", 1.0)
    speeds.learn("H100", "a", 4.0)
    assert (speeds.base, speeds.of("H100").value) == ("T4", 4.0)
    assert speeds.mean({"T4": 2, "H100": 1}) == 2.0


def test_devices_are_listed_with_what_is_known_of_them():
    shares = [
        DeviceShare(device="H100", workers=2, speed=Speed(measured_from=9)),
        DeviceShare(device="T4", workers=1, speed=Speed(value=0.184, measured_from=14)),
        DeviceShare(device="L4", workers=1, speed=Speed()),
    ]
    assert device_list(shares) == (
        "2 x H100 at 1.00 (from 9 stages), 1 x T4 at 0.18 (from 14 stages), 1 x L4 at 1.00 (nothing is known of it)"
    )
