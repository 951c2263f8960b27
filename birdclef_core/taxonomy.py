"""Label spaces: which species a head tells apart, and in which order."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from birdclef_core.errors import InputError
from birdclef_core.identity import fingerprint


@dataclass(frozen=True)
class LabelSpace:
    """Species codes in sorted order, one column each."""

    name: str
    species: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.species:
            raise InputError(f"Label space {self.name!r} must have at least one species, but has none.")
        if list(self.species) != sorted(set(self.species)):
            raise InputError(f"Label space {self.name!r} must hold unique species in sorted order.")

    @classmethod
    def of(cls, name: str, species: Iterable[str]) -> "LabelSpace":
        return cls(name, tuple(sorted(set(species))))

    @cached_property
    def index(self) -> dict[str, int]:
        """Column of each species."""
        return {code: column for column, code in enumerate(self.species)}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the species; the name does not count."""
        return fingerprint(self.species)

    def __len__(self) -> int:
        return len(self.species)

    def columns_in(self, other: "LabelSpace") -> list[tuple[int, int]]:
        """(column here, column there) of every species that both have."""
        return [(column, other.index[code]) for code, column in self.index.items() if code in other.index]
