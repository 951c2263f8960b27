"""The largest batch that fits is found without trying every size."""

import pytest

from birdclef_core.errors import TrainingError
from birdclef_core.stages.batch_fit import largest_batch


@pytest.mark.parametrize("capacity", [1, 2, 3, 7, 24, 96, 100, 1000])
@pytest.mark.parametrize("limit", [1, 4, 96, 512])
def test_it_fits_and_an_eighth_more_does_not(capacity, limit):
    tried = []

    def fits(clips: int) -> bool:
        tried.append(clips)
        return clips <= capacity

    found = largest_batch(fits, limit)
    assert found <= min(capacity, limit)
    assert found + max(1, found // 8) >= min(capacity, limit)
    assert max(tried) <= max(limit, 1), "nothing larger than asked for is tried"
    assert len(tried) <= 14


def test_a_device_without_room_for_one_clip_is_refused():
    with pytest.raises(TrainingError, match="single clip must fit"):
        largest_batch(lambda clips: False, 8)
