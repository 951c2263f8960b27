import os
from pathlib import Path

import numpy as np
import pytest

from birdclef_core.data.cache_entries import entry_bytes, entry_path, write_entry
from birdclef_core.data.cache_estimate import CacheEstimate, find_work
from birdclef_core.data.cache_sources import SourceList

SOURCES = SourceList(
    paths=["/data/a.ogg", "/data/b.ogg", "/data/c.ogg"],
    keys=["aa" * 16, "bb" * 16, "cc" * 16],
    duration_s=np.array([1.0, 2.0, 3.0]),
    num_recordings=3,
    max_s=None,
    by_use=np.array([2, 0, 1]),
)


def store(cache_dir: Path, row: int, num_samples: int) -> None:
    write_entry(entry_path(f"{cache_dir}/audio", SOURCES.keys[row]), [np.zeros(num_samples, dtype=np.int16)], cache_dir)


def test_what_is_stored_is_not_decoded(tmp_path: Path) -> None:
    store(tmp_path, 0, 32_000)
    work = find_work(SOURCES, tmp_path, None)
    assert work.to_decode.tolist() == [2, 1] and work.stored_samples.tolist() == [32_000, -1, -1]
    assert work.num_bytes == entry_bytes(3 * 32_000) + entry_bytes(2 * 32_000) and not len(work.direct)


@pytest.mark.parametrize(
    ("num_samples", "is_stored"), [(64_000, True), (61_000, True), (67_000, True), (60_000, False), (9_000, False)]
)
def test_an_entry_of_another_length_than_its_file_is_none(tmp_path: Path, num_samples: int, is_stored: bool) -> None:
    store(tmp_path, 1, num_samples)
    assert (find_work(SOURCES, tmp_path, None).stored_samples[1] == num_samples) == is_stored


def test_the_most_useful_get_the_room(tmp_path: Path) -> None:
    work = find_work(SOURCES, tmp_path, entry_bytes(3 * 32_000) + entry_bytes(32_000))
    assert work.to_decode.tolist() == [2, 0] and work.direct.tolist() == [1]


def test_nothing_has_room_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.access
    monkeypatch.setattr("birdclef_core.data.cache_estimate.os.access", lambda path, mode: mode != 2 and real(path, mode))
    work = find_work(SOURCES, tmp_path / "new" / "cache", None)
    assert work.free_bytes == 0 and work.direct.tolist() == [2, 0, 1]


def test_it_is_told_in_one_line() -> None:
    estimate = CacheEstimate(num_files=3, num_bytes=2 * 10**9, free_bytes=10**10, decode_s=90, num_direct=4, direct_clip_s=0.02)
    assert estimate.describe().startswith("3 files to decode, 2.0 GB and about 1.5 minutes on ")
    assert "4 files do not fit and cost 20 ms" in estimate.describe()
