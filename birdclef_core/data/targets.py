"""Which recordings train a label space, with which targets and weights, and which recordings score it.

Shapes: R recordings (rows that take part), C species.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array

from birdclef_core.config import ClassBalance
from birdclef_core.data.dataset import Dataset
from birdclef_core.errors import DataError
from birdclef_core.source_config import SourceShares, proportions
from birdclef_core.taxonomy import LabelSpace

MAX_BACKGROUND_S = 60.0
"""A longer recording that takes part only because of a secondary label is left out: the species may be anywhere in it."""

_SECONDARY_COUNT = 0.5
"""What a secondary label counts, where a primary one counts 1."""
_BACKGROUND_WEIGHT = 0.8
"""Factor of the loss weight of a recording whose species is only in the background."""
_MIN_WEIGHT = 0.1
"""Lowest loss weight, whatever the rating."""
_POWERS: dict[ClassBalance, float] = {"inverse": 1.0, "inverse_sqrt": 0.5, "none": 0.0}
"""The sampling weight is 1 / count of the species to this power."""


@dataclass(frozen=True)
class TrainingTable:
    """The training recordings of one label space. All arrays have one entry for each recording, in the same order."""

    rows_R: NDArray[np.int64]
    """Rows of `dataset.recordings`."""
    target_RC: csr_array
    """float32, sparse: 1 for the primary species, `secondary_target` for each other secondary one, however often a row names it."""
    weight_R: NDArray[np.float32]
    """Weight in the loss: the rating over the best rating, .1 to 1, and 1 where there is no rating; times .8 where the species is only
    in the background."""
    sampling_weight_R: NDArray[np.float64]
    """Clips are drawn in proportion to this; unless there is no class balance, recordings of rare species more often."""
    is_mixture_R: NDArray[np.bool_]
    """Whether more than one species may be heard: in the background only, or with secondary species of the label space."""
    source_R: NDArray[np.int64]
    """Number of each recording's source among `sources`; -1 for one of another source, which is never drawn."""
    sources: SourceShares = ()
    """The sources that clips are drawn from, with their proportions; empty: sources do not count."""

    def shared(self, weight_X: NDArray[np.float64], place_X: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.float64]:
        """Return sampling weights with which each source has its share of the clips. Within a source they keep their proportions.

        `place_X`: the recording that each weight is for, as a place in this table; left out: all in order. Raises DataError when no weight
        of a source is above 0.
        """
        if not self.sources:
            return weight_X
        source_X = self.source_R[place_X]
        total_S = np.bincount(source_X + 1, weights=weight_X, minlength=len(self.sources) + 1)[1:]
        if silent := [name for (name, _), total in zip(self.sources, total_S, strict=True) if not total]:
            raise DataError(
                f"Every source that a stage draws from must have a training recording that it can use, but {', '.join(silent)} "
                f"{'has' if len(silent) == 1 else 'have'} none: all are for validation, could not be decoded, or have no species of the stage. "
                "Leave it out of sources."
            )
        factor_S = np.array([share for _, share in self.sources]) / total_S
        return np.where(source_X >= 0, weight_X * factor_S[source_X], 0.0)


def training_table(
    dataset: Dataset,
    label_space: LabelSpace,
    *,
    secondary_target: float = 0.9,
    class_balance: ClassBalance = "inverse",
    sources: SourceShares = (),
) -> TrainingTable:
    """Return targets and weights of the training recordings with a species of `label_space`.

    The sampling weight is 1 / count of the primary species, or 1 / its square root, or 1; for a background recording, the mean of that
    over its secondary species. A secondary label counts one half. A species that a row names twice counts once, as primary where it is that too. Only
    rows that take part are counted, and with `sources` only those of these. Raises DataError when no recording is left.
    """
    recordings = dataset.recordings
    primary, secondary = _codes(recordings, label_space)
    is_background = (primary < 0) & np.isin(np.arange(len(recordings)), secondary[0])
    takes_part = (primary >= 0) | (is_background & (recordings["duration_s"].to_numpy() <= MAX_BACKGROUND_S))
    rows_R = np.flatnonzero(takes_part & ~recordings["is_validation"].to_numpy())
    if not len(rows_R):
        raise DataError(
            f"At least one training recording of {dataset.root} must have a species of the label space {label_space.name!r}."
        )
    place = np.full(len(recordings), -1)
    place[rows_R] = np.arange(len(rows_R))
    kept = place[secondary[0]] >= 0
    secondary_rows, secondary_codes = place[secondary[0]][kept], secondary[1][kept]
    primary_R, background_R = primary[rows_R], is_background[rows_R]
    has_secondary_R = np.bincount(secondary_rows, minlength=len(rows_R)) > 0
    source_R = _sources(recordings, rows_R, sources)
    return TrainingTable(
        rows_R=rows_R,
        target_RC=_targets(primary_R, secondary_rows, secondary_codes, len(label_space), secondary_target),
        weight_R=_weights(recordings["rating"], rows_R, background_R),
        sampling_weight_R=_sampling_weights(
            primary_R, secondary_rows, secondary_codes, len(label_space), _POWERS[class_balance], source_R >= 0
        ),
        is_mixture_R=background_R | has_secondary_R,
        source_R=source_R,
        sources=proportions(sources),
    )


