"""Which scores of a file become rows of a table.

Shapes: W windows of one file, C species, R rows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.errors import InputError
from birdclef_core.inference.deployed import SHOWN_DIGITS, DeployedDetector
from birdclef_core.inference.results.calibration import rounded, sigmoid
from birdclef_core.inference.results.columns import COLUMNS
from birdclef_core.inference.results.file_logits import FileLogits
from birdclef_core.inference.results.postprocess import NO_POSTPROCESSING, PostProcessing

DEFAULT_THRESHOLD = 0.5
SHOWN = 3
"""Species that an error names."""
_SLICE = 512
"""Windows whose rows are made at once."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What becomes a row: scores from a threshold on, or the highest of each window."""

    threshold: float = DEFAULT_THRESHOLD
    """The least score of a row."""
    thresholds: Mapping[str, float] | None = None
    """The least score of a row, by species; None: `threshold` counts."""
    top: int | None = None
    """Number of species of each window that become rows, whatever their scores; None: thresholds count."""
    species: tuple[str, ...] | None = None
    """Species that can become rows; None: all."""
    merge: bool = False
    """Whether windows that touch become one row, with the highest score."""
    postprocessing: PostProcessing | None = None
    """What is done to the logits of a file; None: what the detector's calibration says, and nothing without one."""

    def __post_init__(self) -> None:
        for what, value in (("all species", self.threshold), *(self.thresholds or {}).items()):
            if not 0 <= value <= 1:
                raise InputError(f"A threshold must be from 0 to 1, but that of {what} is {value}.")
        if self.top is not None and self.top < 1:
            raise InputError(f"--top >= 1 must hold, but got {self.top}.")

    def for_detector(self, detector: DeployedDetector) -> "Selector":
        """Return what selects from a detector's logits.

        Raises InputError when the detector knows none of the species, or one that is asked for has no threshold.
        """
        return Selector(self, detector)


