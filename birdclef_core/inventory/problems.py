"""A finding about a data folder together with the files that it is about."""

from dataclasses import dataclass

from birdclef_core.findings import Finding


@dataclass(frozen=True)
class Problem:
    finding: Finding
    paths: tuple[str, ...] = ()
    """The files concerned, where it is about files."""
