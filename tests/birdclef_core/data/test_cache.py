import errno
import logging
import multiprocessing
import os
import pickle
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, patch

import damaged_audio
import numpy as np
import pandas as pd
import pytest

from birdclef_core.data import cache as cache_module
from birdclef_core.data import cache_estimate as estimate_module
from birdclef_core.data.cache import WaveCache, build_cache, estimate_cache, open_cache
from birdclef_core.data.cache_entries import write_entry
from birdclef_core.data.dataset import Dataset, load_dataset
from birdclef_core.data.decode import Decoding, decode, to_int16
from birdclef_core.errors import DataError, InputError

ORIGINALS = Path(__file__).parents[2] / "data" / "originals"
CASES = Path(__file__).parents[2] / "data" / "cases"


@pytest.fixture
def dataset(maker: Any) -> Dataset:
    return load_dataset(maker.make([*maker.many("a", 6), *maker.many("b", 5, s=0.4)], {"rain.wav": 0.7}))


def count_decodes(dataset: Dataset, cache_dir: Path, **options: Any) -> int:
    with patch.object(cache_module, "Decoding", wraps=Decoding) as counted:
        build_cache(dataset, cache_dir, **options)
    return counted.call_count


def everything(cache: WaveCache) -> list[np.ndarray]:
    """Every recording and noise file, as the cache gives them."""
    recordings = [cache.read(row, 0, cache.num_samples(row)) for row in range(len(cache.recording_samples))]
    return recordings + [cache.read_noise(row, 0, cache.num_noise_samples(row)) for row in range(len(cache.noise_samples))]


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return len(first) == len(second) and all(np.array_equal(one, two) for one, two in zip(first, second, strict=True))


def test_any_clip_equals_the_decoded_file_to_one_step(dataset: Dataset, tmp_path: Path) -> None:
    cache = build_cache(dataset, tmp_path / "cache")
    rng = np.random.default_rng(0)
    for row, path in enumerate(dataset.recordings["path"]):
        wave_T = decode(dataset.root / path)
        assert cache.num_samples(row) == len(wave_T)
        start, end = sorted(rng.integers(0, len(wave_T), 2))
        assert np.abs(cache.read(row, start, end - start) - wave_T[start:end] * 32_768).max() <= 1
    noise_T = decode(dataset.root / dataset.noise["path"][0])
    assert cache.num_noise_samples(0) == len(noise_T)
    assert np.abs(cache.read_noise(0, 5, 100) - noise_T[5:105] * 32_768).max() <= 1


def test_second_build_decodes_nothing_and_reopens(dataset: Dataset, tmp_path: Path) -> None:
    first = build_cache(dataset, tmp_path)
    assert count_decodes(dataset, tmp_path) == 0
    copies = [open_cache(first.directory), pickle.loads(pickle.dumps(first))]
    assert all(np.array_equal(copy.read(3, 10, 50), first.read(3, 10, 50)) for copy in copies)
    assert len(pickle.dumps(first)) < 500


def test_only_what_changed_is_decoded(dataset: Dataset, tmp_path: Path) -> None:
    build_cache(dataset, tmp_path)
    os.utime(dataset.root / dataset.recordings["path"][2], ns=(1, 1))
    assert count_decodes(dataset, tmp_path) == 1


def flip_a_bit(entry: Path) -> None:
    content = bytearray(entry.read_bytes())
    content[1000] ^= 1
    entry.write_bytes(content)


def entry_of(cache: WaveCache, row: int) -> Path:
    return Path(cache._path(row))


