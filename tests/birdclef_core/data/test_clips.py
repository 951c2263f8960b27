import numpy as np
import pytest

from birdclef_core.augment_config import NoiseGroup
from birdclef_core.data.clips import NoisePool, draw_batch, loudest, noise_pools, read_clip, read_mixture


def reader(wave_T: np.ndarray):
    def read(row: int, start: int, length: int) -> np.ndarray:
        assert start >= 0 and start + length <= len(wave_T)
        return wave_T[start : start + length]

    return read


def test_a_long_recording_is_cut_at_every_place() -> None:
    wave_T = np.arange(10, dtype=np.int16)
    starts = [int(read_clip(reader(wave_T), 0, 10, place, 4)[0]) for place in np.arange(0, 1, 0.01)]
    assert set(starts) == set(range(7)) and starts == sorted(starts)


def test_a_short_recording_is_repeated_with_real_samples() -> None:
    """The seed padded with zeros first, so nothing was ever repeated."""
    wave_T = np.array([1, 2, 3], dtype=np.int16)
    clips = {tuple(read_clip(reader(wave_T), 0, 3, place, 7).tolist()) for place in (0.0, 0.4, 0.9)}
    assert clips == {(1, 2, 3, 1, 2, 3, 1), (2, 3, 1, 2, 3, 1, 2), (3, 1, 2, 3, 1, 2, 3)}


def test_mixture_sums_clips_in_a_row() -> None:
    wave_T = np.arange(100, dtype=np.int16)
    assert read_mixture(reader(wave_T), 0, 100, 0.0, 10, 5).tolist() == (10 * np.arange(10) + 450).tolist()
    assert read_mixture(reader(wave_T), 0, 20, 0.9, 10, 5).tolist() == (2 * np.arange(10) + 10).tolist()


def solution_2023(wave_T: np.ndarray, clip_samples: int, rate_hz: int) -> list[int]:
    """Self-mixup as the 2023 solution computes it: always floor(60 s / clip) clips, what is missing of them is zeros."""
    parts = 60 * rate_hz // clip_samples
    whole_T = np.concatenate([wave_T, np.zeros(parts * clip_samples - len(wave_T), np.int64)])
    return whole_T.reshape(parts, clip_samples).sum(axis=0).tolist()


@pytest.mark.parametrize(
    ("duration_s", "clip_s"), [(19, 10), (25, 10), (59, 10), (11, 10), (31, 30), (59, 20), (60, 10), (40, 13)]
)
def test_all_of_a_background_recording_is_heard(duration_s: int, clip_s: int) -> None:
    wave_T = np.arange(1, 5 * duration_s + 1, dtype=np.int16)
    for place in (0.0, 0.7):
        mixed_T = read_mixture(reader(wave_T), 0, len(wave_T), place, 5 * clip_s, 5)
        assert mixed_T.tolist() == solution_2023(wave_T, 5 * clip_s, 5)


def test_a_mixture_of_less_than_a_clip_is_repeated() -> None:
    wave_T = np.array([1, 2, 3], dtype=np.int16)
    assert read_mixture(reader(wave_T), 0, 3, 0.4, 7, 1).tolist() == [2, 3, 1, 2, 3, 1, 2]


def test_60_s_bounds_the_mixture() -> None:
    """k = floor(60 s / clip): 300 samples at 5 Hz, in clips of 130 samples, are two."""
    wave_T = np.ones(1000, dtype=np.int16)
    assert set(read_mixture(reader(wave_T), 0, 1000, 0.3, 130, 5).tolist()) == {2}


def test_a_loud_mixture_is_turned_down_and_not_clipped() -> None:
    wave_T = np.concatenate([np.full(4, 30_000), [30_000, 15_000, 0, -30_000]]).astype(np.int16)
    mixed_T = read_mixture(reader(wave_T), 0, 8, 0.0, 4, 1000)
    np.testing.assert_allclose(mixed_T / 32_767, np.array([60, 45, 30, 0]) / 60, atol=1e-4)


