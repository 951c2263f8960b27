"""A bundle is complete or counts as absent, and a changed byte is found, on a local folder and on S3 alike."""

import os
import time
from pathlib import Path

import pytest
from damage import damages

from birdclef_core.errors import InputError, StoreError
from birdclef_core.json_files import to_json
from birdclef_core.store.storage import MANIFEST, BundleManifest, FileFacts, Storage, tidy_scratch


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def storage(request, tmp_path):
    if request.param == "local":
        return Storage.parse(str(tmp_path / "store"))
    return Storage.parse(request.getfixturevalue("s3_uri"))


def write(storage: Storage, name: str, text: str) -> None:
    with storage.write_bundle(name) as folder:
        (folder / "a.txt").write_text(text)


def test_a_bundle_comes_back_as_written(storage, tmp_path):
    write(storage, "x/y", "song")
    assert (storage.read_bundle("x/y", tmp_path / "scratch") / "a.txt").read_text() == "song"


def test_a_bundle_whose_writer_failed_is_not_there(storage, tmp_path):
    with pytest.raises(RuntimeError), storage.write_bundle("b") as folder:
        (folder / "a.txt").write_text("half")
        raise RuntimeError
    with pytest.raises(StoreError, match=f"no {MANIFEST}"):
        storage.read_bundle("b", tmp_path / "scratch")


@pytest.mark.parametrize(
    "place",
    [
        "s3://AKIA:secret@bucket/x",
        "s3://AKIA:sec/ret@bucket?region=x",
        "s3://bucket/x?region=eu&secret_key=sec/ret",
        "s3://bucket/x?session_token=secret",
        "s3://bucket/x?endpoint_override=http://AKIA:secret@host:1",
    ],
)
def test_a_uri_with_keys_is_refused_without_showing_them(place):
    with pytest.raises(InputError, match="AWS_SECRET_ACCESS_KEY in the environment") as error:
        Storage.parse(place)
    assert "AKIA" not in str(error.value) and "sec" not in str(error.value)


@pytest.mark.parametrize("damage", ["sonG", "son", None])
def test_changed_truncated_and_missing_files_are_noticed(storage, tmp_path, damage):
    write(storage, "b", "song")
    if damage is None:
        storage.delete("b/a.txt")
    else:
        storage.write_text("b/a.txt", damage)
    with pytest.raises(StoreError, match="sha256 differs"):
        storage.read_bundle("b", tmp_path / "scratch")


def test_a_damaged_manifest_is_noticed(storage, tmp_path):
    write(storage, "b", "song")
    storage.write_text(f"b/{MANIFEST}", "{")
    with pytest.raises(StoreError, match=r"bundle.json cannot be read: it is not JSON"):
        storage.read_bundle("b", tmp_path / "scratch")


MANIFEST_TEXT = to_json(BundleManifest(files={"a.txt": FileFacts(sha256="0" * 64, bytes=4)}))


@pytest.mark.parametrize("damage", list(damages(BundleManifest, MANIFEST_TEXT)), ids=lambda damage: damage.what)
def test_every_damage_to_a_manifest_makes_the_bundle_damaged(tmp_path, damage):
    storage = Storage.parse(str(tmp_path))
    write(storage, "b", "song")
    (tmp_path / "b" / MANIFEST).write_bytes(damage.content)
    for read in (lambda: storage.read_bundle("b", tmp_path / "scratch"), lambda: storage.verify_bundle("b")):
        with pytest.raises(StoreError, match=r"bundle.json cannot be read") as error:
            read()
        assert damage.place in str(error.value)


@pytest.mark.slow
def test_a_remote_bundle_is_brought_once_and_again_when_the_copy_is_damaged(s3_uri, tmp_path):
    storage = Storage.parse(s3_uri)
    write(storage, "b", "song")
    first = storage.read_bundle("b", tmp_path)
    brought = (first / "a.txt").stat().st_ino
    assert storage.read_bundle("b", tmp_path) == first
    assert (first / "a.txt").stat().st_ino == brought
    (first / "a.txt").write_text("sonG")
    assert (storage.read_bundle("b", tmp_path) / "a.txt").read_text() == "song"


def test_scratch_copies_that_were_used_last_stay(tmp_path):
    for age_s, name in ((0, "new"), (4000, "old"), (8000, "older")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "weights").write_bytes(bytes(1000))
        os.utime(folder, (time.time() - age_s,) * 2)
    tidy_scratch(tmp_path, max_bytes=2500)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]
    tidy_scratch(tmp_path, max_bytes=500)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new"], "the new one may be in use"


def test_a_file_is_replaced_listed_and_deleted(storage):
    assert storage.read_json(dict[str, int], "t.json") is None
    storage.write_text("t.json", '{"a": 1}')
    storage.write_json("t.json", {"a": 2})
    assert storage.read_json(dict[str, int], "t.json") == {"a": 2}
    assert storage.names() == ["t.json"]
    storage.delete("t.json")
    storage.delete("t.json")
    assert not storage.exists("t.json")


def test_unknown_schemes_are_refused():
    with pytest.raises(InputError, match="a folder or a URI"):
        Storage.parse("ftp2://x/y")


def test_local_paths_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Storage.parse("out").root == str(Path(tmp_path) / "out")


def test_the_files_of_a_local_folder_are_kept(storage, tmp_path):
    (tmp_path / "pages" / "deeper").mkdir(parents=True)
    (tmp_path / "pages" / "tree.html").write_text("tree")
    storage.keep_folder(tmp_path / "pages", "s/result")
    assert storage.at("s", "result").names() == ["tree.html"] and storage.read_bytes("s/result/tree.html") == b"tree"
