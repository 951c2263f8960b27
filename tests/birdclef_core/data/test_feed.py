import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from birdclef_core.augment_config import NoiseGroup
from birdclef_core.config import StageConfig
from birdclef_core.data.cache import WaveCache, build_cache
from birdclef_core.data.clip_windows import ClipWindows
from birdclef_core.data.dataset import Dataset, load_dataset
from birdclef_core.data.feed import TrainBatch, TrainFeed
from birdclef_core.data.windows import EvaluationWindows, PredictionWindows, window_grid
from birdclef_core.errors import DataError
from birdclef_core.source_config import SourceShares


def stage(**changes: Any) -> StageConfig:
    values: dict[str, Any] = {
        "name": "train_ce",
        "label_space": "target",
        "loss": "ce",
        "epochs": 1,
        "learning_rate": 1e-3,
        "clip_s": 0.5,
        "batch_size": 4,
        "seed": 2020101911 * 10,
    }
    return StageConfig(**{**values, **changes})


@pytest.fixture
def dataset(maker: Any) -> Dataset:
    rows = [*maker.many("a", 10, s=0.2), *maker.many("b", 10, s=2.0, secondary=("a",)), *maker.many("c", 5, s=1.3, rating=2.0)]
    return load_dataset(maker.make(rows, {"rain/r.wav": 0.3, "fire.wav": 3.0}))


@pytest.fixture
def cache(dataset: Dataset, tmp_path: Path) -> WaveCache:
    return build_cache(dataset, tmp_path / "cache")


def equal(first: TrainBatch, second: TrainBatch) -> bool:
    return all(torch.equal(value, vars(second)[name]) for name, value in vars(first).items())


def test_of_several_places_the_loudest_is_taken(dataset: Dataset, cache: WaveCache) -> None:
    def energy(batch: TrainBatch) -> torch.Tensor:
        return batch.wave_BT.double().diff(dim=1).square().sum(dim=1)

    def batches(number: int, threads: int = 4) -> list[TrainBatch]:
        chosen = stage(clip_candidates=number, noise=())
        with TrainFeed(dataset, cache, dataset.target_species, chosen, threads=threads) as feed:
            return list(feed.epoch(0))

    one, four = batches(1), batches(4)
    assert all(torch.equal(a.rows_B, b.rows_B) for a, b in zip(one, four, strict=True))
    before, after = (torch.cat([energy(batch) for batch in made]) for made in (one, four))
    assert (after >= before).all() and (after > before).any()
    assert all(equal(a, b) for a, b in zip(four, batches(4, threads=1), strict=True))


def test_class_balance_says_how_often_recordings_are_drawn(dataset: Dataset, cache: WaveCache) -> None:
    def share_of_c(class_balance: str) -> float:
        with TrainFeed(dataset, cache, dataset.target_species, stage(class_balance=class_balance, batch_size=2000)) as feed:
            rows = feed.drawn(0, 0).position_B
            return float((dataset.recordings["primary_label"].to_numpy()[feed._table.rows_R[rows]] == "c").mean())

    inverse, root, none = map(share_of_c, ("inverse", "inverse_sqrt", "none"))
    assert inverse > root + 0.02 > none + 0.04


def test_sources_are_drawn_by_their_shares_and_epochs_stay_as_long(dataset: Dataset, cache: WaveCache) -> None:
    origin = np.array(["x", "y", "y", "y", "z"])[np.arange(len(dataset.recordings)) % 5]
    data = replace(dataset, recordings=dataset.recordings.assign(source=origin))

    def drawn(sources: SourceShares) -> tuple[dict[str, float], int]:
        with TrainFeed(data, cache, data.target_species, stage(sources=sources, batch_size=20)) as feed:
            rows = np.concatenate([feed._table.rows_R[feed.drawn(epoch, 0).position_B] for epoch in range(200)])
            return {name: float((origin[rows] == name).mean()) for name in "xyz"}, feed.num_batches

    shares, num_batches = drawn((("x", 0.7), ("y", 0.3)))
    assert shares == pytest.approx({"x": 0.7, "y": 0.3, "z": 0}, abs=0.03) and shares["z"] == 0
    assert num_batches == drawn(())[1]