DAMAGES = {"bit": flip_a_bit, "cut": lambda entry: entry.write_bytes(entry.read_bytes()[:-20]), "gone": Path.unlink}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_said_and_mended_while_reading(
    dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    cache = build_cache(dataset, tmp_path)
    expected = everything(cache)
    DAMAGES[damage](entry_of(cache, 3))
    with caplog.at_level(logging.WARNING):
        assert same(everything(cache), expected)
    assert len(cache.mended) == 1 and "a3.wav is decoded again" in cache.mended[0] in caplog.text
    again = open_cache(cache.directory)
    assert same(everything(again), expected) and not again.mended
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_what_is_not_whole_is_decoded_by_the_next_build(dataset: Dataset, tmp_path: Path, damage: str) -> None:
    cache = build_cache(dataset, tmp_path)
    expected = everything(cache)
    DAMAGES[damage](entry_of(cache, 3))
    assert count_decodes(dataset, tmp_path) == 1
    assert same(everything(build_cache(dataset, tmp_path)), expected)


def test_a_damaged_index_is_made_anew_from_the_entries(dataset: Dataset, tmp_path: Path) -> None:
    cache = build_cache(dataset, tmp_path)
    flip_a_bit(cache.directory / "index.npz")
    with pytest.raises(DataError, match="Build the cache"):
        open_cache(cache.directory)
    assert count_decodes(dataset, tmp_path) == 0
    assert same(everything(open_cache(cache.directory)), everything(cache))


def test_a_damaged_entry_whose_source_is_another_one_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    cache = build_cache(dataset, tmp_path)
    flip_a_bit(entry_of(cache, 3))
    os.utime(dataset.root / dataset.recordings["path"][3], ns=(1, 1))
    with pytest.raises(DataError, match=r"a3\.wav has changed since"):
        cache.read(3, 0, 1000)


def die_after_five(dataset: Dataset, cache_dir: Path) -> None:
    """A process that is killed: nothing is tidied up."""
    decoded = Mock(side_effect=lambda path, *, max_s=None: os._exit(9) if decoded.call_count > 5 else Decoding(path))
    with patch.object(cache_module, "Decoding", decoded), patch.object(cache_module, "num_cores", lambda: 1):
        build_cache(dataset, cache_dir)


def test_a_killed_build_goes_on(dataset: Dataset, tmp_path: Path) -> None:
    worker = multiprocessing.get_context("fork").Process(target=die_after_five, args=(dataset, tmp_path))
    worker.start()
    worker.join()
    assert worker.exitcode == 9 and not list((tmp_path / "lists").rglob("index.npz"))
    orphan = tmp_path / "tmp" / "1-1.tmp"
    orphan.touch()
    os.utime(orphan, (0, 0))
    assert count_decodes(dataset, tmp_path) == 12 - 5
    assert not orphan.exists()


def build_and_count(dataset: Dataset, cache_dir: Path, counts: Any) -> None:
    def slow(path: Path, *, max_s: float | None = None) -> Decoding:
        time.sleep(0.02)
        return Decoding(path, max_s=max_s)

    with patch.object(cache_module, "Decoding", side_effect=slow) as counted:
        build_cache(dataset, cache_dir)
    counts.put(counted.call_count)


def test_two_processes_do_not_build_twice(dataset: Dataset, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    counts = context.Queue()
    workers = [context.Process(target=build_and_count, args=(dataset, tmp_path / "cache", counts)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert sorted(counts.get(timeout=60) for _ in workers) == [0, 12]
    for worker in workers:
        worker.join()


def test_undecodable_audio(maker: Any, tmp_path: Path) -> None:
    """Headers may be sound and the rest not: named, counted, without samples; refused past the share."""
    dataset = load_dataset(maker.make([*maker.many("a", 30)]))
    bad = dataset.root / dataset.recordings["path"][4]

    def refuse(path: Path, *, max_s: float | None = None) -> Decoding:
        if path == bad or (refuse_more and path.stem in ("a5", "a6")):
            raise DataError(f"{path} is broken")
        return Decoding(path, max_s=max_s)

    refuse_more = True
    with patch.object(cache_module, "Decoding", refuse):
        with pytest.raises(DataError, match="3 of 30"):
            build_cache(dataset, tmp_path)
        refuse_more = False
        cache = build_cache(dataset, tmp_path)
    assert cache.num_samples(4) == 0 and cache.num_samples(5) == 32_000
    assert len(cache.read(4, 0, 0)) == 0
    assert cache.findings[0].count == 1 and "a4.wav" in cache.findings[0].examples[0]
    assert count_decodes(dataset, tmp_path) == 0


def test_progress_and_estimate(dataset: Dataset, tmp_path: Path) -> None:
    total_s = 6 * 1.0 + 5 * 0.4 + 0.7
    estimate = estimate_cache(dataset, tmp_path / "cache")
    assert estimate.num_files == 12 and not estimate.num_direct and not (tmp_path / "cache").exists()
    assert estimate.num_bytes == pytest.approx(total_s * 64_000, rel=0.2) and estimate.decode_s > 0
    assert estimate.describe().startswith("12 files to decode, 0.0 GB and about 0.0 minutes on ")
    seen: list[tuple[float, float]] = []
    build_cache(dataset, tmp_path / "cache", progress=lambda *values: seen.append(values))
    assert len(seen) == 12 and seen == sorted(seen) and seen[-1] == pytest.approx((total_s, total_s))
    stored = sum(path.stat().st_size for path in (tmp_path / "cache" / "audio").rglob("*.wave"))
    assert stored == estimate.num_bytes
    assert estimate_cache(dataset, tmp_path / "cache").describe() == "nothing to decode, everything is cached"


def test_max_s_per_recording(maker: Any, tmp_path: Path) -> None:
    dataset = load_dataset(maker.make([*maker.many("a", 3), maker.row("a", "long", s=61.5)]))
    with pytest.raises(InputError, match="max_s_per_recording >= 60"):
        build_cache(dataset, tmp_path, max_s_per_recording=5)
    cache = build_cache(dataset, tmp_path, max_s_per_recording=60.5)
    assert cache.num_samples(3) == 60.5 * 32_000
    assert build_cache(dataset, tmp_path).num_samples(3) == 61.5 * 32_000


def test_reading_outside(dataset: Dataset, tmp_path: Path) -> None:
    cache = build_cache(dataset, tmp_path)
    with pytest.raises(IndexError, match="32000"):
        cache.read(0, 31_999, 2)
    assert len(cache.read(0, 31_999, 1)) == 1


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """A disk with room for a cache of `size` bytes, beside what is always left to others."""

    def usage(folder: Path) -> SimpleNamespace:
        used = sum(path.stat().st_size for path in folder.rglob("*.wave"))
        return SimpleNamespace(free=size - used + 2**30)

    with patch.object(estimate_module.shutil, "disk_usage", usage):
        yield


@pytest.mark.parametrize("by", ["disk", "max_bytes"])
def test_what_has_no_room_is_decoded_directly(dataset: Dataset, tmp_path: Path, by: str) -> None:
    """Noise and the rare species come first; the samples are the same; when there is room, the rest follows."""
    expected = everything(build_cache(dataset, tmp_path / "large"))
    room, limit = (300_000, None) if by == "disk" else (2**40, 300_000)
    with disk_of(room):
        cache = build_cache(dataset, tmp_path / "small", max_bytes=limit)
        assert same(everything(cache), expected)
        assert cache.direct_rows.tolist() == [1, 2, 3, 4, 5]
        assert "5 files do not fit" in estimate_cache(dataset, tmp_path / "small", max_bytes=limit).describe()
        written = (cache.directory / "index.npz").stat().st_ino
        assert count_decodes(dataset, tmp_path / "small", max_bytes=limit) == 0
        assert (cache.directory / "index.npz").stat().st_ino == written
    assert cache.findings[0].count == 5 and "decoded again for every clip" in cache.findings[0].meaning
    assert count_decodes(dataset, tmp_path / "small") == 5
    cache = build_cache(dataset, tmp_path / "small")
    assert not len(cache.direct_rows) and not cache.findings and same(everything(cache), expected)


def test_direct_clips_of_real_files_are_the_same(tmp_path: Path) -> None:
    """mp3 too, whose headers say up to .1 s more than there is."""
    root = tmp_path / "data"
    shutil.copytree(ORIGINALS, root / "train_audio", ignore=shutil.ignore_patterns("*.csv"))
    names = sorted(path.name for path in (root / "train_audio").iterdir())
    pd.DataFrame({"primary_label": "a", "filename": names, "author": names}).to_csv(root / "train.csv", index=False)
    dataset = load_dataset(root)
    cached, direct = build_cache(dataset, tmp_path / "large"), build_cache(dataset, tmp_path / "none", max_bytes=0)
    assert len(direct.direct_rows) == len(names) == 9 and same(everything(cached), everything(direct))


def test_a_disk_that_fills_up_while_building(dataset: Dataset, tmp_path: Path) -> None:
    expected = [to_int16(decode(dataset.root / path)) for path in [*dataset.recordings["path"], *dataset.noise["path"]]]
    real, calls = cache_module.write_entry, 0

    def write(*arguments: Any) -> int:
        nonlocal calls
        calls += 1
        if calls > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    with patch.object(cache_module, "write_entry", write), patch.object(cache_module, "num_cores", lambda: 1):
        cache = build_cache(dataset, tmp_path)
    assert calls == 6 and len(cache.direct_rows) == 7 and same(everything(cache), expected)


UNWRITABLE = {
    "read-only disk": errno.EROFS,
    "somebody else's folder": errno.EACCES,
    "full disk": errno.ENOSPC,
}


@contextmanager
def unwritable(number: int) -> Iterator[None]:
    """Disks on which nothing can be made, though what is there can be read."""

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    with patch.object(cache_module.FileLock, "acquire", fail), patch.multiple(cache_module, write_entry=fail, write_index=fail):
        yield


@pytest.mark.parametrize("why", UNWRITABLE)
def test_a_folder_that_cannot_be_written_to_is_done_without(
    dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture, why: str
) -> None:
    """As with a full disk: the same samples, decoded for every clip; said once; nothing written."""
    expected = everything(build_cache(dataset, tmp_path / "writable"))
    (tmp_path / "cache").mkdir()
    with unwritable(UNWRITABLE[why]), caplog.at_level(logging.WARNING):
        cache = build_cache(dataset, tmp_path / "cache")
    assert cache.directory is None and len(cache.direct_rows) == 12 and same(everything(cache), expected)
    (finding,) = cache.findings
    assert (
        f"12 audio files are not in the cache, which cannot be written to ({os.strerror(UNWRITABLE[why])})" in finding.describe()
    )
    assert not caplog.records and not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    copy = pickle.loads(pickle.dumps(cache))
    assert same(everything(copy), expected) and copy.findings == cache.findings


@pytest.mark.parametrize("is_complete", [True, False])
def test_what_a_read_only_cache_holds_is_used(dataset: Dataset, tmp_path: Path, is_complete: bool) -> None:
    cache = build_cache(dataset, tmp_path)
    expected = everything(cache)
    if not is_complete:
        entry_of(cache, 3).unlink()
    with unwritable(errno.EROFS):
        again = build_cache(dataset, tmp_path)
        assert again.direct_rows.tolist() == ([] if is_complete else [3]) and same(everything(again), expected)


def test_a_damaged_entry_of_a_read_only_cache_is_said_once(
    dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = build_cache(dataset, tmp_path)
    expected = everything(cache)
    flip_a_bit(entry_of(cache, 3))
    failure = OSError(errno.EROFS, "Read-only file system")
    with patch("birdclef_core.data.wave_cache.write_entry", side_effect=failure), caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert same(everything(cache), expected)
    assert len(cache.mended) == 1 and len(caplog.records) == 2


def test_a_disk_that_fills_up_before_the_list_is_written(dataset: Dataset, tmp_path: Path) -> None:
    expected = everything(build_cache(dataset, tmp_path / "large"))
    with patch.object(cache_module, "write_index", side_effect=OSError(errno.ENOSPC, "No space left on device")):
        cache = build_cache(dataset, tmp_path / "small")
    assert cache.directory is None and not len(cache.direct_rows) and same(everything(cache), expected)


def test_a_cache_that_is_no_folder_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="must be a folder"):
        build_cache(dataset, tmp_path / "file")


def test_damaged_audio_is_counted_in_every_list(maker: Any, tmp_path: Path) -> None:
    """In a later list too, which finds the entry there."""
    root = maker.make(maker.many("a", 30))
    right = len(damaged_audio.wav()) - 44
    (root / "train_audio/a/a4.wav").write_bytes(damaged_audio.wav()[: 44 + right // 2])
    (root / "train_audio/a/a5.wav").write_bytes(damaged_audio.with_sizes(damaged_audio.wav(), 0, 0))
    dataset = load_dataset(root)
    cache = build_cache(dataset, tmp_path)
    assert cache.num_samples(4) == 3 * 32_000 and cache.num_samples(5) == 6 * 32_000
    fewer = replace(dataset, recordings=dataset.recordings[:20])
    for found in (cache, build_cache(fewer, tmp_path), build_cache(dataset, tmp_path / "none", max_bytes=0)):
        (finding,) = (finding for finding in found.findings if finding.kind == "damaged")
        assert finding.count == 1 and "a4.wav: 3.0 s are there of 6.0 s" in finding.examples[0]


def test_an_entry_of_a_file_that_was_read_in_part_is_made_again(maker: Any, tmp_path: Path) -> None:
    """As older versions did; the file has not changed since."""
    root = maker.make(maker.many("a", 3))
    shutil.copy(CASES / "62d_mp3_no_xing" / "XC1001.mp3", root / "train_audio/a/a1.wav")
    dataset = load_dataset(root)
    first = build_cache(dataset, tmp_path)
    expected = everything(first)
    entry = entry_of(first, 1)
    write_entry(str(entry), [expected[1][:28_441]], tmp_path / "tmp")
    shutil.rmtree(tmp_path / "lists")
    assert count_decodes(dataset, tmp_path) == 1
    assert same(everything(open_cache(first.directory)), expected) and len(expected[1]) == 96_967


def test_a_file_that_changes_while_it_is_decoded_is_left_out(maker: Any, tmp_path: Path) -> None:
    dataset = load_dataset(maker.make(maker.many("a", 30)))
    path = dataset.root / dataset.recordings["path"][4]
    real = cache_module.write_entry

    def write(*arguments: Any) -> int:
        count = real(*arguments)
        os.utime(path, ns=(1, 1))
        return count

    with patch.object(cache_module, "write_entry", write):
        cache = build_cache(dataset, tmp_path)
    assert cache.num_samples(4) == 0 and "must not change while it is read" in cache.findings[0].examples[0]


def test_an_open_cache_must_be_finished(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Build the cache first"):
        open_cache(tmp_path)
