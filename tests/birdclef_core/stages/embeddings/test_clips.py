"""A window is covered by clips, evenly and by as few as possible, or lies in one."""

from itertools import pairwise

import pytest

from birdclef_core.inference.procedure import DEFAULT
from birdclef_core.stages.embeddings.clips import clips_around, clips_of, side_of


@pytest.mark.parametrize("clip", [1, 3, 7, 48, 50, 99, 100])
def test_clips_cover_a_window(clip):
    starts = clips_of(100, clip)
    assert starts[0] == 0 and (starts[-1] + clip == 100) and len(starts) == -(-100 // clip)
    assert all(0 < after - before <= clip for before, after in pairwise(starts))


def test_a_window_that_is_shorter_than_a_clip_lies_in_one():
    assert clips_of(100, 101) == clips_of(100, 1000) == (0,)
    assert DEFAULT.clips(224_000) == (48_000,), "7 s in the middle of 10 s"
    assert DEFAULT.clips(96_000) == (80_000, 144_000), "3 s at the beginning and at the end of the middle 5 s"


def test_with_sound_around_a_window_its_clips_are_the_same():
    assert [side_of(4, clip) for clip in (3, 4, 9, 10)] == [0, 0, 3, 3]
    assert clips_around(4, 3, 10) == (0,) and clips_around(4, 5, 10) == (2,), "in the middle of the clip"
    assert clips_around(10, 2, 4) == (2, 5, 8) == tuple(2 + start for start in clips_of(10, 4))
