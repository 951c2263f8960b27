"""Packing: shards by their content, an index that is written last, and a second run that goes on."""

import errno
import tarfile

import pytest

from birdclef_core.data.dataset import load_dataset
from birdclef_core.data.packed.index import INDEX_NAME, find_index
from birdclef_core.data.packed.writing import pack
from birdclef_core.errors import DataError, InputError, StoreError
from birdclef_core.store.storage import Storage


def test_shards_are_plain_archives_with_their_hash_in_the_index(folder, packed, report):
    index = find_index(Storage.parse(str(packed)))
    assert index == report.index
    assert (index.num_recordings, index.num_noise, index.num_soundscapes) == (12, 2, 1)
    assert index.data_fingerprint == load_dataset(folder).fingerprint
    assert len(index.shards) > 3
    assert {item.name for item in packed.iterdir()} == {INDEX_NAME, *(shard.name for shard in index.shards)}
    with tarfile.open(packed / index.shards[0].name) as tables:
        assert sorted(tables.getnames()) == ["target_species.txt", "test_soundscapes_labels.csv", "train.csv"]
    names = []
    for shard in index.shards:
        with tarfile.open(packed / shard.name) as archive:
            names += archive.getnames()
    assert len(names) == index.num_files == len(set(names))


def test_a_packing_that_was_cut_off_goes_on(folder, packed, report):
    lost = report.index.shards[2].name
    (packed / lost).unlink()
    (packed / INDEX_NAME).unlink()
    (packed / report.index.shards[3].name).write_bytes(b"cut off")
    again = pack(folder, str(packed), shard_bytes=20_000)
    assert (again.index, again.num_sent) == (report.index, 2)
    assert pack(folder, str(packed), shard_bytes=20_000).num_sent == 0


def test_another_set_is_not_overwritten(folder, packed):
    with pytest.raises(InputError, match="holds another packed set already"):
        pack(folder, str(packed), shard_bytes=10_000)


def test_a_place_that_cannot_be_packed_to_is_refused(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="must be a folder or bucket that can be written to"):
        pack(folder, str(tmp_path / "file"))
    with pytest.raises(InputError, match="in a folder of its own"):
        pack(folder, str(folder))
    with pytest.raises(DataError, match=r"must hold train\.csv"):
        pack(tmp_path, str(tmp_path / "new"))
    assert not (tmp_path / "new" / INDEX_NAME).exists()


def test_no_room_leaves_what_is_there(folder, tmp_path, monkeypatch):
    put, calls = Storage.put, []

    def put_two(self, file, name):
        calls.append(name)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        put(self, file, name)

    monkeypatch.setattr(Storage, "put", put_two)
    with pytest.raises(StoreError, match=r"No space left.*What is there is kept"):
        pack(folder, str(tmp_path / "set"), shard_bytes=20_000)
    assert not (tmp_path / "set" / INDEX_NAME).exists()
    monkeypatch.undo()
    report = pack(folder, str(tmp_path / "set"), shard_bytes=20_000)
    assert report.num_sent == len(report.index.shards) - 2


def test_the_same_on_s3(folder, s3_uri, report):
    again = pack(folder, s3_uri, shard_bytes=20_000)
    assert (again.index, again.num_sent) == (report.index, len(report.index.shards))
    assert pack(folder, s3_uri, shard_bytes=20_000).num_sent == 0
    with pytest.raises(InputError, match="must be a folder or bucket that can be written to"):
        pack(folder, s3_uri.replace("bucket-", "no-such-bucket-"))
