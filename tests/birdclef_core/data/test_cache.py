import multiprocessing
import os
import pickle
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from birdclef_core.data import cache as cache_module
from birdclef_core.data.cache import build_cache, cache_bytes, open_cache
from birdclef_core.data.dataset import Dataset, load_dataset
from birdclef_core.data.decode import decode
from birdclef_core.errors import DataError, InputError


@pytest.fixture
def dataset(maker: Any) -> Dataset:
    return load_dataset(maker.make([*maker.many("a", 6), *maker.many("b", 6, s=0.4)], {"rain.wav": 0.7}))


def count_decodes(dataset: Dataset, cache_dir: Path) -> int:
    with patch.object(cache_module, "decode", wraps=decode) as counted:
        build_cache(dataset, cache_dir)
    return counted.call_count


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


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damage_is_said_and_mended(dataset: Dataset, tmp_path: Path, damage: str) -> None:
    cache = build_cache(dataset, tmp_path)
    expected = cache.read(0, 0, cache.num_samples(0))
    entry = sorted((tmp_path / "audio").rglob("*.npy"))[0]
    entry.write_bytes(entry.read_bytes()[:-20]) if damage == "cut" else entry.unlink()
    with pytest.raises(DataError, match="Run again"):
        for row in range(12):
            cache.read(row, 0, cache.num_samples(row))
        cache.read_noise(0, 0, cache.num_noise_samples(0))
    assert count_decodes(dataset, tmp_path) == 1
    assert np.array_equal(build_cache(dataset, tmp_path).read(0, 0, len(expected)), expected)


def test_a_killed_build_goes_on(dataset: Dataset, tmp_path: Path) -> None:
    done = 0

    def die_after_five(*_: int) -> None:
        nonlocal done
        done += 1
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_cache(dataset, tmp_path, progress=die_after_five)
    assert not list((tmp_path / "lists").rglob("index.npz"))
    assert count_decodes(dataset, tmp_path) <= 13 - 5
    assert not list(tmp_path.rglob("*.tmp"))


def build_and_count(dataset: Dataset, cache_dir: Path, counts: Any) -> None:
    def slow(path: Path, *, max_s: float | None = None) -> np.ndarray:
        time.sleep(0.02)
        return decode(path, max_s=max_s)

    with patch.object(cache_module, "decode", side_effect=slow) as counted:
        build_cache(dataset, cache_dir)
    counts.put(counted.call_count)


def test_two_processes_do_not_build_twice(dataset: Dataset, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    counts = context.Queue()
    workers = [context.Process(target=build_and_count, args=(dataset, tmp_path / "cache", counts)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert sorted(counts.get(timeout=60) for _ in workers) == [0, 13]
    for worker in workers:
        worker.join()


def test_undecodable_audio(maker: Any, tmp_path: Path) -> None:
    """Headers may be sound and the rest not: named, counted, without samples; refused past the share."""
    dataset = load_dataset(maker.make([*maker.many("a", 30)]))
    bad = dataset.root / dataset.recordings["path"][4]

    def refuse(path: Path, *, max_s: float | None = None) -> np.ndarray:
        if path == bad or (refuse_more and path.stem in ("a5", "a6")):
            raise DataError(f"{path} is broken")
        return decode(path, max_s=max_s)

    refuse_more = True
    with patch.object(cache_module, "decode", refuse):
        with pytest.raises(DataError, match="3 of 30"):
            build_cache(dataset, tmp_path)
        refuse_more = False
        cache = build_cache(dataset, tmp_path)
    assert cache.num_samples(4) == 0 and cache.num_samples(5) == 32_000
    assert cache.findings[0].count == 1 and "a4.wav" in cache.findings[0].examples[0]
    assert count_decodes(dataset, tmp_path) == 0


def test_limits(dataset: Dataset, tmp_path: Path) -> None:
    assert cache_bytes(dataset) == int((6 * 1.0 + 6 * 0.4 + 0.7) * 64_000)
    with pytest.raises(InputError, match="max_s_per_recording >= 60"):
        build_cache(dataset, tmp_path, max_s_per_recording=5)
    cache = build_cache(dataset, tmp_path)
    with pytest.raises(IndexError, match="32000"):
        cache.read(0, 31_999, 2)
    assert len(cache.read(0, 31_999, 1)) == 1


def test_too_little_disk(dataset: Dataset, tmp_path: Path) -> None:
    usage = type("Usage", (), {"free": 1000})
    with patch.object(cache_module.shutil, "disk_usage", return_value=usage), pytest.raises(DataError, match="GB free"):
        build_cache(dataset, tmp_path)


def test_an_open_cache_must_be_finished(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Build the cache first"):
        open_cache(tmp_path)
