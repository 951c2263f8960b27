"""`birdclef sweeps`, `birdclef explain` of sweeps, and tags. `birdclef report` is tested with its page."""

from dataclasses import replace

import pytest
from made_up_sweep import made_up_sweep, write_sweep

from birdclef_core.errors import InputError
from sweeps.cli.birdclef import birdclef
from sweeps.cli.common import parse_tags
from sweeps.cli.tune import _given, _parse


def test_sweeps_of_a_storage_are_listed_and_two_are_compared(tmp_path, capsys):
    record, trials = made_up_sweep(2, name="one")
    write_sweep(tmp_path, record, trials)
    write_sweep(tmp_path, replace(record, name="two", options=replace(record.options, fold=3)), trials)
    assert birdclef(["sweeps", "ls", "--storage", str(tmp_path)]) == 0
    assert "one" in (listed := capsys.readouterr().out) and "two" in listed
    assert birdclef(["explain", "one", "two", "--storage", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "one and two\n  option fold: nothing against 3\n"
    assert birdclef(["explain", "one", "three", "--storage", str(tmp_path)]) == 2


def test_tags_are_pairs_of_text():
    given = _given(_parse(["--search", "sed", "--tag", "site=pond = deep", "--tag", "year= 2026", "--note", "n"]))
    assert given == {"search": "sed", "tags": {"site": "pond = deep", "year": "2026"}, "note": "n"}


@pytest.mark.parametrize("pair", ["site", "=pond", "birdclef.sweep=x", "mlflow.user=x", "a:b=c", " =x"])
def test_other_tags_are_refused(pair):
    with pytest.raises(InputError, match="--tag"):
        parse_tags([pair])
