"""Chooses the post-processing of a detector by cross-fitting: none, unless its gain exceeds the standard error of that gain.

Shapes: R rows, C species, G groups.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from birdclef_core.ensemble.calibration.labelled import HeardRows
from birdclef_core.ensemble.parts import jackknife_error, parts_of
from birdclef_core.errors import InputError
from birdclef_core.evaluation.jackknife import figures_without_groups
from birdclef_core.evaluation.metrics import auroc, cmap
from birdclef_core.inference.results.postprocess import NO_POSTPROCESSING, PostProcessing

SMOOTH = (0.0, 0.1, 0.2, 0.3)
PEAK = (0.0, 0.1, 0.2, 0.3, 0.5)
CANDIDATES = tuple(PostProcessing(smooth=smooth, peak=peak) for smooth, peak in product(SMOOTH, PEAK))
"""What is tried; the first is nothing at all."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What a post-processing scores on all rows. It is apparent: the best of many is too good."""

    postprocessing: PostProcessing
    auroc: float
    cmap: float


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen, and why."""

    chosen: PostProcessing
    best: PostProcessing
    """The best on all rows."""
    without: float
    """Macro AUROC without post-processing."""
    gain: float
    """What cross-fitted post-processing adds to it."""
    error: float
    """Standard error of the gain, by a jackknife over files."""
    tried: tuple[Tried, ...]

    @property
    def helps(self) -> bool:
        """Whether the gain exceeds its error."""
        return self.gain > self.error


def choose_postprocessing(rows: HeardRows) -> Choice:
    """Return the post-processing for a detector. The score is macro AUROC.

    Raises InputError for validation recordings, of which a row is a whole file, and for labels of fewer than two files.
    """
    part_R = parts_of(rows.group_R)
    if rows.source != "soundscapes" or part_R is None:
        raise InputError(
            "Post-processing can be chosen by labelled soundscapes of two files or more, but the labels are of "
            + ("recordings." if rows.source != "soundscapes" else "one file. Leave out --choose-postprocessing.")
        )
    by_candidate = {item: rows.logits(item) for item in CANDIDATES}
    pooled_RC = np.empty(rows.truth_RC.shape)
    for part in np.unique(part_R):
        is_part_R = part_R == part
        pooled_RC[is_part_R] = by_candidate[_best(rows.truth_RC[~is_part_R], by_candidate, ~is_part_R)][is_part_R]
    best = _best(rows.truth_RC, by_candidate, np.ones(len(part_R), dtype=bool))
    with_G, without_G = (_aurocs(rows, logits_RC) for logits_RC in (pooled_RC, by_candidate[NO_POSTPROCESSING]))
    gain, error = float(with_G[-1] - without_G[-1]), jackknife_error((with_G - without_G)[:-1])
    return Choice(
        chosen=best if gain > error else NO_POSTPROCESSING,
        best=best,
        without=float(without_G[-1]),
        gain=gain,
        error=error,
        tried=tuple(
            Tried(
                postprocessing=item,
                auroc=auroc(rows.truth_RC, expit(logits_RC)),
                cmap=cmap(rows.truth_RC, expit(logits_RC)),
            )
            for item, logits_RC in by_candidate.items()
        ),
    )


def _best(
    truth_RC: NDArray[np.bool_], by_candidate: dict[PostProcessing, NDArray[np.float64]], is_used_R: NDArray[np.bool_]
) -> PostProcessing:
    """Return the candidate with the highest macro AUROC; of equal ones, and where it is not defined, the first."""
    scores = {item: auroc(truth_RC, expit(logits_RC[is_used_R])) for item, logits_RC in by_candidate.items()}
    return max(scores, key=lambda item: -1.0 if np.isnan(scores[item]) else scores[item])


def _aurocs(rows: HeardRows, logits_RC: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return macro AUROC without each file, then of all rows (G + 1,)."""
    return figures_without_groups(rows.truth_RC, expit(logits_RC), rows.group_R)["auroc"]