def test_shapes_and_types(dataset: Dataset, cache: WaveCache) -> None:
    with TrainFeed(dataset, cache, dataset.target_species, stage(noise=(NoiseGroup(prob=1.0),))) as feed:
        assert feed.num_batches == feed.num_recordings // 4
        batches = list(feed.epoch(0))
    assert len(batches) == feed.num_batches
    batch = batches[0]
    assert batch.wave_BT.shape == (4, 16_000) and batch.wave_BT.dtype == torch.int16
    assert batch.target_BC.shape == (4, 3) and batch.target_BC.dtype == batch.weight_B.dtype == torch.float32
    assert batch.rows_B.dtype == batch.noise_clip_M.dtype == torch.int64
    assert batch.noise_wave_MT.shape == (4, 16_000) and batch.noise_wave_MT.dtype == torch.int16
    assert batch.noise_snr_db_M.dtype == torch.float32


def test_clips_come_from_their_rows_with_their_labels(dataset: Dataset, cache: WaveCache) -> None:
    with TrainFeed(dataset, cache, dataset.target_species, stage(clips_per_epoch=80)) as feed:
        batches = list(feed.epoch(1))
    rows = torch.cat([batch.rows_B for batch in batches]).tolist()
    waves = torch.cat([batch.wave_BT for batch in batches]).numpy()
    targets = torch.cat([batch.target_BC for batch in batches]).numpy()
    weights = torch.cat([batch.weight_B for batch in batches]).numpy()
    assert not dataset.recordings["is_validation"].to_numpy()[rows].any()
    expected = {"a": [1, 0, 0], "b": [0.9, 1, 0], "c": [0, 0, 1]}
    for row, wave_T, target_C, weight in zip(rows, waves, targets, weights, strict=True):
        species = dataset.recordings["primary_label"][row]
        np.testing.assert_allclose(target_C, expected[species])
        assert weight == pytest.approx(0.5 if species == "c" else 1.0)
        whole_T = cache.read(row, 0, cache.num_samples(row))
        if species == "a":
            assert set(wave_T.tolist()) == set(whole_T.tolist())
        if species == "c":
            starts = np.flatnonzero(whole_T[: len(whole_T) - 15_999] == wave_T[0])
            assert any(np.array_equal(whole_T[start : start + 16_000], wave_T) for start in starts)


def test_classes_are_balanced(dataset: Dataset, cache: WaveCache) -> None:
    with TrainFeed(dataset, cache, dataset.target_species, stage(clips_per_epoch=1200)) as feed:
        rows = np.concatenate([dataset_rows(feed, index) for index in range(feed.num_batches)])
    shares = dataset.recordings["primary_label"].iloc[rows].value_counts(normalize=True)
    trained = dataset.recordings[~dataset.recordings["is_validation"]]["primary_label"].value_counts()
    expected = {"a": trained["a"] / (trained["a"] + trained["b"] / 2), "b": 1.0, "c": 1.0}
    for species, weight in expected.items():
        assert shares[species] == pytest.approx(weight / sum(expected.values()), abs=0.05)


def dataset_rows(feed: TrainFeed, index: int) -> np.ndarray:
    return feed._table.rows_R[feed.drawn(0, index).position_B]


def test_an_epoch_is_the_same_from_the_middle_and_again(dataset: Dataset, cache: WaveCache) -> None:
    config = stage(clips_per_epoch=40, noise=(NoiseGroup(prob=0.5),))
    with TrainFeed(dataset, cache, dataset.target_species, config) as feed:
        whole = list(feed.epoch(2))
    with TrainFeed(dataset, cache, dataset.target_species, config) as feed:
        next(feed.epoch(0))
        rest = list(feed.epoch(2, first_batch=6))
        other = list(feed.epoch(3, first_batch=6))
    assert len(rest) == 4 and all(equal(first, second) for first, second in zip(whole[6:], rest, strict=True))
    assert not any(equal(first, second) for first, second in zip(rest, other, strict=True))


def test_at_least_one_whole_batch(dataset: Dataset, cache: WaveCache) -> None:
    with TrainFeed(dataset, cache, dataset.target_species, stage(batch_size=100)) as feed:
        assert [len(batch.wave_BT) for batch in feed.epoch(0)] == [100]


def test_no_noise_files(maker: Any, tmp_path: Path) -> None:
    dataset = load_dataset(maker.make(maker.many("a", 6)))
    with TrainFeed(dataset, build_cache(dataset, tmp_path), dataset.target_species, stage()) as feed:
        batch = next(feed.epoch(0))
    assert batch.noise_wave_MT.shape == (0, 16_000) and len(batch.noise_clip_M) == len(batch.noise_snr_db_M) == 0


