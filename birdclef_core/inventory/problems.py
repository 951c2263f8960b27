"""One kind of thing that is wrong with a data folder, and how bad that is."""

from dataclasses import dataclass
from typing import Literal, get_args

from birdclef_core.findings import Finding

Level = Literal["loses", "note"]
"""loses: recordings or labels are lost to training, or scores are not to be trusted. note: worth knowing."""

LEVELS: tuple[Level, ...] = get_args(Level)


@dataclass(frozen=True)
class Problem:
    kind: str
    """One word for scripts, such as `truncated`."""
    level: Level
    finding: Finding
    paths: tuple[str, ...] = ()
    """The files concerned, where it is about files."""
