"""The recordings that options name: a folder, or a packed set that each machine fetches into its cache."""

from dataclasses import replace

import pytest
from made_up_records import sweep_record
from made_up_store import save_trial

from birdclef_core.data.packed.writing import pack
from birdclef_core.errors import DataError, InputError
from birdclef_core.stages.embeddings.recorded import embeddings_data
from birdclef_core.store.storage import Storage
from sweeps.execution.nodes.check import RUN_MARK, NodeCheck
from sweeps.execution.recordings import RecordingFinder, audio_cache, load_recordings, split_into_folds
from sweeps.options import SweepOptions
from sweeps.schedule.records import SweepRecords


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


def test_recordings_of_a_stage_are_found_with_the_split_of_its_fold(tone_data, made_up_record, tmp_path):
    """A sweep with `--folds` has stages of several splits; its record names the first one."""
    other = tone_data.dataset.of_fold(1)
    options = SweepOptions(search="sed", data=str(tone_data.dataset.root), folds=3, cache_dir=str(tmp_path))
    storage = Storage.parse(str(tmp_path / "storage"))
    records = SweepRecords(storage.at("s"))
    part = replace(sweep_record().parts[0], options=options)
    fingerprint = tone_data.dataset.fingerprint
    records.save_sweep(sweep_record(parts=(part,), options=options, data_fingerprint=fingerprint))
    save_trial(storage, "t0000", ("a" * 64, "b" * 64), stages=["train_ce@fold0", "train_ce@fold1"], score=0.5)
    made_up_record.identity["data"], made_up_record.stage_id = other.fingerprint, "b" * 64
    found = RecordingFinder([records], folder=None, cache_dir=str(tmp_path)).find(made_up_record)
    assert found.fingerprint == other.fingerprint
    assert found.dataset.recordings["is_validation"].equals(other.recordings["is_validation"])
    made_up_record.identity["data"] = embeddings_data(other, other.fingerprint)
    assert RecordingFinder([records], folder=None, cache_dir=str(tmp_path)).find(made_up_record).fingerprint == other.fingerprint


def test_more_folds_than_recordings_fill_are_refused(tone_data):
    options = SweepOptions(search="sed", folds=5)
    few = replace(tone_data.dataset, recordings=tone_data.dataset.recordings.assign(fold=0))
    with pytest.raises(InputError, match=r"--folds 5 needs recordings in so many folds\. Fold 1 of"):
        split_into_folds(few, options)