def test_trouble_with_the_cache_reaches_the_consumer(dataset: Dataset, cache: WaveCache, tmp_path: Path) -> None:
    """Entries that are gone are decoded anew; without their sources that fails."""
    for entry in (tmp_path / "cache" / "audio").rglob("*.wave"):
        entry.unlink()
    with TrainFeed(dataset, cache, dataset.target_species, stage()) as feed:
        next(feed.epoch(0))
        assert cache.mended
        shutil.rmtree(dataset.root)
        with pytest.raises(DataError, match="must be there"):
            list(feed.epoch(1))


def test_floats_are_the_same_samples(dataset: Dataset, cache: WaveCache) -> None:
    config = stage(noise=(NoiseGroup(prob=1.0),))
    with (
        TrainFeed(dataset, cache, dataset.target_species, config) as feed,
        TrainFeed(dataset, cache, dataset.target_species, config, floats=True) as float_feed,
    ):
        whole, floats = next(feed.epoch(0)), next(float_feed.epoch(0))
    assert floats.wave_BT.dtype == floats.noise_wave_MT.dtype == torch.float32
    assert torch.equal(floats.wave_BT, whole.wave_BT.float()) and torch.equal(floats.noise_wave_MT, whole.noise_wave_MT.float())


def test_batches_do_not_depend_on_the_threads(dataset: Dataset, cache: WaveCache) -> None:
    config = stage(clips_per_epoch=80, noise=(NoiseGroup(prob=0.5),))
    epochs = []
    for threads in (1, 5):
        with TrainFeed(dataset, cache, dataset.target_species, config, threads=threads) as feed:
            epochs.append(list(feed.epoch(0)))
    assert all(equal(first, second) for first, second in zip(*epochs, strict=True))


def test_threads_start_once_a_stage(dataset: Dataset, cache: WaveCache) -> None:
    windows = EvaluationWindows(dataset, cache, dataset.target_species, 0.5, batch_size=3)
    names = []
    with TrainFeed(dataset, cache, dataset.target_species, stage(clips_per_epoch=40)) as feed:
        for epoch in range(3):
            assert len(list(feed.epoch(epoch))) == 10 and list(windows)
            names.append({thread.ident for thread in threading.enumerate() if thread.name.startswith("feed")})
        assert names[0] == names[1] == names[2]
        assert feed.stats.batches == 30 and feed.stats.waited_s == feed.waited_s > 0


def test_recordings_of_a_group_of_the_split_are_drawn_together(dataset: Dataset, cache: WaveCache) -> None:
    dataset.recordings["group"] = [name or f"unknown {row}" for row, name in enumerate(["ann", "", "", "bob", "ann"] * 5)]
    dataset.recordings["is_validation"] = True
    windows = EvaluationWindows(dataset, cache, dataset.target_species, 0.5, batch_size=3)
    alike = windows.group_R[:, None] == windows.group_R
    assert len(windows.group_R) == len(windows.truth_RC) == 25
    assert alike.sum(axis=1).tolist() == [10, 1, 1, 5, 10] * 5 and alike[0, 4] and alike[3, 8]


def windows_of(dataset: Dataset, cache: WaveCache, clip_s: float, max_s: float = 60.0) -> dict[int, list[np.ndarray]]:
    windows = EvaluationWindows(dataset, cache, dataset.target_species, clip_s, max_s=max_s, batch_size=3)
    found: dict[int, list[np.ndarray]] = {}
    batches = list(windows)
    assert len(batches) == len(windows) and sum(len(batch.wave_BT) for batch in batches) == windows.num_windows
    for batch in batches:
        for recording, wave_T in zip(batch.recording_B.tolist(), batch.wave_BT.numpy(), strict=True):
            found.setdefault(int(windows.rows_R[recording]), []).append(wave_T)
    assert list(found) == windows.rows_R.tolist() == np.flatnonzero(dataset.recordings["is_validation"]).tolist()
    return found


