import os
from pathlib import Path

import numpy as np
import pytest

from birdclef_core.data.containers import file_bytes
from birdclef_core.data.containers.file_bytes import FileBytes


@pytest.fixture
def content() -> bytes:
    return np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()


@pytest.fixture
def path(tmp_path: Path, content: bytes) -> Path:
    (tmp_path / "a").write_bytes(content)
    return tmp_path / "a"


def test_any_bytes_are_those_of_the_file(path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_bytes, "_CHUNK", 2**15)
    rng = np.random.default_rng(1)
    with FileBytes(path) as file:
        assert file.size == len(content)
        for position, count in zip(rng.integers(0, 310_000, 500).tolist(), rng.integers(0, 50_000, 500).tolist(), strict=True):
            assert file.read(position, count) == content[position : position + count]


@pytest.mark.parametrize("chunk", [7, 100, 2**20])
def test_a_pattern_is_found_wherever_chunks_begin(
    path: Path, content: bytes, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_bytes, "_CHUNK", chunk)
    with FileBytes(path) as file:
        for place in range(2000, 2030):
            pattern = content[place : place + 6]
            assert file.find(pattern, 1000, 5000) == place
            assert file.find(pattern, 1000, place + 5) == -1
        assert file.find(b"no such bytes here", 0, 5000) == -1


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(OSError, match=r"not a regular file|directory"):
            FileBytes(path)


def test_a_change_is_seen(path: Path, content: bytes) -> None:
    with FileBytes(path) as file:
        assert not file.has_changed()
        os.utime(path, ns=(1, 1))
        assert file.has_changed()
    with FileBytes(path) as file:
        path.with_name("b").write_bytes(content)
        path.with_name("b").replace(path)
        assert file.has_changed()
