"""Label spaces: which species a model tells apart, and in which order; and what the names of other scores begin with."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from birdclef_core.errors import InputError
from birdclef_core.identity import fingerprint

SOUNDSCAPES = "soundscapes/"
"""Prefix of the names of scores on labelled soundscapes; a score without it is on recordings, in the stage's label space."""


@dataclass(frozen=True)
class LabelSpace:
    """Species codes in sorted order, one for each column of targets and scores."""

    name: str
    species: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.species:
            raise InputError(f"Label space {self.name!r} must have at least one species, but has none.")
        if list(self.species) != sorted(set(self.species)):
            raise InputError(f"Label space {self.name!r} must have species codes in sorted order, each once.")

    @classmethod
    def of(cls, name: str, species: Iterable[str]) -> "LabelSpace":
        """Return the label space of these species, sorted and each once."""
        return cls(name, tuple(sorted(set(species))))

    @cached_property
    def index(self) -> dict[str, int]:
        """Column of each species, by its code."""
        return {code: column for column, code in enumerate(self.species)}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the species. The name of the label space is not in it."""
        return fingerprint(self.species)

    def __len__(self) -> int:
        return len(self.species)

    def columns_in(self, other: "LabelSpace") -> list[tuple[int, int]]:
        """Return (column here, column in `other`) for every species that both have."""
        return [(column, other.index[code]) for code, column in self.index.items() if code in other.index]
