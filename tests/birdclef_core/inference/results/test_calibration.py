"""A calibration is read back as it was written, gives the probabilities of its formula, and is refused by another model."""

from dataclasses import replace

import numpy as np
import pytest
from made_up_detector import loudness_detector, made_up_calibration

from birdclef_core.errors import FileContentError, InputError
from birdclef_core.inference.procedure import SOLUTION_2023
from birdclef_core.inference.results.calibration import read_calibration, sigmoid, write_calibration
from birdclef_core.inference.results.postprocess import PostProcessing


def test_it_is_read_back_as_it_was_written(tmp_path):
    calibration = made_up_calibration(loudness_detector(), postprocessing=PostProcessing(smooth=0.1, peak=0.2))
    write_calibration(calibration, tmp_path / "calibration.json")
    assert read_calibration(tmp_path / "calibration.json") == calibration


def test_probabilities_are_those_of_slope_and_intercepts():
    calibration = made_up_calibration(loudness_detector())
    found_WC = calibration.probabilities(np.array([[1.0, 2.0, -40.0]], dtype=np.float32))
    np.testing.assert_allclose(found_WC, 1 / (1 + np.exp([[0.5, -1.0, 20.5]])), rtol=1e-12)


def test_a_sigmoid_neither_overflows_nor_loses_the_order():
    with np.errstate(all="raise"):
        score = sigmoid(np.array([-1e5, -800.0, 30.0, 31.0, 1e5]))
    assert (np.diff(score) >= 0).all() and score[2] < score[3] < 1 and score[0] >= 0 and score[-1] == 1


def test_another_model_or_procedure_is_refused_and_another_step_is_not():
    detector = loudness_detector()
    calibration = made_up_calibration(detector)
    calibration.require_of(detector.model_id, replace(detector.procedure, step_s=2.5), "c.json")
    with pytest.raises(InputError, match=r"c\.json is of 1111111111111111 and the model is 2222222222222222"):
        calibration.require_of("2" * 64, detector.procedure, "c.json")
    with pytest.raises(InputError, match="procedure"):
        calibration.require_of(detector.model_id, SOLUTION_2023, "c.json")


@pytest.mark.parametrize(
    "values",
    [{"slope": -1.0}, {"slope": float("nan")}, {"intercepts": (0.0, 0.0)}, {"intercepts": (0.0, float("inf"), 0.0)}],
)
def test_values_that_make_no_sense_are_refused(values):
    with pytest.raises(InputError):
        made_up_calibration(loudness_detector(), **values)


def test_a_file_that_is_none_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone.json must be a calibration"):
        read_calibration(tmp_path / "gone.json")
    (tmp_path / "other.json").write_text('{"version": 1}')
    with pytest.raises(FileContentError, match=r"other.json"):
        read_calibration(tmp_path / "other.json")
