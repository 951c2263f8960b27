"""Records that are damaged, incomplete or of another version are refused with the reason, and stay as they are."""

import json
from pathlib import Path

import pytest
from made_up import MadeUpWorkers, make_coordinator

from birdclef_core.errors import InputError
from birdclef_core.store.storage import Storage
from sweeps.schedule.records import SweepRecords


@pytest.fixture
def folder(tmp_path):
    workers = MadeUpWorkers(make_coordinator(tmp_path, samples=5))
    workers.run()
    records(tmp_path).save_sweep({"name": "sweep"})
    return tmp_path / "sweep"


def records(folder) -> SweepRecords:
    return SweepRecords(Storage.parse(str(folder)).at("sweep"))


def contents(folder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def edit(path: Path, change) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


DAMAGE = {
    "cannot be read: Expecting value": lambda path: path.write_text(""),
    "cannot be read: Unterminated": lambda path: path.write_text(path.read_text()[:25]),
    r"not those of a trial in this version of the code \(everything\)": lambda path: path.write_text("[]"),
    r"not those of a trial in this version of the code \(told\)": lambda path: edit(path, lambda values: values.pop("told")),
    r"not those of a trial in this version of the code \(colour\)": lambda path: edit(
        path, lambda values: values.update(colour=1)
    ),
    "not those of a trial in .*steps": lambda path: edit(path, lambda values: values["told"][0]["outcome"].update(steps=1)),
    "is the record of t0004": lambda path: path.write_text(path.with_name("t0004.json").read_text()),
    "t0002.json is missing, though there are 4 trials": lambda path: path.unlink(),
}


@pytest.mark.parametrize("reason", DAMAGE)
def test_a_damaged_trial_is_refused_with_the_reason_and_nothing_is_changed(folder, reason):
    DAMAGE[reason](folder / "trials" / "t0002.json")
    before = contents(folder)
    with pytest.raises(InputError, match=reason) as error:
        make_coordinator(folder.parent, samples=9)
    assert "t0002.json" in str(error.value) and "Nothing was changed" in str(error.value)
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("text", "reason"), [("{", "cannot be read"), ("{}", "another version of the code"), ("[]", "cannot be read")]
)
def test_a_sweeps_own_record_that_is_damaged_or_of_another_version_is_refused(folder, text, reason):
    (folder / "sweep.json").write_text(text)
    before = contents(folder)
    with pytest.raises(InputError, match=reason):
        records(folder.parent).load_sweep()
    assert contents(folder) == before


def test_a_driver_that_is_killed_between_two_records_leaves_none_out(tmp_path):
    """Trials are drawn ahead and the largest group of them starts first; its record must not come before older ones'."""
    coordinator = make_coordinator(tmp_path, samples=12)
    saved = []
    save = coordinator.book._storage.save_trial
    object.__setattr__(
        coordinator.book,
        "_storage",
        type("Spy", (), {"save_trial": lambda self, record: (saved.append(record.trial), save(record))})(),
    )
    MadeUpWorkers(coordinator).run()
    first_saves = list(dict.fromkeys(saved))
    assert first_saves == sorted(first_saves) and len(first_saves) == 12
