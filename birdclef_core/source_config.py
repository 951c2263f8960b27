"""In which proportions a stage draws from the sources of its recordings: the collections that they came in."""

import math
from collections.abc import Mapping
from typing import Any

from birdclef_core.config_rules import require
from birdclef_core.errors import InputError

SourceShares = tuple[tuple[str, float], ...]
"""Sources, each with its share of the clips of recordings. Only the proportions of the shares count."""
PARTS = 1_000_000
"""Proportions are rounded to 1 / PARTS, so that 7 to 3 is 0.7 to 0.3 to the last bit."""


def checked_shares(shares: SourceShares) -> SourceShares:
    """Return shares by the names of their sources, in their order and without those that are 0. Raises InputError for shares that are no
    proportions: below 0, infinite, all 0, or of one source twice."""
    pairs: list[tuple[Any, ...]] = [tuple(pair) if isinstance(pair, (tuple, list)) else (pair,) for pair in shares]
    for pair in pairs:
        if len(pair) != 2 or not isinstance(pair[0], str) or not pair[0] or type(pair[1]) not in (int, float):
            raise InputError(
                f"sources must be pairs of a name and a share, such as (('birdclef2023', 0.7),), but one is {pair!r}."
            )
    found = {name: float(share) for name, share in sorted(pairs)}
    require(len(found) == len(pairs), "every name in sources only once", sources=tuple(pairs))
    for name, share in found.items():
        require(0 <= share < math.inf, "every share in sources >= 0 and finite", **{name: share})
    require(not found or any(found.values()), "at least one share in sources > 0", sources=tuple(pairs))
    return tuple((name, share) for name, share in found.items() if share)


def with_shares(shares: SourceShares, changes: Mapping[str, float]) -> SourceShares:
    """Return shares of which some are others; those of the other sources stay."""
    return tuple({**dict(shares), **changes}.items())


def proportions(shares: SourceShares) -> SourceShares:
    """Return shares as parts of 1, without sources of less than half of 1 / PARTS. What it returns, it returns unchanged."""
    total = sum(share for _, share in shares)
    exact = {name: share / total * PARTS for name, share in shares}
    parts = {name: math.floor(part + 0.5) for name, part in exact.items()}
    if shares:  # Rounded parts may be some too many or too few, which the largest one bears.
        largest = max(parts, key=lambda name: parts[name])
        parts[largest] += PARTS - sum(parts.values())
    return tuple((name, part / PARTS) for name, part in parts.items() if part > 0)
