"""A calibration makes probabilities better where they were wrong, says what is apparent, and warns of recordings."""

import numpy as np
import pytest
from made_up_detector import loudness_detector
from made_up_labels import drawn, heard_rows

from birdclef_core.ensemble.calibration.job import calibrate, write_calibrated
from birdclef_core.ensemble.calibration.thresholds import Target
from birdclef_core.inference.results.calibration import read_calibration
from birdclef_core.inference.results.species_files import read_thresholds

DETECTOR = loudness_detector()


def made(num_files: int = 8, source="soundscapes", **options):
    rows = heard_rows(*drawn(1600, (-2.0, -1.0, -3.0)), num_files, source)
    return calibrate(DETECTOR, rows, Target(), **options)


def test_probabilities_and_decisions_get_better_and_the_calibration_is_that_of_all_rows():
    found = made()
    for name in ("nll", "brier", "ece"):
        assert getattr(found.after, name) < 0.8 * getattr(found.before, name), name
    assert found.after.macro_f1 > found.before.macro_f1
    calibration = found.calibration
    assert calibration.slope == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(calibration.intercepts, (-2, -1, -3), atol=0.3)
    assert (calibration.fitted_on, calibration.num_rows, calibration.num_files) == ("soundscapes", 1600, 8)
    assert calibration.supports == tuple(found.table["support"]) and calibration.model_id == DETECTOR.model_id


def test_figures_of_one_file_are_apparent_and_the_page_says_so(tmp_path):
    one = made(num_files=1)
    assert not one.is_cross_fitted and made().is_cross_fitted
    write_calibrated(one, tmp_path, {})
    assert "apparent, and too good" in (tmp_path / "reliability.html").read_text()


def test_everything_is_written(tmp_path):
    found = made(tries_postprocessing=True)
    write_calibrated(found, tmp_path / "new", {"alpha": "Alpha <bird>"})
    assert read_calibration(tmp_path / "new" / "calibration.json") == found.calibration
    assert list(read_thresholds(tmp_path / "new" / "thresholds.csv")) == list(DETECTOR.species)
    page = (tmp_path / "new" / "reliability.html").read_text()
    for text in (
        "Alpha &lt;bird&gt;",
        "negative log-likelihood",
        "That is no more than chance",
        "cross-fitted: the rows are split",
    ):
        assert text in page, text
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "Fitted on recordings" not in page
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "calibration.json",
        "reliability.html",
        "thresholds.csv",
    ]


def test_a_calibration_of_recordings_warns_of_other_rates(tmp_path):
    write_calibrated(made(source="recordings"), tmp_path, {})
    page = (tmp_path / "reliability.html").read_text()
    assert "In soundscapes species are present at other rates" in page and "split in four parts by author" in " ".join(
        page.split()
    )
