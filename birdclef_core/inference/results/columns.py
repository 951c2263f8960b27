"""The columns of every table of detections."""

COLUMNS: dict[str, str] = {
    "file": "str",
    "start_s": "float64",
    "end_s": "float64",
    "species": "str",
    "name": "str",
    "score": "float64",
    "calibrated": "float64",
    "threshold": "float64",
    "model_id": "str",
}
"""Columns and their types. `calibrated` is empty without a calibration, `threshold` where the highest scores were asked for."""
COLUMN_NAMES = tuple(COLUMNS)
