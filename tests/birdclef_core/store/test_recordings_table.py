"""The recordings of a dataset come back as they were kept, damage is told from absence, and a file is known by its content."""

import io
import os

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from birdclef_core.errors import StoreError
from birdclef_core.store.recordings_table import BLOCK_BYTES, content_hashes, read_recordings, table_name, write_recordings
from birdclef_core.store.storage import Storage

RECORDINGS = pd.DataFrame(
    {
        "recording_id": ["XC1", "b", "c"],
        "author": ["Ann", "", "Zoë"],
        "group": ["author ann", "", "place 1.00 2.00"],
        "content": ["00ff", "", "11"],
        "is_validation": [True, False, False],
        "always_trains": [False, False, True],
    }
)


@pytest.fixture
def storage(tmp_path):
    storage = Storage.parse(str(tmp_path))
    write_recordings(storage, "data", RECORDINGS.assign(other="not kept"))
    return storage


def test_a_table_comes_back_under_its_fingerprint_alone(storage):
    pd.testing.assert_frame_equal(read_recordings(storage, "data"), RECORDINGS, check_dtype=False)
    assert read_recordings(storage, "other") is None
    assert [file.name for file in storage.files()] == ["recordings/data.parquet"]


def test_a_table_is_kept_on_s3_too(s3_uri):
    storage = Storage.parse(s3_uri)
    write_recordings(storage, "data", RECORDINGS)
    assert list(read_recordings(storage, "data")["author"]) == ["Ann", "", "Zoë"]
    assert read_recordings(storage, "other") is None


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def as_version(content: bytes, version: str) -> pa.Table:
    return pq.read_table(io.BytesIO(content)).replace_schema_metadata({"birdclef_recordings": version})


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda content: content[: len(content) // 2], "cannot be read"),
        (lambda content: b"", "cannot be read"),
        (lambda content: content[:60] + bytes([content[60] ^ 1]) + content[61:], "cannot be read"),
        (lambda content: parquet(pa.Table.from_pandas(RECORDINGS)), "not a table of recordings of version 2"),
        (lambda content: parquet(as_version(content, "1")), "not a table of recordings of version 2"),
    ],
    ids=["cut", "empty", "one bit", "another table", "another version"],
)
def test_a_damaged_table_is_no_missing_one(storage, tmp_path, damage, problem):
    path = tmp_path / table_name("data")
    damaged = damage(path.read_bytes())
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    with pytest.raises(StoreError, match=problem) as error:
        read_recordings(storage, "data")
    assert str(path) in str(error.value)


def test_files_are_equal_when_size_start_middle_and_end_are(tmp_path):
    original = os.urandom(10 * BLOCK_BYTES)
    middle = 5 * BLOCK_BYTES
    contents = {
        "original": original,
        "renamed": original,
        "longer": original + b"x",
        "start": b"x" * 8 + original[8:],
        "middle": original[:middle] + b"x" * 8 + original[middle + 8 :],
        "end": original[:-8] + b"x" * 8,
        "short": original[:1000],
        "shorter": original[:999],
        "empty": b"",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    hashes = dict(zip(contents, content_hashes([tmp_path / name for name in contents]), strict=True))
    assert hashes["original"] == hashes.pop("renamed")
    assert len(set(hashes.values())) == len(hashes) and all(len(digest) == 32 for digest in hashes.values())


def test_a_file_that_cannot_be_read_has_no_hash_and_the_others_keep_their_order(tmp_path):
    paths = [tmp_path / f"{number}.ogg" for number in range(200)]
    for path in paths:
        path.write_text(path.name)
    expected = content_hashes(paths, threads=1)
    paths[77].unlink()
    paths[78] = tmp_path
    found = content_hashes(paths)
    assert found[77:79] == ["", ""] and found[:77] + found[79:] == expected[:77] + expected[79:]