def test_windows_cover_each_validation_recording(dataset: Dataset, cache: WaveCache) -> None:
    for row, windows in windows_of(dataset, cache, 0.5).items():
        whole_T = cache.read(row, 0, cache.num_samples(row))
        joined_T = np.concatenate(windows)
        if len(whole_T) < 16_000:
            assert np.array_equal(joined_T, np.resize(whole_T, 16_000))
        else:
            assert len(windows) == -(-len(whole_T) // 16_000)
            assert np.array_equal(joined_T[: len(whole_T)], whole_T) and not joined_T[len(whole_T) :].any()


def test_only_the_first_seconds_are_scored(dataset: Dataset, cache: WaveCache) -> None:
    for row, windows in windows_of(dataset, cache, 0.5, max_s=0.75).items():
        used_T = cache.read(row, 0, min(cache.num_samples(row), 24_000))
        if len(used_T) == 24_000:
            assert len(windows) == 2
            assert np.array_equal(windows[1][:8000], used_T[16_000:]) and not windows[1][8000:].any()


def test_an_undecodable_recording_is_a_window_of_silence(dataset: Dataset, cache: WaveCache) -> None:
    row = int(np.flatnonzero(dataset.recordings["is_validation"])[0])
    cache.recording_samples[row] = 0
    windows = windows_of(dataset, cache, 0.5)[row]
    assert len(windows) == 1 and not windows[0].any()


def test_windows_take_their_share_and_leave_the_other_clips_as_they_were(dataset: Dataset, cache: WaveCache) -> None:
    rows = np.flatnonzero(dataset.recordings["primary_label"] == "b")[:3]
    windows = ClipWindows(
        share=0.5,
        cache=cache,
        names_R=dataset.recordings["recording_id"].to_numpy(dtype=object),
        row_W=rows,
        start_W=np.array([0, 1000, 2000]),
        window_samples=16_000,
        target_WC=np.full((3, 3), 0.25, np.float32),
        weight_W=np.full(3, 7, np.float32),
        sampling_weight_W=np.ones(3),
    )
    big = stage(batch_size=64, clips_per_epoch=64)
    with TrainFeed(dataset, cache, dataset.target_species, big) as without:
        (before,) = without.epoch(0)
    with TrainFeed(dataset, cache, dataset.target_species, big, windows=[windows]) as feed:
        (batch,) = feed.epoch(0)
    is_window = batch.weight_B.numpy() == 7
    assert 20 <= is_window.sum() <= 44
    assert torch.equal(batch.wave_BT[~is_window], before.wave_BT[~is_window])
    assert torch.equal(batch.target_BC[~is_window], before.target_BC[~is_window])
    assert (batch.target_BC[is_window] == 0.25).all()
    assert set(batch.rows_B[is_window].tolist()) == {len(dataset.recordings) + int(row) for row in rows}
    assert feed.clip_names[batch.rows_B[is_window][0]] in set(dataset.recordings["recording_id"])
    first = int(np.flatnonzero(is_window)[0])
    row, start = (
        int(batch.rows_B[first]) - len(dataset.recordings),
        1000 * int(np.flatnonzero(rows == batch.rows_B[first].item() - len(dataset.recordings))[0]),
    )
    assert np.array_equal(batch.wave_BT[first].numpy(), cache.read(row, start, 16_000))


@pytest.mark.parametrize("kind", ["validation", "predicted"])
def test_sound_around_a_window_is_that_of_the_recording(dataset: Dataset, cache: WaveCache, kind: str) -> None:
    """A recording that is shorter than a window is repeated around it too; at the ends of others there is silence."""
    side, window, rows = 5_000, 16_000, np.flatnonzero(dataset.recordings["is_validation"])
    if kind == "validation":
        windows = EvaluationWindows(dataset, cache, dataset.target_species, 0.5, batch_size=3, side=side)
        row_W, start_W = windows.rows_R[windows._row_W], windows._start_W
    else:
        row_W, start_W = window_grid(np.array([cache.num_samples(int(row)) for row in rows]), rows, window)
        windows = PredictionWindows(cache, row_W, start_W, window, num_species=1, batch_size=3, side=side)
    shorter = 0
    waves = (wave_T for batch in windows for wave_T in batch.wave_BT.numpy().copy())
    for wave_T, row, start in zip(waves, row_W, start_W, strict=True):
        whole_T = cache.read(int(row), 0, cache.num_samples(int(row)))
        shorter += len(whole_T) < window
        places = np.arange(start - side, start + window + side)
        inside = (places >= 0) & (places < len(whole_T))
        known = whole_T[places.clip(0, len(whole_T) - 1)]
        expected = whole_T[places % len(whole_T)] if len(whole_T) < window else np.where(inside, known, 0)
        assert np.array_equal(wave_T, expected)
    assert 0 < shorter < len(row_W)
