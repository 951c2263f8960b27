from pathlib import Path

import numpy as np
import pytest

from birdclef_core.data.containers.file_bytes import FileBytes
from birdclef_core.data.containers.part_file import PartFile

CONTENT = bytes(range(200))
PIECES = (b"head", (10, 30), b"", (100, 140))
WHOLE = b"head" + CONTENT[10:30] + CONTENT[100:140]


@pytest.fixture
def file(tmp_path: Path) -> FileBytes:
    (tmp_path / "a").write_bytes(CONTENT)
    return FileBytes(tmp_path / "a")


def test_it_is_its_pieces(file: FileBytes) -> None:
    part = PartFile(file, PIECES)
    assert part.read(1000) == WHOLE and part.read(10) == b""
    assert part.seek(0, 2) == len(WHOLE)
    rng = np.random.default_rng(0)
    for position, count in rng.integers(0, 70, (200, 2)).tolist():
        part.seek(position)
        assert part.read(count) == WHOLE[position : position + count]


def test_an_open_ended_one_claims_more_than_it_has(file: FileBytes) -> None:
    part = PartFile(file, PIECES, is_open_ended=True)
    assert part.seek(0, 2) == len(WHOLE) + 2**40
    part.seek(-128, 2)
    assert part.read(128) == bytes(128)
    part.seek(len(WHOLE) - 3)
    assert part.read(10) == WHOLE[-3:] and part.read(10) == b""


def test_an_error_is_kept_for_the_caller(file: FileBytes) -> None:
    part = PartFile(file, PIECES)
    file.close()
    assert part.read(100) == b"head" and isinstance(part.error, OSError)
