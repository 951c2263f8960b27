"""The recordings that options name: a folder, or a packed set that each machine fetches into its cache."""

from dataclasses import replace

import pytest

from birdclef_core.data.packed.writing import pack
from birdclef_core.errors import DataError, InputError
from birdclef_core.store.storage import Storage
from sweeps.execution.nodes.check import RUN_MARK, NodeCheck
from sweeps.execution.recordings import RecordingFinder, audio_cache, load_recordings
from sweeps.options import SweepOptions


@pytest.fixture(scope="module")
def packed(tone_data, tmp_path_factory):
    place = str(tmp_path_factory.mktemp("packed"))
    pack(tone_data.dataset.root, place, shard_bytes=300_000)
    return place


@pytest.fixture
def options(packed, tmp_path):
    return SweepOptions(search="sed", data=packed, cache_dir=str(tmp_path / "driver"))


@pytest.mark.parametrize("fold", [0, 2])
def test_a_packed_set_is_the_same_data(tone_data, options, fold):
    options = replace(options, fold=fold)
    local = replace(options, data=str(tone_data.dataset.root))
    said = []
    fingerprints = [
        audio_cache(each).data_fingerprint(load_recordings(each, say=said.append)) for each in (options, local, options)
    ]
    assert len(set(fingerprints)) == 1
    assert len(said) == 1 and said[0].startswith(f"Fetching 0.00 GB of {options.data} to {options.cache_dir}")


def test_another_node_fetches_the_set_itself(tone_data, options, tmp_path):
    """The node has the driver's dataset and cache, which came through Ray, and an empty disk."""
    dataset, cache = load_recordings(options), audio_cache(options)
    node = replace(cache, folder=tmp_path / "node", packed=replace(cache.packed, cache_dir=tmp_path / "node"))
    dataset = replace(dataset, root=node.packed.root)
    assert not dataset.root.exists()
    assert (node.build(dataset).cache.read(5, 100, 5000) == tone_data.cache.read(5, 100, 5000)).all()


def test_a_limit_holds_for_files_and_decoded_audio_together(tone_data, options, tmp_path):
    files = audio_cache(options).packed.index.file_bytes
    options = replace(options, max_bytes=files + 500_000)
    cache = audio_cache(options).build(load_recordings(options)).cache
    assert 0 < len(cache.direct_rows) < 18
    used = sum(path.stat().st_size for path in (tmp_path / "driver").rglob("*") if path.suffix in (".wav", ".wave"))
    assert files < used <= options.max_bytes
    assert (cache.read(5, 100, 5000) == tone_data.cache.read(5, 100, 5000)).all()
    with pytest.raises(InputError, match="--max-bytes must leave room"):
        load_recordings(replace(options, max_bytes=files - 1))


def test_a_node_is_asked_whether_it_can_fetch_the_set(options, tmp_path):
    storage = Storage.parse(str(tmp_path / "s"))
    storage.write_text(RUN_MARK, "run1")
    dataset, cache = load_recordings(options), audio_cache(options)
    elsewhere = replace(cache.packed, cache_dir=tmp_path / "node")
    check = NodeCheck(
        dataset=replace(dataset, root=elsewhere.root),
        cache_dir=tmp_path / "node",
        sweep_folder=storage,
        run="run1",
        needs_gpu=False,
        packed=elsewhere,
    )
    assert check.problem("abc") == ""
    gone = replace(elsewhere, storage=Storage.parse(str(tmp_path / "gone")), place="s3://gone/set")
    assert "s3://gone/set must be a packed set" in replace(check, packed=gone).problem("abc")
    assert replace(check, packed=replace(gone, cache_dir=cache.folder)).problem("abc") == ""


def test_recordings_of_a_stage_are_found_in_a_packed_set(tone_data, packed, made_up_record, tmp_path):
    finder = RecordingFinder([], folder=packed, cache_dir=str(tmp_path))
    assert finder.find(made_up_record).fingerprint == tone_data.dataset.fingerprint


@pytest.fixture
def made_up_record():
    from types import SimpleNamespace

    return SimpleNamespace(identity={"data": "-"}, stage_id="-")


def test_a_uri_without_a_packed_set_is_refused_with_the_line_that_packs_it(tmp_path):
    options = SweepOptions(search="sed", data=(tmp_path / "plain").as_uri(), cache_dir=str(tmp_path))
    with pytest.raises(DataError, match=r"must be a packed set.*birdclef data pack FOLDER file://"):
        audio_cache(options)
