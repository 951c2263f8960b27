"""The validation split: stratified by species, an author's recordings on one side only, no species lost to training."""

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from birdclef_core.errors import InputError


@dataclass(frozen=True)
class Split:
    is_validation: NDArray[np.bool_]
    """One flag a recording."""
    unscored_species: tuple[str, ...]
    """Species without a validation recording: they are trained and cannot be scored."""


def author_grouped_split(primary_labels: pd.Series, authors: pd.Series, *, share: float, seed: int) -> Split:
    """About `share` of the recordings for validation, the same ones for the same input and seed.

    An author without a name is taken as one author for each recording. A species whose recordings all fell to validation gets
    back those of the author with most of them; one with none there gives the author with fewest, if that takes at most half of
    any species. Folds by scikit-learn's StratifiedGroupKFold. Raises InputError for a share outside (0, 0.5].
    """
    if not 0 < share <= 0.5:
        raise InputError(f"0 < validation_share <= 0.5 must hold, but got validation_share={share}.")
    species = pd.factorize(primary_labels, sort=True)[0]
    groups = author_groups(authors)
    is_validation = _one_fold(species, groups, num_folds=round(1 / share), seed=seed)
    _return_lost_species(species, groups, is_validation)
    _cover_unscored_species(species, groups, is_validation)
    unscored = sorted(set(primary_labels) - set(primary_labels[is_validation]))
    return Split(is_validation, tuple(unscored))


def author_groups(authors: pd.Series) -> NDArray[np.int64]:
    """A group number for each recording: that of its author, or one of its own where the author is unknown."""
    names = authors.reset_index(drop=True)
    own = "\0" + names.index.astype(str)
    return pd.factorize(names.where(names != "", own))[0]


def _one_fold(species: NDArray, groups: NDArray, *, num_folds: int, seed: int) -> NDArray[np.bool_]:
    is_validation = np.zeros(len(species), dtype=bool)
    num_folds = min(num_folds, int(np.bincount(species).max()), int(groups.max()) + 1)
    if num_folds < 2:
        return is_validation
    state = int(np.random.SeedSequence(seed).generate_state(1)[0])
    folds = StratifiedGroupKFold(num_folds, shuffle=True, random_state=state)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        _, rows = next(folds.split(species, species, groups))
    is_validation[rows] = True
    return is_validation


def _return_lost_species(species: NDArray, groups: NDArray, is_validation: NDArray[np.bool_]) -> None:
    """Moves whole authors back to training (in place) until every species has a training recording."""
    lost = np.setdiff1d(np.arange(species.max() + 1), species[~is_validation])
    for code in lost:
        rows = np.flatnonzero(species == code)
        if is_validation[rows].all():
            is_validation[groups == np.bincount(groups[rows]).argmax()] = False


def _cover_unscored_species(species: NDArray, groups: NDArray, is_validation: NDArray[np.bool_]) -> None:
    """Moves a small author to validation (in place) for each species that has none there, where no species loses half for it."""
    totals = np.bincount(species)
    group_sizes = np.bincount(groups)
    for code in np.setdiff1d(species, species[is_validation]):
        candidates = np.unique(groups[species == code])
        for group in candidates[np.argsort(group_sizes[candidates], kind="stable")]:
            moved = np.bincount(species[groups == group], minlength=len(totals))
            held = np.bincount(species[is_validation], minlength=len(totals))
            if ((moved == 0) | (2 * (moved + held) <= totals)).all():
                is_validation[groups == group] = True
                break
