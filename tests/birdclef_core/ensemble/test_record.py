"""The record of an ensemble says what it must, and is refused when it contradicts itself."""

from dataclasses import replace

import pytest
from made_up_ensembles import ensemble_record

from birdclef_core.ensemble.record import EnsembleScore, read_record, write_record
from birdclef_core.errors import FileContentError, InputError


def test_a_record_is_read_as_it_was_written(tmp_path):
    record = ensemble_record()
    write_record(record, tmp_path / "ensemble.json")
    assert read_record(tmp_path / "ensemble.json") == record


def test_the_first_members_are_an_ensemble(tmp_path):
    record = ensemble_record()
    assert [weight for _, weight in record.first(1)] == [1.0]
    assert [weight for _, weight in record.first(2)] == [0.6, 0.4]
    assert [member for member, _ in record.first(2)] == list(record.members)
    with pytest.raises(InputError, match="1 <= count <= 2"):
        record.first(3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights_of_first": ((1.0,),)}, "for each k"),
        ({"weights_of_first": ((1.0,), (0.6, 0.6))}, "sum to 1"),
        ({"weights_of_first": ((1.0,), (0.5, 0.5))}, "weights of the members"),
        ({"species": ("beta", "alpha")}, "sorted"),
        ({"members": ()}, "at least one"),
        ({"members": ensemble_record().members[:1] * 2}, "each stage once"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        replace(ensemble_record(), **changes)


def test_a_score_without_a_value_has_a_reason():
    known = {"metric": "auroc", "source": "soundscapes", "num_rows": 1, "num_groups": 1}
    with pytest.raises(InputError, match="reason"):
        EnsembleScore(value=None, error=None, reason="", **known)
    with pytest.raises(InputError, match="reason"):
        EnsembleScore(value=0.5, error=0.1, reason="why?", **known)


def test_a_file_that_is_no_ensemble_is_refused_with_its_name(tmp_path):
    with pytest.raises(InputError, match=r"gone\.json must be an ensemble .*No such file"):
        read_record(tmp_path / "gone.json")
    path = tmp_path / "other.json"
    path.write_text("{}")
    with pytest.raises(FileContentError, match=r"other\.json cannot be read: version is missing"):
        read_record(path)
