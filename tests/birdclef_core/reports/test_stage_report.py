"""Files of a stage's report; a picture that fails costs no stage."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pages import MATHEMATICS

from birdclef_core.reports import stage_report
from birdclef_core.reports.stage_report import write_stage_report


def test_tables_pictures_and_card_are_written(outcome, tmp_path):
    notes: list[str] = []
    write_stage_report(tmp_path, outcome, notes.append)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"predictions.parquet", "species.csv", "curves.png", "predictions.png", "card.html"}
    assert not notes
    predictions = pd.read_parquet(tmp_path / "predictions.parquet")
    assert predictions.index[0] == "XC0" and list(predictions.columns) == outcome.record.species
    assert np.allclose(predictions.to_numpy(), outcome.score_RC, atol=1e-7)
    table = pd.read_csv(tmp_path / "species.csv")
    assert table["support"].tolist() == [10, 10, 10, 10, 0]
    assert table["average_precision"].isna().tolist() == [False] * 4 + [True]


def test_a_report_that_fails_is_said_and_kept_and_the_tables_are_there(outcome, tmp_path, monkeypatch: pytest.MonkeyPatch):
    def fail(outcome):
        raise ZeroDivisionError("no such picture")

    monkeypatch.setattr(stage_report, "stage_card", fail)
    notes: list[str] = []
    write_stage_report(tmp_path, outcome, notes.append)
    assert "incomplete (ZeroDivisionError: no such picture); see report-error.txt" in notes[0]
    assert "no such picture" in (tmp_path / "report-error.txt").read_text()
    assert (tmp_path / "predictions.parquet").exists()


def test_a_dollar_sign_in_a_species_name_costs_no_picture(outcome, tmp_path):
    """matplotlib took what stands between two of them for mathematics, and refused it."""
    notes: list[str] = []
    record = replace(outcome.record, species=[MATHEMATICS, "sp_$a_{b", "c", "d", "e"])
    write_stage_report(tmp_path, replace(outcome, record=record), notes.append)
    assert not notes and (tmp_path / "card.html").exists() and (tmp_path / "predictions.png").exists()