def plan(seed: int, epoch: int, index: int, batch_size: int = 64, noise: tuple[NoisePool, ...] = ()):
    return draw_batch(seed, epoch, index, cumulative_weights=np.cumsum([1.0, 0.0, 3.0]), batch_size=batch_size, noise=noise)


def test_plans_depend_on_seed_epoch_and_index_alone() -> None:
    first = plan(202111210524, 3, 5)
    plan(1, 0, 0)
    assert np.array_equal(first.place_B, plan(202111210524, 3, 5).place_B)
    others = [plan(202111210525, 3, 5), plan(202111210524, 4, 5), plan(202111210524, 3, 6), plan(202111210524 % 2**32, 3, 5)]
    assert all(not np.array_equal(first.place_B, other.place_B) for other in others)


def test_more_places_leave_all_else_as_it_was() -> None:
    noise = (NoisePool(NoiseGroup(prob=0.5), np.arange(3)),)
    one, three = (
        draw_batch(7, 1, 2, cumulative_weights=np.arange(1.0, 9.0), batch_size=16, noise=noise, candidates=number)
        for number in (1, 3)
    )
    assert one.more_places_BK.shape == (16, 0) and three.more_places_BK.shape == (16, 2)
    assert np.unique(three.more_places_BK).size == 32 and three.more_places_BK.min() >= 0 and three.more_places_BK.max() < 1
    others = {name: value for name, value in vars(one).items() if name != "more_places_BK"}
    assert all(np.array_equal(value, vars(three)[name]) for name, value in others.items())


def test_the_loudest_clip_is_that_of_a_bird_and_not_of_the_wind() -> None:
    time_T = np.arange(32_000) / 32_000
    wind_T, bird_T = 20_000 * np.sin(2 * np.pi * 60 * time_T), 2_000 * np.sin(2 * np.pi * 4000 * time_T)
    clips = [wave_T.astype(np.int16) for wave_T in (np.zeros(32_000), wind_T, bird_T, bird_T[::-1])]
    assert loudest(clips) is clips[2]
    assert loudest([clips[0], clips[0].copy()]) is clips[0], "the first of equals"
    extreme_T = np.array([-(2**15), 2**15 - 1], np.int16).repeat(1)[np.arange(1_920_000) % 2]
    quieter_T = extreme_T.copy()
    quieter_T[0] += 1
    assert loudest([quieter_T, extreme_T]) is extreme_T, "energies are exact, up to the loudest minute"


def test_rows_are_drawn_by_weight_with_replacement() -> None:
    counts = np.bincount(plan(0, 0, 0, batch_size=20_000).position_B, minlength=3)
    assert counts[1] == 0 and counts[2] / counts[0] == pytest.approx(3, rel=0.05)


def test_noise_by_probability_and_ratio() -> None:
    groups = (NoiseGroup(source="rain", prob=0.25, snr_db_min=1, snr_db_max=2), NoiseGroup(prob=1.0, snr_db_min=5, snr_db_max=5))
    pools = noise_pools(groups, np.array(["", "rain", "rain"], dtype=object), np.array([True, True, False]))
    drawn = plan(0, 0, 0, batch_size=4000, noise=pools)
    rain = drawn.noise_snr_db_M < 3
    assert rain.sum() / 4000 == pytest.approx(0.25, abs=0.03)
    assert set(drawn.noise_row_M[rain]) == {1} and set(drawn.noise_row_M[~rain]) == {0, 1}
    assert drawn.noise_snr_db_M[rain].min() >= 1 and drawn.noise_snr_db_M[rain].max() <= 2
    assert sorted(drawn.noise_clip_M[~rain]) == list(range(4000))


def test_a_source_that_is_not_there_means_every_file_and_no_files_mean_no_noise() -> None:
    names, usable = np.array(["", "rain"], dtype=object), np.array([True, True])
    assert noise_pools((NoiseGroup(source="fire"),), names, usable)[0].rows.tolist() == [0, 1]
    assert noise_pools((NoiseGroup(),), names, ~usable) == ()
    assert plan(0, 0, 0).noise_clip_M.dtype == np.int64 and len(plan(0, 0, 0).noise_clip_M) == 0