class Selector:
    """Makes rows of the logits of one detector."""

    def __init__(self, selection: Selection, detector: DeployedDetector) -> None:
        self._selection, self._detector = selection, detector
        wanted = set(detector.species if selection.species is None else selection.species)
        self.unknown = tuple(sorted(wanted - set(detector.species)))
        """Species that were asked for and that the detector does not know."""
        self._columns = np.array([column for column, code in enumerate(detector.species) if code in wanted], dtype=np.int64)
        if not len(self._columns):
            raise InputError(
                f"At least one species that is asked for must be one of the model's, but none is ({', '.join(self.unknown[:SHOWN])}). "
                f"It knows {len(detector.species)}, such as {', '.join(detector.species[:SHOWN])}."
            )
        self.species = tuple(detector.species[column] for column in self._columns)
        """Species that can become rows."""
        self._names = [detector.name(code) for code in self.species]
        self._threshold_C = self._thresholds()
        self._calibration = detector.calibration
        own = NO_POSTPROCESSING if self._calibration is None else self._calibration.postprocessing
        self._postprocessing = own if selection.postprocessing is None else selection.postprocessing

    def _thresholds(self) -> NDArray[np.float64]:
        """The threshold of each species; NaN where none counts."""
        selection = self._selection
        if selection.top is not None:
            return np.full(len(self.species), np.nan)
        if selection.thresholds is None:
            return np.full(len(self.species), selection.threshold)
        missing = [code for code in self.species if code not in selection.thresholds]
        if missing:
            raise InputError(
                f"Every species that is asked for must have a threshold, but {len(missing)} have none ({', '.join(missing[:SHOWN])}). "
                "Add them to the table, or leave them out with --species."
            )
        return np.array([selection.thresholds[code] for code in self.species])

    def scores(self, logits: FileLogits) -> NDArray[np.float64]:
        """Return probabilities (W, C) of `species`, after post-processing."""
        return sigmoid(self._postprocessing.apply(logits.logits_WC)[:, self._columns])

    def calibrated(self, logits: FileLogits) -> NDArray[np.float64]:
        """Return calibrated probabilities (W, C) of `species`, after the calibration's own post-processing; NaN without a calibration."""
        if self._calibration is None:
            return np.full((len(logits.logits_WC), len(self._columns)), np.nan)
        changed_WC = self._calibration.postprocessing.apply(logits.logits_WC)
        return self._calibration.probabilities(changed_WC)[:, self._columns]

    def passes(self, score_WC: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which scores become rows."""
        top = self._selection.top
        if top is None:
            return score_WC >= self._threshold_C
        is_top_WC = np.zeros(score_WC.shape, dtype=bool)
        # Of equal scores, the first species counts.
        best_WK = np.argsort(-score_WC, axis=1, kind="stable")[:, :top]
        np.put_along_axis(is_top_WC, best_WK, True, axis=1)
        return is_top_WC

    def rows(self, file: str, logits: FileLogits) -> Iterator[pd.DataFrame]:
        """Yield the rows of a file in tables with `COLUMNS`, in the order of time and species. Nothing found: nothing is yielded."""
        if self._selection.merge:
            yield from self._merged_rows(file, logits)
            return
        score_WC, calibrated_WC = self.scores(logits), self.calibrated(logits)
        for first in range(0, len(score_WC), _SLICE):
            part_WC = score_WC[first : first + _SLICE]
            window_R, column_R = np.nonzero(self.passes(part_WC))
            if len(window_R):
                starts, ends = logits.start_W[first + window_R], logits.end_W[first + window_R]
                calibrated_R = calibrated_WC[first + window_R, column_R]
                yield self._table(file, starts, ends, column_R, part_WC[window_R, column_R], calibrated_R)

    def _merged_rows(self, file: str, logits: FileLogits) -> Iterator[pd.DataFrame]:
        score_WC, calibrated_WC = self.scores(logits), self.calibrated(logits)
        passes_WC = self.passes(score_WC)
        # Windows that do not touch the one before begin a new row, even if both pass.
        touches_W = np.zeros(len(score_WC), dtype=bool)
        touches_W[1:] = logits.start_W[1:] <= logits.end_W[:-1]
        begins_WC = passes_WC.copy()
        begins_WC[1:] &= ~(passes_WC[:-1] & touches_W[1:, None])
        column_R, first_R = np.nonzero(begins_WC.T)
        if not len(column_R):
            return
        last_R, score_R, calibrated_R = np.empty_like(first_R), np.empty(len(first_R)), np.empty(len(first_R))
        for row, (column, first) in enumerate(zip(column_R, first_R, strict=True)):
            later = np.flatnonzero(~passes_WC[first + 1 :, column] | begins_WC[first + 1 :, column])
            last_R[row] = first + (later[0] if len(later) else len(score_WC) - 1 - first)
            score_R[row] = score_WC[first : last_R[row] + 1, column].max()
            calibrated_R[row] = calibrated_WC[first : last_R[row] + 1, column].max()
        order_R = np.lexsort((column_R, first_R))
        starts, ends = logits.start_W[first_R[order_R]], logits.end_W[last_R[order_R]]
        yield self._table(file, starts, ends, column_R[order_R], score_R[order_R], calibrated_R[order_R])

    def _table(
        self,
        file: str,
        start_R: NDArray[np.int64],
        end_R: NDArray[np.int64],
        column_R: NDArray[np.int64],
        score_R: NDArray[np.float64],
        calibrated_R: NDArray[np.float64],
    ) -> pd.DataFrame:
        values = {
            "file": file,
            "start_s": start_R / SAMPLE_RATE_HZ,
            "end_s": end_R / SAMPLE_RATE_HZ,
            "species": np.array(self.species, dtype=object)[column_R],
            "name": np.array(self._names, dtype=object)[column_R],
            "score": rounded(score_R),
            "calibrated": rounded(calibrated_R),
            "threshold": self._threshold_C[column_R],
            "model_id": self._detector.model_id[:SHOWN_DIGITS],
        }
        return pd.DataFrame(values).astype(COLUMNS)


def no_rows() -> pd.DataFrame:
    """Return a table of detections without a row."""
    return pd.DataFrame({name: [] for name in COLUMNS}).astype(COLUMNS)
