"""A submission is complete, within 0 and 1, and what was not heard has the scores that are said."""

import numpy as np
import pytest

from birdclef_core.errors import BirdclefError, InputError
from birdclef_core.inference.results.file_logits import FileLogits
from birdclef_core.inference.results.postprocess import NO_POSTPROCESSING, PostProcessing
from birdclef_core.inference.submission.rows import Rows
from birdclef_core.inference.submission.table import Scores, read_submission, write_submission

SPECIES = ("alpha", "beta")


def logits(logits_WC) -> FileLogits:
    start_W = np.arange(len(logits_WC)) * 160_000
    return FileLogits(
        start_W, start_W + 160_000, np.array(logits_WC, dtype=np.float32), np.zeros((len(logits_WC), 0), np.float32)
    )


def scores(*row_ids: str, columns=("beta", "other", "alpha")) -> Scores:
    return Scores(Rows(row_ids, columns), SPECIES)


def test_rows_get_their_windows_in_the_order_of_the_sample():
    table = scores("a_10", "b_5", "a_5")
    table.add("a", logits([[0.0, 2.0], [-1.0, 1.0]]), NO_POSTPROCESSING)
    np.testing.assert_allclose(table.score_RC[0], [0.731059, np.nan, 0.268941], atol=1e-6)
    np.testing.assert_allclose(table.score_RC[2], [0.880797, np.nan, 0.5], atol=1e-6)
    assert np.isnan(table.score_RC[1]).all() and table.is_heard_R.tolist() == [True, False, True]
    assert table.unknown == ("other",)


def test_what_was_not_heard_has_the_mean_of_the_species_and_what_is_unknown_the_constant():
    table = scores("a_5", "a_10", "a_15")
    table.add("a", logits([[0.0, 2.0], [0.0, -2.0]]), NO_POSTPROCESSING)
    table.add("c", logits([[9.0, 9.0]]), NO_POSTPROCESSING)
    full_RC = table.completed()
    np.testing.assert_allclose(full_RC[2], [0.5, 1 / 3, 0.5])
    np.testing.assert_allclose(full_RC[:, 1], 1 / 3)
    np.testing.assert_allclose(scores("a_5").completed(), 1 / 3)


def test_a_score_that_is_no_number_counts_as_not_heard():
    table = scores("a_5", "a_10", columns=SPECIES)
    table.add("a", logits([[np.nan, 0.0], [1.0, 0.0]]), NO_POSTPROCESSING)
    assert table.is_heard_R.tolist() == [False, True]
    np.testing.assert_allclose(table.completed()[0], [0.731059, 0.5], atol=1e-6)


def test_post_processing_sees_all_windows_of_the_file():
    table = scores("a_5", columns=("alpha",))
    table.add("a", logits([[0.0, 0.0], [4.0, 0.0]]), PostProcessing(peak=0.5))
    np.testing.assert_allclose(table.score_RC, [[0.880797]], atol=1e-6)


def test_a_file_keeps_the_order_of_high_and_of_small_scores(tmp_path):
    rows = Rows(("a_5", "a_10", "a_15", "a_20"), ("alpha", "x,y"))
    score_RC = np.array([[1 - 2e-9, 0.0], [1 - 4e-9, 1e-300], [2e-20, 1.0], [1e-20, 0.5]])
    write_submission(rows, score_RC, tmp_path / "new" / "s.csv")
    lines = (tmp_path / "new" / "s.csv").read_text().splitlines()
    assert lines[0] == 'row_id,alpha,"x,y"' and lines[4].startswith("a_20,1")
    table = read_submission(tmp_path / "new" / "s.csv")
    assert table.index.tolist() == list(rows.row_ids) and list(table) == list(rows.species)
    assert table["alpha"].rank().tolist() == [4, 3, 2, 1]
    np.testing.assert_allclose(table.to_numpy(), score_RC, rtol=1e-8)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["s.csv"]
    write_submission(Rows(("a, b_5",), ("alpha",)), np.array([[0.5]]), tmp_path / "s.csv")
    assert read_submission(tmp_path / "s.csv").index.tolist() == ["a, b_5"]


@pytest.mark.parametrize("value", [np.nan, 1.1, -0.1, np.inf])
def test_scores_that_a_submission_must_not_have_are_not_written(tmp_path, value):
    with pytest.raises(BirdclefError, match="from 0 to 1"):
        write_submission(Rows(("a_5",), ("alpha",)), np.array([[value]]), tmp_path / "s.csv")
    with pytest.raises(BirdclefError, match="unique"):
        write_submission(Rows(("a_5", "a_5"), ("alpha",)), np.array([[0.5], [0.5]]), tmp_path / "s.csv")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="give another place with -o"):
        write_submission(Rows(("a_5",), ("alpha",)), np.array([[0.5]]), tmp_path / "file" / "s.csv")
