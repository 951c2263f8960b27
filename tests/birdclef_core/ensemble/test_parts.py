"""Files and authors are left out as a whole, in parts and in errors."""

import numpy as np
import pytest
from made_up_ensembles import made_up_rows

from birdclef_core.ensemble.parts import jackknife_error, parts_of
from birdclef_core.ensemble.selection import figures
from birdclef_core.evaluation.jackknife import standard_errors


def test_parts_have_whole_files_and_about_as_many_rows():
    file_R = np.repeat(np.arange(10), 10)
    part_R = parts_of(file_R)
    assert sorted(np.bincount(part_R).tolist()) == [20, 20, 30, 30]
    assert all(len(np.unique(part_R[file_R == file])) == 1 for file in range(10))
    assert sorted(np.unique(parts_of(np.repeat(np.arange(3), 10)))) == [0, 1, 2]
    assert parts_of(np.zeros(5, np.int64)) is None
    assert sorted(np.bincount(parts_of(np.array(["a", "b", "b", "c"])))) == [1, 1, 2]


def test_the_error_is_that_of_the_metrics():
    rows = made_up_rows(own=(1.0,))
    figure_G = figures(rows, ((0, 1.0),), "cmap")
    score_RC = 1 / (1 + np.exp(-rows.logits_KRC[0].astype(np.float64)))
    assert jackknife_error(figure_G[:-1]) == pytest.approx(standard_errors(rows.truth_RC, score_RC, rows.group_R)["cmap"])
