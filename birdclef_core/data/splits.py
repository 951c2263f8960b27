"""Splits recordings into training and validation: an author on one side only, every species on both sides where possible, and
old recordings on their side when new ones come.

The author's name alone decides the fold, so it never changes. Where that leaves species unbalanced, a few authors are moved as a
whole; `previous` keeps those of an earlier split where they were.

Shapes: R recordings, G groups (authors), S species.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array

from birdclef_core.errors import InputError

_COMMON = 20
"""Up to half of the recordings of a species with fewer than this may be in validation, whatever the share."""


@dataclass(frozen=True)
class Split:
    """The result of a split."""

    is_validation: NDArray[np.bool_]
    """Whether each recording is in the validation fold, after authors were moved."""
    fold_R: NDArray[np.int64]
    """The fold of each recording by its author's name alone, 0 to k - 1: the same whatever else is in the data."""
    unscored_species: tuple[str, ...]
    """Species without a validation recording: they are trained but cannot be scored."""
    num_moved: int
    """Number of authors that were moved into the validation fold or out of it."""


def author_grouped_split(
    primary_labels: pd.Series,
    authors: pd.Series,
    *,
    share: float,
    seed: int,
    recording_ids: pd.Series,
    fold: int = 0,
    previous: pd.Series | None = None,
) -> Split:
    """Return a split with about `share` of the recordings in validation: fold `fold` of k = round(1 / share).

    The fold of an author is a hash of seed and name; a recording without an author ("") is an author of its own, by its id. Then
    whole authors are moved. They leave the fold until no species has more than half of its recordings there, or more than twice
    its share where it has 20 or more. They enter it until every species has half its share there, unless another species would
    then have more than twice its share there, or more than half where a species would otherwise go unscored.

    When recordings are added, other authors may be moved than before. `previous`, the `is_validation` of each recording in an
    earlier split (NA where it was not in it), keeps the authors it knows on their side, except where all recordings of a species
    would be lost to training. Raises InputError for a share outside (0, 0.5] or a fold that does not exist.
    """
    if not 0 < share <= 0.5:
        raise InputError(f"0 < validation_share <= 0.5 must hold, but got validation_share={share}.")
    num_folds = round(1 / share)
    if not 0 <= fold < num_folds:
        raise InputError(f"0 <= fold < {num_folds} must hold for validation_share={share:g}, but got fold={fold}.")
    species, codes = pd.factorize(primary_labels, sort=True)
    groups, names = pd.factorize(_author_keys(authors, recording_ids))
    place_G = num_folds * _hashes(names, seed)
    fold_G = place_G.astype(np.int64)
    distance_G = _distance_to_fold(place_G, fold, num_folds)
    chosen = _ChosenFold(species, groups, fold_G == fold, distance_G, share=1 / num_folds, previous=previous)
    chosen.move_out()
    chosen.move_in()
    is_validation = chosen.inside_G[groups]
    unscored = np.setdiff1d(species, species[is_validation])
    return Split(is_validation, fold_G[groups], tuple(codes[unscored]), len(chosen.moved))


def _author_keys(authors: pd.Series, recording_ids: pd.Series) -> NDArray[np.object_]:
    """Return the author's name; where it is unknown, a name that only this recording has."""
    pairs = zip(authors, recording_ids, strict=True)
    return np.array([name or f"\0{identity}" for name, identity in pairs], dtype=object)


