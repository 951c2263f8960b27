"""The folds of a collected folder stay when recordings come, also those that a hash would place elsewhere."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from birdclef_core.data import kept_split
from birdclef_core.data.kept_split import SPLIT_NAME, keep_split, read_split
from birdclef_core.data.recording_folds import divide
from birdclef_core.errors import DataError


def made_up(count: int, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "recording_id": [f"{seed}-{number}" for number in range(count)],
            "primary_label": [f"s{code % 40:02}" for code in generator.zipf(1.3, count)],
            "author": [f"a{code % 60}" for code in generator.zipf(1.3, count)],
        }
    )


def folds_of(recordings: pd.DataFrame, previous: pd.Series | None = None) -> np.ndarray:
    return divide(recordings, [""] * len(recordings), previous)["fold"].to_numpy()


def test_recordings_that_come_later_move_none(tmp_path: Path) -> None:
    """Without what is kept, some authors move; with it, none."""
    old, more = made_up(800), made_up(60, seed=1)
    grown = pd.concat([more, old], ignore_index=True)
    keep_split(tmp_path, old)
    kept = read_split(tmp_path, grown["recording_id"])
    assert kept is not None and kept[:60].isna().all()
    assert (kept[60:].to_numpy(dtype=int) == folds_of(old)).all()
    assert (folds_of(grown, kept)[60:] == folds_of(old)).all()
    assert (folds_of(grown)[60:] != folds_of(old)).any()
    keep_split(tmp_path, grown)
    again = read_split(tmp_path, old["recording_id"])
    assert again is not None and (again.to_numpy(dtype=int) == folds_of(old)).all()


def test_a_split_of_another_kind_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recordings = made_up(50)
    ids = recordings["recording_id"]
    assert read_split(tmp_path, ids) is None
    keep_split(tmp_path, recordings)
    assert read_split(tmp_path, ids) is not None
    monkeypatch.setattr(kept_split, "_SCHEMA", kept_split._SCHEMA.with_metadata({"folds": "5", "seed": "1"}))
    assert read_split(tmp_path, ids) is None


def test_a_file_that_is_no_split_is_said(tmp_path: Path) -> None:
    (tmp_path / SPLIT_NAME).write_text("nothing")
    with pytest.raises(DataError, match="Remove it"):
        read_split(tmp_path, pd.Series(["a"]))


@pytest.mark.parametrize("fault", ["a fold that is none", "a recording twice"])
def test_a_split_that_cannot_be_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    recordings = made_up(5)
    if fault == "a recording twice":
        recordings.loc[1, "recording_id"] = recordings.loc[0, "recording_id"]
    else:
        monkeypatch.setattr(kept_split, "divide", lambda *_: pd.DataFrame({"fold": [0, 1, 2, 3, 5]}))
    keep_split(tmp_path, recordings)
    with pytest.raises(DataError, match="Remove it"):
        read_split(tmp_path, recordings["recording_id"])
