"""The coasts of the world, coarse enough for a small map.

`coasts.json` was made from Natural Earth's 1:110m countries (public domain, naturalearthdata.com): the borders that only one country
has, in tenths of a degree. A line is longitude and latitude of its first point, then the steps to each next one.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def coast_lines(west: float, east: float, south: float, north: float) -> list[NDArray[np.float64]]:
    """Return the coasts within a map as lines of points (longitude, latitude) in degrees, (P, 2).

    A line that leaves the map is returned as far as the points beside it.
    """
    found = []
    for line in _all_lines():
        inside = (line[:, 0] >= west) & (line[:, 0] <= east) & (line[:, 1] >= south) & (line[:, 1] <= north)
        shown = inside.copy()
        shown[:-1] |= inside[1:]
        shown[1:] |= inside[:-1]
        edges = np.flatnonzero(np.diff(np.concatenate([[False], shown, [False]]).astype(np.int8)))
        found += [line[start:end] for start, end in edges.reshape(-1, 2) if end - start > 1]
    return found


@cache
def _all_lines() -> list[NDArray[np.float64]]:
    steps = json.loads(Path(__file__).with_name("coasts.json").read_text(encoding="utf-8"))
    return [np.cumsum(np.array(line).reshape(-1, 2), axis=0) / 10 for line in steps]