def validation_truth(dataset: Dataset, label_space: LabelSpace) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return rows of the validation recordings whose primary species is in the label space, and their truth (R, C), 0 or 1.

    Only the primary species is a positive. In the 2023 solution every label is (docs/deviations.md).
    """
    codes = dataset.recordings["primary_label"].map(label_space.index).fillna(-1).to_numpy(dtype=np.int64)
    rows_R = np.flatnonzero((codes >= 0) & dataset.recordings["is_validation"].to_numpy())
    truth_RC = np.zeros((len(rows_R), len(label_space)), dtype=np.uint8)
    truth_RC[np.arange(len(rows_R)), codes[rows_R]] = 1
    return rows_R, truth_RC


def _codes(recordings: pd.DataFrame, label_space: LabelSpace) -> tuple[NDArray, tuple[NDArray, NDArray]]:
    """Return the column of the primary species or -1, and (row, column) of the other species of the label space that are heard.

    Each pair comes once and is not the primary species, because targets are sums over the pairs.
    """
    primary = recordings["primary_label"].map(label_space.index).fillna(-1).to_numpy(dtype=np.int64)
    labels = recordings["secondary_labels"]
    flat = labels[labels.str.len() > 0].explode().map(label_space.index).dropna()
    rows, codes = flat.index.to_numpy(dtype=np.int64), flat.to_numpy(dtype=np.int64)
    rows, codes = np.divmod(np.unique(rows * len(label_space) + codes), len(label_space))
    is_other = codes != primary[rows]
    return primary, (rows[is_other], codes[is_other])


def _targets(primary_R: NDArray, rows: NDArray, codes: NDArray, num_species: int, secondary_target: float) -> csr_array:
    own = np.flatnonzero(primary_R >= 0)
    values = np.concatenate([np.ones(len(own)), np.full(len(rows), secondary_target)]).astype(np.float32)
    places = (np.concatenate([own, rows]), np.concatenate([primary_R[own], codes]))
    return csr_array((values, places), shape=(len(primary_R), num_species))


def _weights(rating: pd.Series, rows_R: NDArray, background_R: NDArray) -> NDArray[np.float32]:
    best = rating.max() or 1.0
    weight_R = np.clip((rating / best).fillna(1.0).to_numpy()[rows_R], _MIN_WEIGHT, 1.0)
    return np.where(background_R, weight_R * _BACKGROUND_WEIGHT, weight_R).astype(np.float32)


def _sources(recordings: pd.DataFrame, rows_R: NDArray, sources: SourceShares) -> NDArray[np.int64]:
    if not sources:
        return np.zeros(len(rows_R), np.int64)
    number = {name: number for number, (name, _) in enumerate(proportions(sources))}
    return recordings["source"].iloc[rows_R].map(number).fillna(-1).to_numpy(dtype=np.int64)


def _sampling_weights(
    primary_R: NDArray, rows: NDArray, codes: NDArray, num_species: int, power: float, counts_R: NDArray[np.bool_]
) -> NDArray[np.float64]:
    counts = np.bincount(primary_R[(primary_R >= 0) & counts_R], minlength=num_species) + _SECONDARY_COUNT * np.bincount(
        codes[counts_R[rows]], minlength=num_species
    )
    inverse = 1.0 / np.maximum(counts, _SECONDARY_COUNT) ** power
    heard = np.maximum(np.bincount(rows, minlength=len(primary_R)), 1)
    mean_of_secondary = np.bincount(rows, weights=inverse[codes], minlength=len(primary_R)) / heard
    return np.where(primary_R >= 0, inverse[primary_R], mean_of_secondary)