def _hashes(names: NDArray[np.object_], seed: int) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each name, the same on every machine."""
    digests = [hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=4).digest() for name in names]
    return np.frombuffer(b"".join(digests), dtype="<u4") / 2**32


def _distance_to_fold(place_G: NDArray[np.float64], fold: int, num_folds: int) -> NDArray[np.float64]:
    """Return how far each place in [0, num_folds), seen as a circle, is from the middle of a fold: less than .5 inside it."""
    ahead = (place_G - fold - 0.5) % num_folds
    return np.minimum(ahead, num_folds - ahead)


class _ChosenFold:
    """The authors of the validation fold while they are moved."""

    def __init__(
        self,
        species: NDArray,
        groups: NDArray,
        inside_G: NDArray[np.bool_],
        distance_G: NDArray[np.float64],
        *,
        share: float,
        previous: pd.Series | None,
    ) -> None:
        shape = (len(inside_G), int(species.max()) + 1)
        self._by_group = csr_array((np.ones(len(species), dtype=np.int64), (groups, species)), shape=shape)
        self._by_species = self._by_group.tocsc()
        self._share, self._much = share, min(2 * share, (1 + share) / 2)
        self._distance_G = distance_G
        self.inside_G = inside_G.copy()
        self._pinned_G = np.zeros(len(inside_G), dtype=bool)
        if previous is not None:
            self._pin(groups, previous)
        self._size_G = np.bincount(groups)
        self._total_S = np.bincount(species, minlength=shape[1])
        self._held_S = np.bincount(species[self.inside_G[groups]], minlength=shape[1])
        self.moved: set[int] = set()

    def _pin(self, groups: NDArray, previous: pd.Series) -> None:
        """Put each author where most of their recordings were."""
        known = previous.notna().to_numpy()
        was_inside = previous.astype("boolean").fillna(False).to_numpy(dtype=bool)
        total_G = np.bincount(groups[known], minlength=len(self.inside_G))
        inside_G = np.bincount(groups[known & was_inside], minlength=len(self.inside_G))
        self._pinned_G = total_G > 0
        self.inside_G[self._pinned_G] = (2 * inside_G > total_G)[self._pinned_G]

    def move_out(self) -> None:
        """Move authors out until no species is lost to training and no common one has too many recordings in validation."""
        half_S = np.minimum(np.maximum(1, self._total_S // 2), self._total_S - 1)
        much_S = np.where(self._total_S < _COMMON, half_S, np.floor(self._much * self._total_S))
        for code in map(int, np.flatnonzero(self._held_S > much_S)):
            for group in self._authors_of(code, inside=True):
                limit = self._total_S[code] - 1 if self._pinned_G[group] else much_S[code]
                if self._held_S[code] > limit:
                    self._move(group)

    def move_in(self) -> None:
        """Move authors in until every species has half its share in validation, unless another one gets too much there."""
        least_S = np.maximum(1, self._share / 2 * self._total_S)
        for code in map(int, np.flatnonzero(self._held_S < least_S)):
            for group in self._authors_of(code, inside=False):
                if self._held_S[code] >= least_S[code]:
                    break
                much = self._much if self._held_S[code] else max(self._much, 0.5)
                if not self._pinned_G[group] and self._has_room(group, much):
                    self._move(group)

    def _authors_of(self, code: int, *, inside: bool) -> list[int]:
        """Return the authors of a species on one side in the order in which they move.

        Those with most recordings of the species move out first, those with fewest recordings in all move in first; then those
        nearest to the border between folds; authors of an earlier split last.
        """
        part = slice(self._by_species.indptr[code], self._by_species.indptr[code + 1])
        groups, counts = self._by_species.indices[part], self._by_species.data[part]
        there = self.inside_G[groups] == inside
        groups, counts = groups[there], counts[there]
        order = (-self._distance_G[groups], -counts) if inside else (self._distance_G[groups], self._size_G[groups])
        return list(groups[np.lexsort((*order, self._pinned_G[groups]))])

    def _row(self, group: int) -> tuple[NDArray, NDArray]:
        """Return the species of an author and how many recordings there are of each."""
        part = slice(self._by_group.indptr[group], self._by_group.indptr[group + 1])
        return self._by_group.indices[part], self._by_group.data[part]

    def _has_room(self, group: int, much: float) -> bool:
        codes, counts = self._row(group)
        held, total = self._held_S[codes] + counts, self._total_S[codes]
        return bool(((held <= np.maximum(1, much * total)) & (held < total)).all())

    def _move(self, group: int) -> None:
        codes, counts = self._row(group)
        self._held_S[codes] += -counts if self.inside_G[group] else counts
        self.inside_G[group] = not self.inside_G[group]
        self.moved ^= {group}
