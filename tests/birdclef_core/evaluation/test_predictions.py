"""One row a recording, whatever the number and the order of its windows."""

import numpy as np
import pytest

from birdclef_core.errors import InputError
from birdclef_core.evaluation.predictions import gather_windows


def test_takes_the_maximum_over_the_windows_of_each_recording() -> None:
    score_WC = np.array([[0.1, 0.9], [0.5, 0.2], [0.3, 0.3], [0.2, 0.1]], np.float32)
    gathered = gather_windows(score_WC, np.array([1, 0, 1, 2]), 3)
    np.testing.assert_array_equal(gathered, np.array([[0.5, 0.2], [0.3, 0.9], [0.2, 0.1]], np.float32))
    assert gathered.dtype == np.float32


def test_takes_logits_as_well() -> None:
    assert gather_windows(np.array([[-3.0], [-2.0]]), np.array([0, 0]), 1) == -2.0


def test_a_recording_without_a_window_is_named() -> None:
    with pytest.raises(InputError, match="2 of 4 have none, such as row 1"):
        gather_windows(np.zeros((2, 3)), np.array([0, 2]), 4)
