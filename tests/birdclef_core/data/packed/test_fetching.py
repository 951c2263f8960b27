"""Fetching a packed set: equal data, once on a machine, whatever happens on the way."""

import io
import os
import signal
import subprocess
import sys
import tarfile
from collections import namedtuple
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from birdclef_core.data.dataset import load_dataset
from birdclef_core.data.packed import fetching
from birdclef_core.data.packed.fetching import PackedData
from birdclef_core.data.packed.index import INDEX_NAME, Shard
from birdclef_core.data.packed.writing import pack
from birdclef_core.errors import DataError, InputError
from birdclef_core.store.storage import Storage


@pytest.fixture
def data(packed, tmp_path):
    return PackedData.open(str(packed), tmp_path / "cache")


def files_under(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("fold", [0, 3])
def test_the_data_are_the_same_packed_and_unpacked(folder, data, fold):
    root = data.fetch()
    before, after = load_dataset(folder, fold=fold), load_dataset(root, fold=fold)
    assert after.fingerprint == before.fingerprint
    assert after.recordings.equals(before.recordings)
    assert after.soundscapes.identity() == before.soundscapes.identity()
    assert after.findings == before.findings
    there = files_under(root)
    assert there == {path: content for path, content in files_under(folder).items() if path in there}
    assert len(there) == data.index.num_files


def test_what_is_here_is_not_fetched_again(packed, data):
    root = data.fetch()
    for file in packed.iterdir():
        file.unlink()
    assert data.fetch() == root
    assert (data.is_here, data.problem()) == (True, "")


def test_a_file_that_was_lost_or_cut_off_is_fetched_again(data):
    root = data.fetch()
    before = files_under(root)
    (root / "train_audio" / "low" / "low1é.wav").write_bytes(b"cut")
    (root / "background_noise" / "b.wav").unlink()
    times = {path: (root / path).stat().st_mtime_ns for path in before if path != "background_noise/b.wav"}
    assert 1 <= len(data.missing()) <= 2
    data.fetch()
    assert files_under(root) == before
    assert {(root / path).stat().st_mtime_ns for path in times} == {946_684_800 * 10**9}


def test_a_missing_shard_is_said_and_the_others_are_kept(packed, data):
    lost = packed / data.index.shards[1].name
    content = lost.read_bytes()
    lost.unlink()
    with pytest.raises(DataError, match=f"must hold {lost.name} as it was packed, but it is not there"):
        data.fetch()
    lost.write_bytes(content)
    assert lost.name in [shard.name for shard in data.missing()]
    assert len(data.missing()) < len(data.index.shards)
    assert load_dataset(data.fetch()).fingerprint == data.index.data_fingerprint


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda content: content[:-2000], "bytes in place of"),
        (lambda content: content[:700], "bytes in place of"),
        (lambda content: b"", "has 0 bytes in place of"),
        (lambda content: content[:1000] + bytes([content[1000] ^ 1]) + content[1001:], "sha256 differs"),
        (lambda content: b"\0" * len(content), "sha256 differs"),
    ],
    ids=["end missing", "header only", "empty", "one bit", "zeros"],
)
def test_a_damaged_shard_is_said_and_none_of_its_files_counts(packed, data, damage, expected):
    shard = data.index.shards[2]
    file = packed / shard.name
    content = file.read_bytes()
    file.write_bytes(damage(content))
    with pytest.raises(DataError, match=expected):
        data.fetch()
    assert shard in data.missing()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert not any((data.root / name).exists() for name in archive.getnames())
    file.write_bytes(content)
    assert load_dataset(data.fetch()).fingerprint == data.index.data_fingerprint


@pytest.mark.parametrize("kind", ["above", "absolute", "link"])
def test_an_archive_cannot_write_elsewhere(packed, data, tmp_path, kind):
    entry = tarfile.TarInfo({"above": "../../escaped", "absolute": str(tmp_path / "escaped"), "link": "escaped"}[kind])
    if kind == "link":
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        archive.addfile(entry)
    content = written.getvalue()
    digest = sha256(content).hexdigest()
    shard = Shard(name=f"audio-{digest[:32]}.tar", sha256=digest, num_bytes=len(content), num_files=1, file_bytes=0)
    (packed / shard.name).write_bytes(content)
    forged = replace(data, index=replace(data.index, shards=(shard,)))
    with pytest.raises(DataError, match="no file with a path inside of it"):
        forged.fetch()
    assert not list(tmp_path.rglob("escaped"))


