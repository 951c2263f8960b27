"""The scores of a submission: filled from what was heard, made complete, checked and written.

Shapes: R rows, C species (the columns), W windows of one file, M species of the model.
"""

import csv
import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from birdclef_core.errors import BirdclefError
from birdclef_core.inference.results.calibration import rounded, sigmoid
from birdclef_core.inference.results.file_logits import FileLogits
from birdclef_core.inference.results.postprocess import PostProcessing
from birdclef_core.inference.submission.rows import ROW_ID, Rows
from birdclef_core.output_place import writing_to

_DIGITS = 9
"""Significant digits of a score: the order of logits up to 20 is kept."""
_NEEDS_QUOTES = frozenset(',"\n\r')


@dataclass
class Scores:
    """The scores of a submission, row by row, as files are heard."""

    rows: Rows
    species: tuple[str, ...]
    """Species of the model."""
    score_RC: NDArray[np.float64] = field(init=False)
    """NaN where nothing was heard."""

    def __post_init__(self) -> None:
        self.score_RC = np.full((len(self.rows.row_ids), len(self.rows.species)), np.nan)
        known = {code: column for column, code in enumerate(self.species)}
        self._to = np.array([column for column, code in enumerate(self.rows.species) if code in known], dtype=np.int64)
        self._from = np.array([known[code] for code in self.rows.species if code in known], dtype=np.int64)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Columns that are no species of the model."""
        return tuple(code for code in self.rows.species if code not in set(self.species))

    @property
    def constant(self) -> float:
        """The score of a species that the model does not know, and of all where nothing was heard: 1 / number of species."""
        return 1 / len(self.rows.species)

    def add(self, stem: str, logits: FileLogits, postprocessing: PostProcessing) -> None:
        """Fill the rows of a file with what was heard of it. Scores that are no numbers are not filled in."""
        row_R = self.rows.by_stem.get(stem)
        if row_R is None or not len(logits.start_W):
            return
        window_by_start = {int(start): window for window, start in enumerate(logits.start_W)}
        places = [(row, window_by_start[start]) for row in row_R if (start := int(self.rows.start_R[row])) in window_by_start]
        if not places:
            return
        heard_R, window_R = (np.array(values, dtype=np.int64) for values in zip(*places, strict=True))
        score_WM = sigmoid(postprocessing.apply(logits.logits_WC))
        self.score_RC[np.ix_(heard_R, self._to)] = score_WM[np.ix_(window_R, self._from)]

    @property
    def is_heard_R(self) -> NDArray[np.bool_]:
        """Whether each row has a score for every species that the model knows."""
        is_heard_R: NDArray[np.bool_] = ~np.any(np.isnan(self.score_RC[:, self._to]), axis=1)
        return is_heard_R

    def completed(self) -> NDArray[np.float64]:
        """Return the scores (R, C) without a gap.

        A species that was not heard in a row gets its mean over the rows in which it was; `constant` where there is none.
        """
        is_number_RC = ~np.isnan(self.score_RC)
        count_C = is_number_RC.sum(axis=0)
        sum_C = np.where(is_number_RC, self.score_RC, 0.0).sum(axis=0)
        mean_C = np.where(count_C > 0, sum_C / np.maximum(count_C, 1), self.constant)
        return np.where(is_number_RC, self.score_RC, mean_C)


def write_submission(rows: Rows, score_RC: NDArray[np.float64], path: Path) -> None:
    """Write a submission; it appears under its name when it is complete.

    Raises InputError when the place cannot be written, and BirdclefError when the rows or scores are not what a submission must be.
    """
    _check(rows, score_RC)
    columns = {code: pa.array(rounded(score_RC[:, column], _DIGITS)) for column, code in enumerate(rows.species)}
    table = pa.table({ROW_ID: pa.array(rows.row_ids, pa.string()), **columns})
    aside = path.with_name(f".{path.name}.tmp")
    with writing_to(path, way_out="give another place with -o"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            header = io.StringIO()
            csv.writer(header, lineterminator="\n").writerow(table.column_names)
            file.write(header.getvalue().encode())
            # pyarrow puts quotes around every text or around none.
            quotes: Literal["needed", "none"] = (
                "needed" if any(_NEEDS_QUOTES & set(row_id) for row_id in rows.row_ids) else "none"
            )
            pyarrow.csv.write_csv(table, file, pyarrow.csv.WriteOptions(include_header=False, quoting_style=quotes))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)


def _check(rows: Rows, score_RC: NDArray[np.float64]) -> None:
    """What everybody relies on is looked at once more: a submission that is refused costs more than a second."""
    if len(set(rows.row_ids)) < len(rows.row_ids) or len(set(rows.species)) < len(rows.species):
        raise BirdclefError("Rows and columns of a submission must be unique, but some are not: nothing was written.")
    if score_RC.shape != (len(rows.row_ids), len(rows.species)) or not ((score_RC >= 0) & (score_RC <= 1)).all():
        raise BirdclefError(
            "A submission must have a score from 0 to 1 in every row and column, but has not: nothing was written."
        )


def read_submission(path: Path) -> pd.DataFrame:
    """Return a submission as a table with the row ids as its index."""
    return pd.read_csv(path, index_col=ROW_ID, dtype={ROW_ID: str})
