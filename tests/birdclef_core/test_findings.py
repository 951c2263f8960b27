from pathlib import Path

import pandas as pd
import pytest

from birdclef_core.errors import DataError
from birdclef_core.findings import Finding, inflect, settle_unusable

FAULT = "[label is|labels are] of species outside the label space"


def test_a_finding_is_a_sentence_that_begins_with_its_count() -> None:
    one = Finding.of("unscored", FAULT, ["owl"], "not scored.")
    assert one.describe() == "1 label is of species outside the label space: not scored. Example: owl."
    many = Finding.of("unscored", FAULT, [f"owl{number}" for number in range(1200)], "not scored.")
    assert many.describe() == (
        "1,200 labels are of species outside the label space: not scored. Examples: owl0; owl1; owl2; owl3; owl4; and 1,195 more."
    )
    assert Finding("kind", "note", 3, "things happened", "harmless.").describe() == "3 things happened: harmless."


def test_an_example_that_ends_a_sentence_gets_no_second_full_stop() -> None:
    assert Finding.of("kind", "thing", ["it broke."], "lost.").describe().endswith("Example: it broke.")


def test_a_finding_survives_json() -> None:
    finding = Finding.of("kind", FAULT, ["a", "b"], "meaning.", level="note")
    assert Finding.restore(finding.as_json()) == finding
    with pytest.raises(ValueError, match="fields rule"):
        Finding.restore({"rule": "of an older version"})


def test_forms_follow_the_count() -> None:
    assert [inflect("[file does|files do] not fit", count) for count in (0, 1, 2)] == [
        "files do not fit",
        "file does not fit",
        "files do not fit",
    ]


def test_unusable_files_are_counted_listed_and_refused_past_a_share(tmp_path: Path) -> None:
    reasons, csv = {"a.wav": "missing", "b.wav": "damaged"}, tmp_path / "new" / "bad.csv"
    options = {"kind": "unusable", "files": "[recording|recordings]", "csv_path": csv}
    assert settle_unusable({}, total=10, max_share=0.0, **options) == () and not csv.exists()
    (finding,) = settle_unusable(reasons, total=10, max_share=0.2, **options)
    assert finding.describe().startswith("2 recordings cannot be used: left out of training and scoring. All are listed in ")
    assert list(pd.read_csv(csv)["reason"]) == ["missing", "damaged"]
    with pytest.raises(DataError, match=r"At most 19% of the recordings may be unusable, but 2 of 10 are.*bad\.csv"):
        settle_unusable(reasons, total=10, max_share=0.19, **options)


def test_a_list_that_cannot_be_written_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (finding,) = settle_unusable(
        {"a.wav": "missing"},
        total=1,
        max_share=1.0,
        kind="unusable",
        files="[file|files]",
        csv_path=tmp_path / "file" / "bad.csv",
    )
    assert "could not be listed" in finding.meaning
