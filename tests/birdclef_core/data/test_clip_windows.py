"""Clips of windows whose targets are known: where they lie, what they are a target of, how often each is drawn."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from birdclef_core.data.clip_windows import ClipWindows, labelled_windows
from birdclef_core.data.soundscapes import Soundscapes
from birdclef_core.data.windows import window_grid
from birdclef_core.errors import DataError
from birdclef_core.taxonomy import LabelSpace


class Counting:
    """A cache of recordings whose samples count up from 0."""

    def __init__(self, *lengths: int) -> None:
        self.lengths = lengths

    def num_samples(self, row: int) -> int:
        return self.lengths[row]

    def read(self, row: int, start: int, count: int) -> np.ndarray:
        assert start >= 0 and start + count <= self.lengths[row], "a cache reads nothing beyond the end"
        return np.arange(start, start + count, dtype=np.int16)


WINDOWS = ClipWindows(
    share=0.5,
    cache=Counting(1000, 450),
    names_R=np.array(["a", "b"], dtype=object),
    row_W=np.repeat([0, 1], [10, 4]),
    start_W=np.concatenate([np.arange(10), np.arange(4)]) * 100,
    window_samples=100,
    target_WC=np.eye(14, dtype=np.float16),
    weight_W=np.ones(14, np.float32),
    sampling_weight_W=np.arange(14.0),
)


def heard(window: int, place: float, clip_samples: int) -> tuple[int, int, list[int]]:
    clip_T, target_C = WINDOWS.read(window, place, clip_samples)
    assert len(clip_T) == clip_samples and target_C.dtype == np.float32
    return int(clip_T[0]), int(clip_T[-1]), np.flatnonzero(target_C).tolist()


def test_a_clip_as_long_as_the_window_is_the_window():
    assert heard(3, 0.9, 100) == (300, 399, [3])
    assert heard(11, 0.0, 100) == (100, 199, [11]), "windows of another file do not count"


def test_a_shorter_clip_lies_anywhere_in_the_window():
    assert heard(3, 0.0, 40) == (300, 339, [3])
    assert heard(3, 0.999, 40) == (360, 399, [3])


def test_a_longer_clip_has_the_targets_of_all_windows_that_it_touches():
    assert heard(3, 0.5, 250) == (300, 549, [3, 4, 5])
    assert heard(9, 0.5, 250) == (750, 999, [7, 8, 9]), "it ends with the file"
    clip_T, target_C = WINDOWS.read(10, 0.0, 600)
    assert clip_T[449] == 449 and clip_T[450:].tolist() == list(range(150)), "a file that is too short is repeated"
    assert np.flatnonzero(target_C).tolist() == [10, 11, 12, 13]


def test_windows_are_drawn_in_proportion_to_their_weights():
    numbers = np.random.default_rng(0).random(20_000)
    counts = np.bincount(WINDOWS.drawn(numbers), minlength=14)
    assert counts[0] == 0 and WINDOWS.drawn(np.zeros(1)).tolist() == [1], "a weight of 0"
    assert counts / len(numbers) == pytest.approx(np.arange(14) / np.arange(14).sum(), abs=0.01)
    with pytest.raises(DataError, match="sampling weight above 0"):
        replace(WINDOWS, sampling_weight_W=np.zeros(14))


def test_windows_lie_side_by_side_and_a_short_recording_has_one():
    row_W, start_W = window_grid(np.array([250, 0, 40, 200]), np.array([7, 8, 9, 11]), 100)
    assert row_W.tolist() == [7, 7, 9, 11, 11] and start_W.tolist() == [0, 100, 0, 0, 100]
    assert all(len(part) == 0 for part in window_grid(np.array([0]), np.array([1]), 100))


def test_labelled_windows_without_their_sound_do_not_train():
    """File 0 is whole, file 1 breaks off after 12 s and file 2 could not be decoded: other sound must not get the labels of theirs."""
    files = pd.DataFrame({"path": ["a.ogg", "b.ogg", "c.ogg"], "duration_s": 20.0})
    rows = [(file, end_s, ("low",) if end_s < 15 else ("top",)) for file in (2, 1, 0) for end_s in (20, 15, 10, 5)]
    windows = pd.DataFrame(rows, columns=["file", "end_s", "labels"]).assign(row_id="x")
    soundscapes, second = Soundscapes(Path("data"), files, windows, ()), 32_000
    space = LabelSpace.of("target", ["low", "top"])
    made = labelled_windows(soundscapes, Counting(20 * second, 12 * second, 0), space, 0.5)
    assert made.row_W.tolist() == [0, 0, 0, 0, 1, 1] and (made.start_W / second).tolist() == [0, 5, 10, 15, 0, 5]
    assert made.target_WC.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1], [1, 0], [1, 0]]
    more = labelled_windows(soundscapes, Counting(0, 12.5 * second, 0), space, 0.5)
    assert (more.start_W / second).tolist() == [0, 5, 10], "half a window is heard"
    with pytest.raises(DataError, match="No labelled soundscape of data that is for training could be decoded"):
        labelled_windows(soundscapes, Counting(0, 0, 0), space, 0.5)
