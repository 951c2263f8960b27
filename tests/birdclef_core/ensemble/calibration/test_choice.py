"""Post-processing is used where it helps by more than chance, and not where it hurts or does nothing."""

import numpy as np
import pytest
from made_up_labels import heard_rows

from birdclef_core.ensemble.calibration.choice import CANDIDATES, choose_postprocessing
from birdclef_core.errors import InputError
from birdclef_core.inference.results.postprocess import NO_POSTPROCESSING


def rows(length: int, seed: int = 0, num_files: int = 8, num_rows: int = 960, noise: float = 2.0):
    """Birds that sing for `length` windows, and a detector that is right by chance often."""
    generator = np.random.default_rng(seed)
    singing_RC = np.repeat(generator.random((num_rows // length, 3)) < 0.3, length, axis=0)
    return heard_rows(singing_RC, generator.normal(2.0 * singing_RC - 1, noise), num_files)


def test_smoothing_is_chosen_where_birds_sing_for_long():
    choice = choose_postprocessing(rows(10))
    assert choice.helps and choice.chosen == choice.best and choice.chosen.smooth == 0.3
    assert choice.gain > 0.05 > 2 * choice.error


def test_nothing_is_chosen_where_windows_have_nothing_in_common():
    """In such rows something is the best by chance."""
    for seed in (0, 2, 4):
        choice = choose_postprocessing(rows(1, seed, num_rows=240, noise=4.0))
        assert not choice.helps and choice.chosen == NO_POSTPROCESSING == CANDIDATES[0] != choice.best


def test_all_that_was_tried_is_told():
    choice = choose_postprocessing(rows(10))
    assert [item.postprocessing for item in choice.tried] == list(CANDIDATES)
    assert max(choice.tried, key=lambda item: item.auroc).postprocessing == choice.best
    assert choice.tried[0].auroc == pytest.approx(choice.without)


def test_one_file_and_recordings_cannot_say():
    with pytest.raises(InputError, match="of one file"):
        choose_postprocessing(rows(10, num_files=1))
    made = rows(10)
    with pytest.raises(InputError, match="of recordings"):
        choose_postprocessing(heard_rows(made.truth_RC, made.logits(NO_POSTPROCESSING), 8, source="recordings"))
