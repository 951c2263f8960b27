import json
from pathlib import Path

import pandas as pd
import pytest

from birdclef_core.findings import Finding
from birdclef_core.inventory.check import CheckReport, write_check
from birdclef_core.inventory.last_check import CHECK_NAME, read_last_check
from birdclef_core.inventory.problems import Problem

FINDING = Finding.of("missing", "[row has|rows have] no audio", ["a", "b"], "left out.")


def test_what_a_check_wrote_is_read(tmp_path: Path) -> None:
    write_check(CheckReport(tmp_path, pd.DataFrame({"path": ["a"]}), (Problem(FINDING),), "too bad", 1, 0.0), tmp_path)
    record = read_last_check(tmp_path)
    assert record is not None and record.findings == (FINDING,) and record.num_files == 1 and record.refusal == "too bad"
    assert record.changed_at == (tmp_path / CHECK_NAME).stat().st_mtime


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"problems": [{"rule": 1}]}', '{"problems": 3, "num_files": 1}', "\udcff"])
def test_a_record_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    assert read_last_check(tmp_path) is None
    (tmp_path / CHECK_NAME).write_text(content, encoding="utf-8", errors="surrogateescape")
    assert read_last_check(tmp_path) is None


def test_a_record_of_findings_without_a_field_is_none(tmp_path: Path) -> None:
    older = {name: value for name, value in FINDING.as_json().items() if name != "kind"}
    (tmp_path / CHECK_NAME).write_text(json.dumps({"problems": [older], "num_files": 1, "refusal": ""}))
    assert read_last_check(tmp_path) is None
