"""Validation sets of new authors, or of new soundscapes, as often as wanted: a standard error should be how far their scores differ.

Shapes: R recordings or windows, C species, A authors or files.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ValidationSet:
    """The recordings of authors, or the windows of soundscapes, that were drawn from a population."""

    truth_RC: NDArray[np.uint8]
    score_RC: NDArray[np.float64]
    group_R: NDArray[np.int64]
    """The author of each recording, or the file of each window."""


@dataclass(frozen=True, kw_only=True)
class Population:
    """The authors and species that validation sets are drawn from. Effects are standard deviations of logits."""

    num_species: int
    num_authors: int
    recordings_each: float
    """Mean number of recordings of an author."""
    tail: float = 1.0
    """How unequal authors are: standard deviation of the logarithm of their numbers of recordings."""
    rarity: float = 0.5
    """A species is recorded in proportion to its rank to the power of minus this."""
    variety: float = 3.0
    """How often an author records another species than before; 0: each author has one species."""
    gain: float = 3.0
    """How much higher the score of the right species is."""
    author: float = 1.5
    """Effect of an author on the score of the right species."""
    false_alarms: float = 0.5
    """Effect of an author on all scores."""
    author_and_species: float = 0.5
    """Effect of an author on all scores of one species."""

    def draw(self, rng: np.random.Generator) -> ValidationSet:
        """Return the recordings of new authors."""
        size_A = np.exp(rng.normal(0, self.tail, self.num_authors) - self.tail**2 / 2) * self.recordings_each
        author_R = np.repeat(np.arange(self.num_authors), np.maximum(1, np.rint(size_A).astype(int)))
        species_R = self._species(author_R, rng)
        shape = (len(author_R), self.num_species)
        truth_RC = np.zeros(shape, np.uint8)
        truth_RC[np.arange(len(author_R)), species_R] = 1
        difficulty_C = np.random.default_rng(0).normal(0, 1, self.num_species)
        right_A, wrong_A = rng.normal(0, self.author, self.num_authors), rng.normal(0, self.false_alarms, self.num_authors)
        both_AC = rng.normal(0, self.author_and_species, (self.num_authors, self.num_species))
        logit_RC = rng.normal(-2, 1.5, shape) + wrong_A[author_R, None] + both_AC[author_R]
        logit_RC += truth_RC * (self.gain + difficulty_C + right_A[author_R, None])
        return ValidationSet(truth_RC, 1 / (1 + np.exp(-logit_RC)), author_R)

    def _species(self, author_R: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """An author's next recording is of a new species with probability variety / (variety + recordings so far), else of an old one."""
        share_C = np.arange(1.0, self.num_species + 1) ** -self.rarity
        fresh_R = rng.choice(self.num_species, len(author_R), p=share_C / share_C.sum())
        first_R = np.searchsorted(author_R, author_R)
        before_R = np.arange(len(author_R)) - first_R
        is_old_R = rng.random(len(author_R)) * (self.variety + before_R) >= self.variety
        earlier_R = first_R + (rng.random(len(author_R)) * before_R).astype(int)
        species_R = fresh_R
        for row in np.flatnonzero(is_old_R & (before_R > 0)):
            species_R[row] = species_R[earlier_R[row]]
        return species_R


@dataclass(frozen=True, kw_only=True)
class Soundscapes:
    """The files that validation sets of windows are drawn from. A file has few species, each in some of its windows."""

    num_species: int
    num_files: int
    windows_each: int
    species_each: float

    def draw(self, rng: np.random.Generator) -> ValidationSet:
        """Return the windows of new files; about a third have no species."""
        fixed = np.random.default_rng(0)
        share_C = np.minimum(0.9, fixed.gamma(0.6, 1, self.num_species) * self.species_each / self.num_species / 0.6)
        difficulty_C = fixed.normal(0, 1, self.num_species)
        shape = (self.num_files, self.num_species)
        heard_AC = rng.beta(0.5, 2, shape) * (rng.random(shape) < share_C)
        group_R = np.repeat(np.arange(self.num_files), self.windows_each)
        truth_RC = rng.random((len(group_R), self.num_species)) < heard_AC[group_R]
        file_A, both_AC = rng.normal(0, 1, self.num_files), rng.normal(0, 1, shape)
        logit_RC = rng.normal(-3, 1.2, truth_RC.shape) + file_A[group_R, None] + both_AC[group_R] + truth_RC * (3 + difficulty_C)
        return ValidationSet(truth_RC.astype(np.uint8), 1 / (1 + np.exp(-logit_RC)), group_R)


POPULATIONS: dict[str, Population | Soundscapes] = {
    "20 authors, 5 species": Population(num_species=5, num_authors=20, recordings_each=20, tail=0.0, variety=1e9),
    "15 authors, 8 species": Population(num_species=8, num_authors=15, recordings_each=20),
    "15 authors with one species each": Population(num_species=10, num_authors=15, recordings_each=8, variety=0.0, rarity=0.3),
    "60 authors with one species each": Population(num_species=10, num_authors=60, recordings_each=8, variety=0.0, rarity=0.3),
    "40 authors, 20 species": Population(num_species=20, num_authors=40, recordings_each=10, variety=2.0),
    "80 authors, 60 species, most of them rare": Population(
        num_species=60, num_authors=80, recordings_each=6, tail=1.2, rarity=1.0, variety=2.0
    ),
    "60 authors, very unequal": Population(num_species=30, num_authors=60, recordings_each=8, tail=2.0, rarity=0.7),
    "60 authors, a good model": Population(
        num_species=30, num_authors=60, recordings_each=8, tail=1.2, rarity=0.7, gain=7.0, author=1.0
    ),
    "60 authors, independent recordings": Population(
        num_species=20, num_authors=60, recordings_each=6, variety=1e9, author=0.0, false_alarms=0.0, author_and_species=0.0
    ),
    "300 authors, 60 species": Population(num_species=60, num_authors=300, recordings_each=3, tail=1.2, rarity=0.7, author=1.0),
    "5 authors, 4 species": Population(num_species=4, num_authors=5, recordings_each=15, tail=0.5, variety=5.0),
    "12 soundscapes of 4 minutes, 40 species": Soundscapes(num_species=40, num_files=12, windows_each=48, species_each=6),
    "60 soundscapes of 2 minutes, 60 species": Soundscapes(num_species=60, num_files=60, windows_each=24, species_each=5),
}
