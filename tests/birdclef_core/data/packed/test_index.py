"""The index of a packed set: what stands for one, and what is refused."""

import json

import pytest

from birdclef_core.data.packed.index import INDEX_NAME, is_packed, read_index
from birdclef_core.errors import DataError
from birdclef_core.store.storage import Storage


def test_the_id_is_that_of_the_content(report, folder):
    from dataclasses import replace

    first, *others = report.index.shards
    changed = replace(report.index, shards=(replace(first, sha256="0" * 64), *others))
    assert len(report.index.pack_id) == 64
    assert changed.pack_id != report.index.pack_id


def test_what_is_packed(folder, packed):
    assert is_packed(str(packed))
    assert is_packed("s3://bucket/set")
    assert not is_packed(str(folder))


def test_a_folder_that_is_not_packed_is_refused_with_the_line_that_packs_it(folder):
    with pytest.raises(DataError, match=r"must be a packed set, but has no pack\.json.*birdclef data pack FOLDER"):
        read_index(Storage.parse(str(folder)), str(folder))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda index: index | {"version": 2}, "version must be 1, but is 2"),
        (lambda index: index | {"shards": []}, "there must be shards"),
        (lambda index: index | {"shards": [index["shards"][0]] * 2}, "each once"),
        (lambda index: index | {"shards": [index["shards"][0] | {"name": "../x.tar"}]}, "a shard has a name"),
        (lambda index: index | {"shards": [index["shards"][0] | {"num_bytes": -1}]}, "0 or more"),
        (lambda index: index | {"num_noise": None}, "num_noise must be a whole number"),
        (lambda index: [index], "must be an object"),
    ],
)
def test_a_damaged_index_is_refused(packed, change, expected):
    file = packed / INDEX_NAME
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(DataError, match=expected):
        read_index(Storage.parse(str(packed)), str(packed))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"PK\x03\x04"])
def test_an_index_that_is_no_json_is_refused(packed, content):
    (packed / INDEX_NAME).write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read.*Pack the data again"):
        read_index(Storage.parse(str(packed)), str(packed))
