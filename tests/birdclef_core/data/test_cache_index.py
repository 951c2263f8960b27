from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from birdclef_core.data.cache_index import CacheIndex, read_index, read_sources, write_index
from birdclef_core.errors import DataError
from birdclef_core.findings import Finding

INDEX = CacheIndex(
    keys=np.array(["a" * 32, "b" * 32], dtype="S32"),
    num_samples=np.array([7, 0]),
    is_direct=np.array([False, True]),
    num_recordings=1,
    max_s=61.5,
    findings=(Finding.of("damaged", "[file is|files are] damaged", ["x.ogg"], "left out."),),
    sources=("/data/x.ogg", "/data/é.ogg"),
)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_index(tmp_path, INDEX)
    found = read_index(tmp_path)
    for name in ("keys", "num_samples", "is_direct"):
        assert np.array_equal(getattr(found, name), getattr(INDEX, name))
    assert (found.num_recordings, found.max_s, found.findings, found.sources) == (1, 61.5, INDEX.findings, None)
    assert read_sources(tmp_path) == INDEX.sources and [path.name for path in tmp_path.iterdir()] == ["index.npz"]


@pytest.mark.parametrize("content", [None, b"", b"rubbish", "half"])
def test_a_damaged_index_is_refused(tmp_path: Path, content: bytes | str | None) -> None:
    write_index(tmp_path, INDEX)
    path = tmp_path / "index.npz"
    whole = path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    with pytest.raises(DataError, match="Build the cache first"):
        read_index(tmp_path)


def test_nothing_is_left_where_it_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("birdclef_core.data.cache_index.np.savez", fail)
    with pytest.raises(OSError, match="No space"):
        write_index(tmp_path, replace(INDEX, max_s=None))
    assert not list(tmp_path.iterdir())
