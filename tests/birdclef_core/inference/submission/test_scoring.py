"""A submission is scored on the rows that have labels, with scikit-learn's figures."""

import pandas as pd
import pytest
from made_up_detector import write_sound
from sklearn.metrics import average_precision_score, roc_auc_score

from birdclef_core.errors import InputError
from birdclef_core.inference.run.labels import read_labels
from birdclef_core.inference.submission.scoring import score_submission


def test_rows_that_have_labels_are_scored(tmp_path):
    write_sound(tmp_path / "audio" / "a.wav", 20.0)
    (tmp_path / "labels.csv").write_text("row_id,labels\na_15,alpha beta\na_5,alpha\na_10,\na_20,other\n")
    table = {"row_id": ["a_5", "a_10", "a_15", "b_5"], "beta": [0.3, 0.5, 0.4, 0.9], "alpha": [0.9, 0.2, 0.1, 0.5]}
    path = tmp_path / "submission.csv"
    pd.DataFrame(table).to_csv(path, index=False)
    labels = read_labels(tmp_path / "labels.csv", tmp_path / "audio")
    scores = score_submission(path, labels)
    assert (scores.num_rows, scores.num_files, scores.num_species) == (3, 1, 2)
    truth = {"beta": [0, 0, 1], "alpha": [1, 0, 1]}
    for name, figure in {"cmap": average_precision_score, "auroc": roc_auc_score}.items():
        expected = sum(figure(truth[code], table[code][:3]) for code in truth) / 2
        assert scores.figures[name] == pytest.approx(expected)
    pd.DataFrame(table).assign(row_id=["c_5", "c_10", "c_15", "c_20"]).to_csv(path, index=False)
    with pytest.raises(InputError, match="labels have a_15, rows c_5"):
        score_submission(path, labels)
