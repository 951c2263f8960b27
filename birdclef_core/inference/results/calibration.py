"""The calibration of a detector, `calibration.json`: how its logits become probabilities, and the post-processing that suits it.

`birdclef_core/ensemble/calibration/` fits it. Shapes: W windows of one file, C species.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from birdclef_core.errors import InputError
from birdclef_core.inference.procedure import Procedure
from birdclef_core.inference.results.postprocess import PostProcessing
from birdclef_core.json_files import from_json, to_json
from birdclef_core.output_place import writing_to

CALIBRATION_FILE = "calibration.json"
VERSION: Literal[1] = 1
"""Version of the file. One of another version is refused."""

DIGITS = 6
"""Significant digits of a score in tables."""

Source = Literal["soundscapes", "recordings"]
"""What it was fitted on: labelled windows of soundscapes, or validation recordings."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was fitted: logit = intercept of the species + slope x logit of the detector."""

    version: Literal[1] = VERSION
    model_id: str
    """Id of the detector."""
    procedure: Procedure
    species: tuple[str, ...]
    """Species codes, sorted."""
    slope: float
    """Of all species."""
    intercepts: tuple[float, ...]
    """Of each species."""
    supports: tuple[int, ...]
    """Number of windows or recordings with each species that it was fitted on."""
    postprocessing: PostProcessing
    """What is done to the logits of a file before: nothing, unless it was found to help this detector."""
    fitted_on: Source
    num_rows: int
    """Number of windows or recordings."""
    num_files: int

    def __post_init__(self) -> None:
        if not len(self.species) == len(self.intercepts) == len(self.supports) or list(self.species) != sorted(set(self.species)):
            raise InputError("species must be sorted, each be there once, and have an intercept and a support.")
        if not (0 <= self.slope < np.inf and np.isfinite(self.intercepts).all()):
            raise InputError(f"slope >= 0 must hold and intercepts must be finite, but slope={self.slope}.")

    def probabilities(self, logits_WC: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return calibrated probabilities for logits of a detector that have been post-processed as `postprocessing` says."""
        return sigmoid(self.slope * logits_WC.astype(np.float64) + np.array(self.intercepts))

    def require_of(self, model_id: str, procedure: Procedure, file: str) -> None:
        """Raise InputError when it is of another detector, or of another procedure. The step between windows does not count."""
        if self.model_id != model_id:
            raise InputError(
                f"A calibration must be of the model that it is used with, but {file} is of {self.model_id[:16]} and the model is "
                f"{model_id[:16]}. Make one with birdclef calibrate."
            )
        if replace(procedure, step_s=self.procedure.step_s) != self.procedure:
            raise InputError(f"A calibration must be of the procedure that it is used with, but {file} is of another.")


def sigmoid(logit: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return probabilities in float64, in which a sigmoid keeps the order of logits up to 36."""
    return 1.0 / (1.0 + np.exp(-np.clip(logit.astype(np.float64), -700, 700)))


def rounded(score: NDArray[np.float64], digits: int = DIGITS) -> NDArray[np.float64]:
    """Return probabilities with so many significant digits: a small one must not become 0. NaN stays."""
    with np.errstate(invalid="ignore"):
        scale = 10.0 ** (digits - 1 - np.floor(np.log10(np.maximum(score, 1e-300))))
        return np.where(score == 0, 0.0, np.round(score * scale) / scale)


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration. Raises InputError when the place cannot be written."""
    aside = path.with_name(f".{path.name}.tmp")
    with writing_to(path, way_out="give another folder with -o"):
        aside.write_text(to_json(calibration, indent=1), encoding="utf-8")
        aside.replace(path)


def read_calibration(path: Path) -> Calibration:
    """Return the calibration in a file. Raises InputError, with the file and what is wrong, when it cannot be read or is none."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} must be a calibration ({CALIBRATION_FILE}), but cannot be read: {error.strerror}.") from None
    return from_json(Calibration, content, file=str(path))
