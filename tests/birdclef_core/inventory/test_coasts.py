import numpy as np

from birdclef_core.inventory.coasts import coast_lines


def test_the_world_has_coasts_where_they_are() -> None:
    lines = coast_lines(-180, 180, -90, 90)
    points = np.concatenate(lines)
    assert 100 < len(lines) < 200 and len(points) > 4_000
    assert np.abs(points[:, 0]).max() <= 180 and np.abs(points[:, 1]).max() <= 90
    for longitude, latitude in ((-5.6, 36.0), (18.5, -34.1), (-80.1, 25.2)):  # Gibraltar, Cape Town, Florida
        assert np.abs(points - (longitude, latitude)).max(axis=1).min() < 1.0


def test_a_map_has_only_what_lies_on_it() -> None:
    assert coast_lines(-35, -25, 25, 35) == [], "the middle of the Atlantic"
    part = coast_lines(-10, 3, 49, 60)
    assert 0 < sum(map(len, part)) < 200 and all(line.shape[1] == 2 and len(line) > 1 for line in part)
