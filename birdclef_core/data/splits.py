"""Divides recordings into folds: every group of recordings (an author, as a rule) in one fold, every species in as many folds as
possible, and old groups in their fold when new ones come.

The name of a group decides its fold first, by a hash. Then groups are moved one by one, where that makes the folds better. Only whole
numbers are compared, so that every machine finds the same folds.

Shapes: R recordings, G groups, S species, F folds.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array

NUM_FOLDS = 5
SPLIT_SEED = 0

_PASSES = 12
"""Most times that all groups are looked at; each pass moves far fewer than the one before."""
_LARGE = 100
"""A group with at least one recording in so many is large: where large groups lie decides how equal the folds can be."""
_ROOM = 10
"""A fold takes large groups up to its share of them and one part in so many before they go to the next fold."""
_MUCH = 2
"""A fold should have at most this many times its share of a species, and at least its share divided by this."""
_FEW = 20
"""A fold may have up to half of a species with fewer recordings than this."""
_SLACK = 10
"""The size of a fold may differ from the mean by one part in so many, and by two groups of usual size."""

# What is wrong with folds. A recording that is not in the fold of its group's name costs `_AWAY`; the others are measured by that.
_AWAY = 200
_ABSENT = 8_000  # A species is in one fold fewer than it has groups.
_APART = 1_000_000  # A species of several groups is in one fold only, so it has no training recordings where it is scored.
_UNEVEN = 4_000  # All recordings of a species are too many or too few in a fold; a part of them costs in proportion.
_SIZE = 20_000  # All recordings are too many or too few in a fold, for each species there is; a part costs in proportion.


@dataclass(frozen=True)
class Folds:
    """The fold of every recording."""

    fold_R: NDArray[np.int64]
    """The fold, 0 to F - 1; all recordings of a group are in one."""
    always_trains_R: NDArray[np.bool_]
    """Whether the recording trains in its own fold too, because its species would have no training recording there otherwise."""
    num_moved: int
    """Number of groups that are not in the fold of their name."""


def assign_folds(
    species: pd.Series,
    groups: pd.Series,
    *,
    num_folds: int = NUM_FOLDS,
    seed: int = SPLIT_SEED,
    previous: pd.Series | None = None,
) -> Folds:
    """Return the fold of every recording: the one in which it validates.

    `species` is the primary label of each recording, NA where it is none that can be scored; `groups` is the name of its group.
    A hash of seed and name gives the first fold of a group; large groups go on to the next fold where theirs is full. Then groups are
    moved one at a time, the small ones first, each to the fold where it does most good, if that outweighs the recordings that
    move. Above all, a species of several groups must not be in one fold only; then every species should be in as many folds as it
    has groups, with .5 to 2 times its share in each; and the sizes of folds should be within 10 % of each other's mean. Where
    there are too few groups for all folds, the first folds are filled.

    `previous` has the fold of each recording in an earlier split, NA where it was not in it. Groups that it knows stay, in the fold
    of most of their recordings.

    A species whose recordings are all in one fold would lose all training there. If they are of one group, they always train. If
    they are of several (that could not be put apart), those of the largest always train and the others validate.
    """
    code_R = pd.factorize(species, sort=True)[0]
    group_R, names = pd.factorize(groups, sort=True)
    placement = _Placement(code_R, group_R, _hashes(names.to_numpy(), seed), num_folds)
    if previous is not None:
        placement.keep(group_R, previous)
    placement.improve()
    always_R = _always_trains(code_R, group_R, placement)
    placement.fill_first_folds(np.unique(group_R[~always_R]))
    return Folds(placement.fold_G[group_R], always_R, int((placement.fold_G != placement.home_G).sum()))


def _hashes(names: NDArray[np.object_], seed: int) -> NDArray[np.int64]:
    """Return a number of 32 bits for each name, the same on every machine."""
    digests = [hashlib.blake2b(f"{seed}\0{name}".encode(errors="surrogatepass"), digest_size=4).digest() for name in names]
    return np.frombuffer(b"".join(digests), dtype="<u4").astype(np.int64)


def _always_trains(code_R: NDArray[np.int64], group_R: NDArray[np.int64], placement: "_Placement") -> NDArray[np.bool_]:
    """Return whether each recording must train in its own fold too, so that its species is trained there (R,)."""
    is_alone_S = (placement.groups_SF > 0).sum(axis=1) == 1
    rows = np.flatnonzero((code_R >= 0) & is_alone_S[code_R])
    pairs = pd.DataFrame({"species": code_R[rows], "group": group_R[rows]})
    counts = pairs.groupby(["species", "group"]).size().reset_index(name="count")
    largest = counts.sort_values(["species", "count"], ascending=[True, False], kind="stable").drop_duplicates("species")
    chosen_S = np.full(len(is_alone_S), -1)
    chosen_S[largest["species"]] = largest["group"]
    always_R = np.zeros(len(code_R), dtype=bool)
    always_R[rows] = chosen_S[code_R[rows]] == group_R[rows]
    return always_R


class _Placement:
    """Groups in folds, while they are moved. The counts by species and fold follow every move."""

    def __init__(self, code_R: NDArray[np.int64], group_R: NDArray[np.int64], hash_G: NDArray[np.int64], num_folds: int) -> None:
        self.num_folds = num_folds
        self._size_G = np.bincount(group_R, minlength=len(hash_G))
        self.home_G = _first_folds(hash_G, self._size_G, num_folds)
        self.fold_G = self.home_G.copy()
        self._order_G = np.lexsort((hash_G, self._size_G))
        self._is_kept_G = np.zeros(len(hash_G), dtype=bool)
        labelled = code_R >= 0
        shape = (len(hash_G), int(code_R.max(initial=0)) + 1)
        ones = np.ones(int(labelled.sum()), dtype=np.int64)
        self._by_group = csr_array((ones, (group_R[labelled], code_R[labelled])), shape=shape)
        total_S = np.bincount(code_R[labelled], minlength=shape[1])
        self._num_groups_S = np.bincount(self._by_group.indices, minlength=shape[1])
        self._reach_S = np.minimum(self._num_groups_S, num_folds)
        self._most_S = np.where(total_S < _FEW, np.maximum(1, total_S // 2), _MUCH * total_S // num_folds)
        self._least_S = total_S // (_MUCH * num_folds)
        self._uneven_S = _UNEVEN // np.maximum(total_S, 1)
        mean = len(group_R) // num_folds
        slack = mean // _SLACK + 2 * len(group_R) // max(len(hash_G), 1)
        self._size_least, self._size_most = mean - slack, mean + slack
        self._size_cost = _SIZE * shape[1] // max(len(group_R), 1)
        self._count()

    def _count(self) -> None:
        """Count recordings and groups of each species in each fold, and recordings in each fold."""
        shape = (len(self._reach_S), self.num_folds)
        self._held_SF, self.groups_SF = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        places = (self._by_group.indices, np.repeat(self.fold_G, np.diff(self._by_group.indptr)))
        np.add.at(self._held_SF, places, self._by_group.data)
        np.add.at(self.groups_SF, places, 1)
        self._size_F = np.zeros(self.num_folds, dtype=np.int64)
        np.add.at(self._size_F, self.fold_G, self._size_G)

    def keep(self, group_R: NDArray[np.int64], previous: pd.Series) -> None:
        """Fix each group that `previous` knows in the fold where most of its recordings were, the lowest of several."""
        known_R = previous.notna().to_numpy()
        votes_GF = np.zeros((len(self.fold_G), self.num_folds), dtype=np.int64)
        np.add.at(votes_GF, (group_R[known_R], previous[known_R].to_numpy(dtype=np.int64)), 1)
        self._is_kept_G = votes_GF.sum(axis=1) > 0
        self.fold_G = np.where(self._is_kept_G, votes_GF.argmax(axis=1), self.fold_G)
        self._count()

    def improve(self) -> None:
        """Move groups that make the folds better elsewhere, the smallest first, until there are none."""
        for _ in range(_PASSES):
            any_moved = False
            for group in self._order_G[self._may_move()[self._order_G]].tolist():
                cost_F = self._cost_of_moves(group)
                best = int(cost_F.argmin())
                if cost_F[best] < 0:
                    self._move(group, best)
                    any_moved = True
            if not any_moved:
                break

    def _may_move(self) -> NDArray[np.bool_]:
        """Return whether something is wrong with a species or the fold of each group that is not kept (G,)."""
        uneven_S = (self._uneven(np.arange(len(self._reach_S)), self._held_SF) > 0).any(axis=1) & (self._reach_S > 1)
        is_wrong_S = ((self.groups_SF > 0).sum(axis=1) < self._reach_S) | uneven_S
        is_wrong_G = (self._by_group @ is_wrong_S.astype(np.int64) > 0) | (self.fold_G != self.home_G)
        lacks = (self._size_F < self._size_least).any()
        is_full_F = (self._size_F > self._size_most) | (lacks & (self._size_F == self._size_F.max()))
        return (is_wrong_G | is_full_F[self.fold_G]) & ~self._is_kept_G

    def _uneven(self, codes: NDArray[np.int64], held: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what it costs that `held` recordings (species, folds) of these species are in a fold."""
        most, least, weight = (values[codes][:, None] for values in (self._most_S, self._least_S, self._uneven_S))
        return weight * (np.maximum(held - most, 0) + np.maximum(least - held, 0))

    def _too_full(self, size: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what it costs that folds have these sizes."""
        return self._size_cost * (np.maximum(size - self._size_most, 0) + np.maximum(self._size_least - size, 0))

    def _cost_of_moves(self, group: int) -> NDArray[np.int64]:
        """Return what the move of a group to each fold adds to the cost, negative where it makes the folds better (F,)."""
        codes, counts = self._row(group)
        here, home, size = int(self.fold_G[group]), int(self.home_G[group]), int(self._size_G[group])
        held, groups, several = self._held_SF[codes], self.groups_SF[codes], self._reach_S[codes][:, None] > 1
        uneven = self._uneven(codes, held)
        cost = self._uneven(codes, held + counts[:, None]) - uneven
        cost += self._uneven(codes, held[:, [here]] - counts[:, None]) - uneven[:, [here]]
        now = (groups > 0).sum(axis=1)[:, None]
        then = now - (groups[:, [here]] == 1) + (groups == 0)
        cost += _ABSENT * (now - then) + _APART * (((then == 1) & several) * 1 - ((now == 1) & several))
        cost_F = cost.sum(axis=0)
        cost_F += self._too_full(self._size_F + size) - self._too_full(self._size_F)
        cost_F += self._too_full(self._size_F[[here]] - size) - self._too_full(self._size_F[[here]])
        cost_F += _AWAY * size * ((np.arange(self.num_folds) != home) * 1 - (here != home))
        cost_F[here] = 0
        return cost_F

    def _row(self, group: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the species of a group and how many recordings it has of each."""
        part = slice(self._by_group.indptr[group], self._by_group.indptr[group + 1])
        return self._by_group.indices[part], self._by_group.data[part]

    def _move(self, group: int, fold: int) -> None:
        codes, counts = self._row(group)
        before = self.fold_G[group]
        for change, place in ((-1, before), (1, fold)):
            self._held_SF[codes, place] += change * counts
            self.groups_SF[codes, place] += change
            self._size_F[place] += change * self._size_G[group]
        self.fold_G[group] = fold

    def fill_first_folds(self, validating: NDArray[np.int64]) -> None:
        """Exchange folds without any of the `validating` groups for later ones that have some, unless groups in them are kept."""
        for fold in range(self.num_folds):
            filled = set(self.fold_G[validating].tolist())
            kept = set(self.fold_G[self._is_kept_G].tolist())
            later = [other for other in sorted(filled - kept) if other > fold]
            if fold not in filled | kept and later:
                exchanged = np.arange(self.num_folds)
                exchanged[[fold, later[-1]]] = later[-1], fold
                self.fold_G = exchanged[self.fold_G]


def _first_folds(hash_G: NDArray[np.int64], size_G: NDArray[np.int64], num_folds: int) -> NDArray[np.int64]:
    """Return the fold of each group by its name's hash (G,).

    Large groups, in the order of their size in powers of two, go on to the next fold (or the one before, as the hash says) while
    theirs has no room: a few authors have a great part of all recordings, and two of the largest would often be in one fold.
    """
    fold_G = hash_G * num_folds >> 32
    large = np.flatnonzero(_LARGE * size_G >= size_G.sum())
    magnitude = np.array([int(size).bit_length() for size in size_G[large]], dtype=np.int64)
    room = size_G[large].sum() * (_ROOM + 1) // (num_folds * _ROOM)
    load_F = np.zeros(num_folds, dtype=np.int64)
    for group in large[np.lexsort((hash_G[large], -magnitude))].tolist():
        direction = 1 if hash_G[group] % 2 else -1
        folds = [(int(fold_G[group]) + direction * step) % num_folds for step in range(num_folds)]
        fold = next((fold for fold in folds if load_F[fold] + size_G[group] <= room), int(load_F.argmin()))
        fold_G[group] = fold
        load_F[fold] += size_G[group]
    return fold_G
