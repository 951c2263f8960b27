"""Labelled rows whose logits are drawn, not heard, and labelled soundscapes of noise."""

from pathlib import Path

import numpy as np
from made_up_detector import write_sound
from scipy.special import expit

from birdclef_core.ensemble.calibration.labelled import HeardRows
from birdclef_core.inference.results.file_logits import FileLogits


def drawn(num_rows: int, intercepts, *, slope: float = 0.5, seed: int = 0, spread: float = 3.0):
    """Truth and logits (R, C) of a detector whose calibration is known."""
    generator = np.random.default_rng(seed)
    logits_RC = generator.normal(0, spread, (num_rows, len(intercepts)))
    return generator.random(logits_RC.shape) < expit(slope * logits_RC + np.array(intercepts)), logits_RC


def heard_rows(truth_RC: np.ndarray, logits_RC: np.ndarray, num_files: int, source="soundscapes") -> HeardRows:
    """Rows that are windows of files of equal length."""
    files, rows = [], []
    for part in np.array_split(np.arange(len(truth_RC)), num_files):
        start_W = np.arange(len(part)) * 160_000
        files.append(
            FileLogits(start_W, start_W + 160_000, logits_RC[part].astype(np.float32), np.zeros((len(part), 0), np.float32))
        )
        rows.append(part)
    return HeardRows(
        source=source,
        truth_RC=truth_RC,
        group_R=np.concatenate([np.full(len(part), number) for number, part in enumerate(rows)]),
        files=tuple(files),
        rows_of_file=tuple(rows),
        windows_of_file=tuple(tuple(np.array([window]) for window in range(len(part))) for part in rows),
        num_left_out=0,
        unreadable=(),
    )


def write_labelled(folder: Path, *, num_files: int = 3, duration_s: float = 40.0) -> Path:
    """A data folder with labelled soundscapes, of which alpha is loud, beta quiet, and gamma is heard once."""
    lines = ["row_id,labels"]
    for number in range(num_files):
        write_sound(folder / "test_soundscapes" / f"s{number}.wav", duration_s, seed=number)
        for end_s in range(5, int(duration_s) + 1, 5):
            labels = ["alpha"] * (end_s % 15 != 0) + ["beta"] * (end_s % 10 == 0) + ["gamma"] * (number == 0 and end_s == 5)
            lines.append(f"s{number}_{end_s},{' '.join(labels)}")
    (folder / "test_soundscapes_labels.csv").write_text("\n".join(lines) + "\n")
    return folder