def test_a_disk_without_room_is_said_before_anything_is_fetched(data, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: usage(2**30))
    with pytest.raises(DataError, match=r"must have 1\.07 GB free .* but has 1\.07 GB.*--cache-dir"):
        data.fetch()
    assert "--cache-dir" in data.problem()
    assert not data.root.exists()


def test_a_limit_of_the_cache_holds_for_the_packed_set_too(data):
    with pytest.raises(InputError, match="--max-bytes must leave room for the packed set"):
        data.fetch(max_bytes=data.index.file_bytes - 1)
    assert data.fetch(max_bytes=data.index.file_bytes).is_dir()


def test_another_set_at_the_same_place_is_seen(folder, packed, data):
    for file in packed.iterdir():
        file.unlink()
    pack(folder, str(packed), shard_bytes=10_000)
    assert "is another packed set here" in data.problem()
    (packed / INDEX_NAME).unlink()
    assert "must be a packed set" in data.problem()


def test_a_folder_that_cannot_be_written_to_is_said(packed, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match="must be fetched to"):
        PackedData.open(str(packed), tmp_path / "cache").fetch()


FETCH = """
import os, sys, time
from pathlib import Path
from birdclef_core.data.packed.fetching import PackedData

place, cache_dir, slow_s = sys.argv[1:]
data = PackedData.open(place, Path(cache_dir))
unpack = PackedData._unpack

def slowly(self, shard):
    files = unpack(self, shard)
    os.write(1, (shard.name + chr(10)).encode())  # at once: threads do it at the same time
    time.sleep(float(slow_s))
    return files

PackedData._unpack = slowly
print(data.fetch(say=lambda text: print("said:", text, flush=True)), flush=True)
"""


def test_a_kill_costs_the_shards_at_work_and_two_processes_fetch_once(packed, data):
    """The first process is killed while it fetches; of two that start then, one waits for the other."""
    command = [sys.executable, "-c", FETCH, str(packed), str(data.cache_dir)]
    with subprocess.Popen([*command, "30"], stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout.readline().startswith("said: Fetching")
        assert killed.stdout.readline().endswith(".tar\n")
        os.kill(killed.pid, signal.SIGKILL)
    assert not data.is_here
    noted = data.index.shards[0]
    data._fetch_shard(noted)
    both = [subprocess.Popen([*command, "0.3"], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    fetched = [line for text in said for line in text.splitlines() if line.endswith(".tar")]
    assert sorted(fetched) == sorted(shard.name for shard in data.index.shards if shard != noted)
    assert sum("Another process fetches" in text for text in said) == 1
    assert load_dataset(data.root).fingerprint == data.index.data_fingerprint


def test_the_same_from_s3(folder, s3_uri, tmp_path, monkeypatch):
    pack(folder, s3_uri, shard_bytes=20_000)
    data = PackedData.open(s3_uri, tmp_path)
    assert load_dataset(data.fetch()).fingerprint == load_dataset(folder).fingerprint
    Storage.parse(s3_uri).delete(data.index.shards[0].name)
    elsewhere = replace(data, cache_dir=tmp_path / "other")
    with pytest.raises(DataError, match="it is not there"):
        elsewhere.fetch()
    with pytest.raises(DataError, match=r"must be a packed set, but has no pack\.json"):
        PackedData.open(s3_uri.replace("sweeps?", "nothing?"), tmp_path)


def test_a_place_without_access_is_said_with_what_it_needs(tmp_path, monkeypatch):
    def refuse(self, kind, name):
        raise OSError("When reading information for key 'set/pack.json' in bucket 'bucket': AWS Error ACCESS_DENIED")

    monkeypatch.setattr(Storage, "read_json", refuse)
    with pytest.raises(DataError, match=r"bucket/set cannot be read: .*ACCESS_DENIED.*AWS_ACCESS_KEY_ID"):
        PackedData.open("s3://bucket/set?region=us-east-1", tmp_path)
    with pytest.raises(InputError, match="must have no keys"):
        PackedData.open("s3://key:secret@bucket/set", tmp_path)
