from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from birdclef_core.data import kept_split
from birdclef_core.data.kept_split import SPLIT_NAME, keep_split, read_split
from birdclef_core.data.splits import author_grouped_split
from birdclef_core.errors import DataError

OF = {"share": kept_split.VALIDATION_SHARE, "seed": kept_split.SPLIT_SEED}


def made_up(count: int, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "recording_id": [f"{seed}-{number}" for number in range(count)],
            "primary_label": [f"s{code % 40:02}" for code in generator.zipf(1.3, count)],
            "author": [f"a{code % 60}" for code in generator.zipf(1.3, count)],
        }
    )


def side(recordings: pd.DataFrame, fold: int, previous: pd.Series | None = None) -> np.ndarray:
    values = (recordings[name] for name in ("primary_label", "author"))
    ids = recordings["recording_id"]
    return author_grouped_split(*values, **OF, recording_ids=ids, fold=fold, previous=previous).is_validation


def test_recordings_that_come_later_move_none(tmp_path: Path) -> None:
    """Without what is kept, the repairs move some authors; with it, none."""
    old, more = made_up(800), made_up(60, seed=1)
    grown = pd.concat([more, old], ignore_index=True)
    keep_split(tmp_path, old)
    moved_anew = 0
    for fold in range(5):
        kept = read_split(tmp_path, grown["recording_id"], fold=fold)
        assert kept is not None and kept[:60].isna().all()
        assert (kept[60:].to_numpy(dtype=bool) == side(old, fold)).all()
        assert (side(grown, fold, kept)[60:] == side(old, fold)).all()
        moved_anew += int((side(grown, fold)[60:] != side(old, fold)).sum())
    assert moved_anew > 0
    keep_split(tmp_path, grown)
    again = read_split(tmp_path, old["recording_id"], fold=2)
    assert again is not None and (again.to_numpy(dtype=bool) == side(old, 2)).all()


def test_another_split_is_none_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recordings = made_up(50)
    ids = recordings["recording_id"]
    assert read_split(tmp_path, ids, fold=0) is None
    keep_split(tmp_path, recordings)
    assert read_split(tmp_path, ids, fold=5) is None
    assert read_split(tmp_path, ids, fold=0) is not None
    monkeypatch.setitem(kept_split._OF, "seed", "1")
    assert read_split(tmp_path, ids, fold=0) is None


def test_a_file_that_is_no_split_is_said(tmp_path: Path) -> None:
    (tmp_path / SPLIT_NAME).write_text("nothing")
    with pytest.raises(DataError, match="Remove it"):
        read_split(tmp_path, pd.Series(["a"]), fold=0)
