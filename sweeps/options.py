"""What the command line says of a sweep: checked, and kept in the sweep's record so that a resume needs its name only."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from birdclef_core.errors import InputError

FOLD_HELP = "which fifth of the authors validates, 0 to 4 (default 0)"
DEFAULT_STORAGE = "sweeps-output"
DEFAULT_CACHE = "~/.cache/birdclef-sweeps"
PLACEMENT = (
    "address",
    "gpus_per_trial",
    "cpus_per_trial",
    "max_concurrent",
    "cache_dir",
    "max_store_bytes",
    "tracking_uri",
)
"""Options that change no result: a sweep may go on elsewhere than where it began."""


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """What the command line says; kept in the sweep's record so that a resume needs its name only."""

    search: str
    data: str | None = None
    """A BirdCLEF-shaped folder; None: the synthetic demo set."""
    from_stage: str | None = None
    """The stage that every trial starts from: a reference as it was given, its whole id once it has been found."""
    samples: int | None = None
    budget: str | None = None
    seed: int = 0
    name: str | None = None
    storage: str = DEFAULT_STORAGE
    address: str | None = None
    gpus_per_trial: float | None = None
    cpus_per_trial: int | None = None
    max_concurrent: int | None = None
    pretrained: str = "auto"
    target_species: str | None = None
    max_bad_share: float = 0.05
    fold: int = 0
    """Of the validation split."""
    tracking_uri: str | None = None
    cache_dir: str = DEFAULT_CACHE
    max_seconds_per_recording: float | None = None
    max_bytes: int | None = None
    max_store_bytes: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rules = (
            ("--samples >= 1", self.samples, self.samples is None or self.samples >= 1),
            ("--seed >= 0", self.seed, self.seed >= 0),
            ("--gpus-per-trial >= 0", self.gpus_per_trial, self.gpus_per_trial is None or self.gpus_per_trial >= 0),
            ("--cpus-per-trial >= 1", self.cpus_per_trial, self.cpus_per_trial is None or self.cpus_per_trial >= 1),
            ("--max-concurrent >= 1", self.max_concurrent, self.max_concurrent is None or self.max_concurrent >= 1),
            ("--max-store-bytes >= 1", self.max_store_bytes, self.max_store_bytes is None or self.max_store_bytes >= 1),
            ("--max-bytes >= 0", self.max_bytes, self.max_bytes is None or self.max_bytes >= 0),
            ("0 <= --max-bad-share <= 1", self.max_bad_share, 0 <= self.max_bad_share <= 1),
            ("--name made of letters, digits, '.', '_' and '-'", self.name, re.fullmatch(r"[\w.-]+", self.name or "-")),
        )
        for rule, value, holds in rules:
            if not holds:
                raise InputError(f"{rule} must hold, but got {value!r}.")

    def with_whole_paths(self) -> "SweepOptions":
        """The same with absolute paths, so that a resume may start anywhere."""

        def whole(path: str | None) -> str | None:
            return str(Path(path).expanduser().resolve()) if path and "://" not in path else path

        search = whole(self.search) if self.search.endswith(".py") else self.search
        pretrained = self.pretrained if self.pretrained in ("auto", "require", "off") else whole(self.pretrained)
        return replace(
            self,
            search=str(search),
            data=whole(self.data),
            target_species=whole(self.target_species),
            pretrained=str(pretrained),
            cache_dir=str(whole(self.cache_dir)),
        )

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "SweepOptions":
        known = {item.name for item in fields(cls)}
        return cls(**{key: value for key, value in record["options"].items() if key in known})
