"""Rows are the scores that reach a threshold, or the highest of each window, with exact times and the fixed columns."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_up_detector import SPECIES, loudness_detector, made_up_calibration

from birdclef_core.errors import InputError
from birdclef_core.inference.results.columns import COLUMNS
from birdclef_core.inference.results.file_logits import FileLogits
from birdclef_core.inference.results.postprocess import PostProcessing
from birdclef_core.inference.results.selection import Selection, no_rows

HIGH, LOW = 2.0, -2.0
FOUND_WC = np.array([[HIGH, LOW, LOW], [HIGH, HIGH, LOW], [LOW, HIGH, LOW], [HIGH, LOW, LOW], [LOW, LOW, LOW]])
SCORE = 0.880797


def logits(logits_WC, step=160_000) -> FileLogits:
    start_W = np.arange(len(logits_WC)) * step
    logits_WC = np.asarray(logits_WC, dtype=np.float32)
    return FileLogits(start_W, start_W + 160_000, logits_WC, np.zeros((len(logits_WC), 0), np.float32))


def rows(selection: Selection, file_logits=None) -> pd.DataFrame:
    selector = selection.for_detector(loudness_detector())
    return pd.concat([no_rows(), *selector.rows("a.wav", file_logits or logits(FOUND_WC))], ignore_index=True)


def found(table: pd.DataFrame) -> list[tuple]:
    return list(table[["start_s", "end_s", "species"]].itertuples(index=False, name=None))


def test_scores_from_the_threshold_on_become_rows_in_the_order_of_time_and_species():
    table = rows(Selection())
    assert found(table) == [
        (0.0, 5.0, "alpha"),
        (5.0, 10.0, "alpha"),
        (5.0, 10.0, "beta"),
        (10.0, 15.0, "beta"),
        (15.0, 20.0, "alpha"),
    ]
    first = table.iloc[0]
    assert (first["file"], first["name"], first["score"], first["threshold"]) == ("a.wav", "Alpha bird", SCORE, 0.5)
    assert first["model_id"] == "1" * 16 and np.isnan(first["calibrated"])
    assert {name: str(kind) for name, kind in table.dtypes.items()} == COLUMNS
    assert len(rows(Selection(threshold=0.0))) == FOUND_WC.size
    assert len(rows(Selection(threshold=0.89))) == 0


def test_a_threshold_is_reached_by_an_equal_score():
    assert len(rows(Selection(threshold=0.5), logits([[0.0, -1e-6, 1e-6]]))) == 2


def test_each_species_has_its_own_threshold():
    table = rows(Selection(thresholds={"alpha": 0.9, "beta": 0.8, "gamma": 0.1}))
    assert set(table["species"]) == {"beta", "gamma"}
    assert dict(zip(table["species"], table["threshold"], strict=True)) == {"beta": 0.8, "gamma": 0.1}


def test_a_species_without_a_threshold_is_named():
    with pytest.raises(InputError, match=r"2 have none \(beta, gamma\)"):
        rows(Selection(thresholds={"alpha": 0.5, "other": 0.5}))
    assert set(rows(Selection(thresholds={"alpha": 0.5}, species=("alpha",)))["species"]) == {"alpha"}


def test_the_highest_scores_of_each_window_become_rows_whatever_they_are():
    table = rows(Selection(top=2), logits([[1.0, -9.0, 0.5], [-5.0, -5.0, -5.0]]))
    assert found(table) == [(0.0, 5.0, "alpha"), (0.0, 5.0, "gamma"), (5.0, 10.0, "alpha"), (5.0, 10.0, "beta")]
    assert table["threshold"].isna().all()
    assert len(rows(Selection(top=99))) == FOUND_WC.size


def test_only_the_species_that_are_asked_for_become_rows():
    assert set(rows(Selection(top=1, species=("gamma", "beta")))["species"]) == {"beta"}
    selector = Selection(species=("beta", "unicorn")).for_detector(loudness_detector())
    assert selector.species == ("beta",) and selector.unknown == ("unicorn",)
    with pytest.raises(InputError, match=r"none is \(unicorn\). It knows 3, such as alpha, beta, gamma"):
        Selection(species=("unicorn",)).for_detector(loudness_detector())


def test_windows_that_touch_become_one_row_with_the_highest_score():
    higher = FOUND_WC.copy()
    higher[1, 0] = 3.0
    table = rows(Selection(merge=True), logits(higher))
    assert found(table) == [(0.0, 10.0, "alpha"), (5.0, 15.0, "beta"), (15.0, 20.0, "alpha")]
    assert table["score"].tolist() == [0.952574, SCORE, SCORE]


def test_windows_that_overlap_are_merged_and_those_with_a_gap_are_not():
    assert found(rows(Selection(merge=True), logits(FOUND_WC[:2], step=32_000))) == [(0.0, 6.0, "alpha"), (1.0, 6.0, "beta")]
    assert len(rows(Selection(merge=True), logits(FOUND_WC[:2], step=192_000))) == len(rows(Selection(), logits(FOUND_WC[:2])))


def test_a_merged_row_reaches_to_the_last_window():
    assert found(rows(Selection(merge=True), logits([[HIGH, LOW, LOW]] * 4))) == [(0.0, 20.0, "alpha")]


def test_nothing_found_is_a_table_with_all_columns():
    for selection in (Selection(threshold=1.0), Selection(threshold=1.0, merge=True)):
        table = rows(selection)
        assert list(table) == list(COLUMNS) and not len(table)


def test_post_processing_comes_before_the_selection():
    assert len(rows(Selection(postprocessing=PostProcessing(peak=1.0), species=("alpha",)))) == len(FOUND_WC)


def test_many_windows_are_selected_in_slices_without_a_seam():
    generator = np.random.default_rng(0)
    many = logits(generator.normal(size=(1_300, 3)))
    assert len(rows(Selection(), many)) == int((many.logits_WC >= 0).sum())
    assert rows(Selection(), many)["start_s"].is_monotonic_increasing


def test_small_scores_do_not_become_0_and_large_ones_keep_six_digits():
    table = rows(Selection(threshold=0.0), logits([[-30.0, 0.1234567, 40.0]]))
    assert table["score"].tolist() == [pytest.approx(9.35762e-14, rel=1e-12), 0.530825, 1.0]


@pytest.mark.parametrize(
    "changes", [{"threshold": 1.5}, {"thresholds": {"alpha": -1.0}}, {"top": 0}, {"threshold": float("nan")}]
)
def test_thresholds_out_of_range_are_refused(changes):
    with pytest.raises(InputError):
        Selection(**changes)


def test_the_detector_of_these_tests_knows_three_species():
    assert loudness_detector().species == SPECIES


def calibrated_rows(selection: Selection, **values) -> pd.DataFrame:
    detector = loudness_detector()
    selector = selection.for_detector(replace(detector, calibration=made_up_calibration(detector, **values)))
    return pd.concat([no_rows(), *selector.rows("a.wav", logits(FOUND_WC))], ignore_index=True)


def test_a_calibration_fills_its_column_and_changes_no_score():
    """Logits 2 become .5 x 2 - 1 = 0 for alpha and 1 for beta."""
    table = calibrated_rows(Selection())
    assert found(table) == found(rows(Selection())) and set(table["score"]) == {SCORE}
    assert dict(zip(table["species"], table["calibrated"], strict=True)) == {"alpha": 0.5, "beta": 0.731059}
    merged = calibrated_rows(Selection(merge=True, species=("beta",)))
    assert merged["calibrated"].tolist() == [0.731059]


def test_post_processing_is_that_of_the_calibration_unless_it_is_given():
    """Of alpha's logits 2, 2, -2, 2, -2 the third becomes 0 by half of the peak."""
    half = PostProcessing(peak=0.5)
    own = calibrated_rows(Selection(threshold=0.0, species=("alpha",)), postprocessing=half)
    assert own["score"].round(4).tolist() == [0.8808, 0.8808, 0.5, 0.8808, 0.5]
    assert own["calibrated"].round(4).tolist() == [0.5, 0.5, 0.2689, 0.5, 0.2689]
    given = calibrated_rows(Selection(threshold=0.0, species=("alpha",), postprocessing=PostProcessing()), postprocessing=half)
    assert given["score"].round(4).tolist() == [0.8808, 0.8808, 0.1192, 0.8808, 0.1192]
    assert given["calibrated"].tolist() == own["calibrated"].tolist(), "it was fitted on logits that were changed so"
