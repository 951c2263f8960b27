"""Post-processing changes a file's logits by those of the same file only, and is off by default."""

import numpy as np
import pytest

from birdclef_core.errors import InputError
from birdclef_core.inference.results.postprocess import NO_POSTPROCESSING, PostProcessing

LOGITS_WC = np.array([[0.0, 4.0], [3.0, 0.0], [-3.0, -4.0]], dtype=np.float32)


def test_it_is_off_by_default():
    assert np.array_equal(NO_POSTPROCESSING.apply(LOGITS_WC), LOGITS_WC)


def test_neighbours_count_by_their_weight_and_an_edge_is_its_own():
    smooth = PostProcessing(smooth=0.25).apply(LOGITS_WC)
    np.testing.assert_allclose(smooth, [[0.75, 3.0], [0.75, 0.0], [-1.5, -3.0]])
    assert smooth.dtype == np.float32


def test_the_peak_of_the_file_counts_by_its_weight():
    np.testing.assert_allclose(PostProcessing(peak=0.5).apply(LOGITS_WC), [[1.5, 4.0], [3.0, 2.0], [0.0, 0.0]])


def test_the_peak_is_that_of_smoothed_logits():
    np.testing.assert_allclose(PostProcessing(smooth=0.25, peak=1.0).apply(LOGITS_WC), [[0.75, 3.0]] * 3)


@pytest.mark.parametrize("count", [0, 1])
def test_files_without_neighbours_stay_as_they_are(count):
    logits_WC = LOGITS_WC[:count]
    np.testing.assert_allclose(PostProcessing(smooth=0.3, peak=0.5).apply(logits_WC), logits_WC)


@pytest.mark.parametrize("changes", [{"smooth": 0.4}, {"smooth": -0.1}, {"peak": 1.1}])
def test_weights_out_of_range_are_refused(changes):
    with pytest.raises(InputError):
        PostProcessing(**changes)
