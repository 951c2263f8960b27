"""Scores a submission by labels, as BirdCLEF did in the years: padded and plain cmAP, macro AUROC.

Shapes: R labelled windows that are rows of the submission, C species.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from birdclef_core.data.soundscapes import Soundscapes
from birdclef_core.errors import InputError
from birdclef_core.evaluation.metrics import summarise
from birdclef_core.inference.submission.rows import composed
from birdclef_core.inference.submission.table import read_submission
from birdclef_core.taxonomy import LabelSpace


@dataclass(frozen=True, kw_only=True)
class SubmissionScores:
    """What a submission scored."""

    figures: dict[str, float]
    """Those of `summarise`."""
    num_rows: int
    """Rows that have labels."""
    num_files: int
    """Files that these are of."""
    num_species: int
    """Species that are heard in them."""


def score_submission(path: Path, labels: Soundscapes) -> SubmissionScores:
    """Return the scores of a submission on the labelled windows that are rows of it. Labels that are no column do not count.

    Raises InputError when no row has labels.
    """
    table = read_submission(path)
    space = LabelSpace.of("submission", tuple(table.columns))
    spelled = labels.spelled_as(space)
    place = {composed(str(row_id)): row for row, row_id in enumerate(table.index)}
    rows = np.array([place.get(composed(row_id), -1) for row_id in spelled.windows["row_id"]], dtype=np.int64)
    is_row_R = rows >= 0
    if not is_row_R.any():
        raise InputError(
            f"At least one labelled window must be a row of {path}, but none is: labels have {spelled.windows['row_id'].iloc[0]}, "
            f"rows {table.index[0] if len(table) else 'are none'}."
        )
    truth_RC = spelled.truth(space)[is_row_R]
    score_RC = table[list(space.species)].to_numpy(dtype=np.float64)[rows[is_row_R]]
    return SubmissionScores(
        figures=summarise(truth_RC, score_RC),
        num_rows=len(truth_RC),
        num_files=int(spelled.windows["file"][is_row_R].nunique()),
        num_species=int(truth_RC.any(axis=0).sum()),
    )
