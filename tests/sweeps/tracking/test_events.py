"""Events as lines of a journal: each comes back as it was written, and any other line is refused."""

import json
import math
from pathlib import Path

import pytest
from damage import broken_files, damages

from birdclef_core.errors import FileContentError
from sweeps.tracking import events
from sweeps.tracking.events import (
    CheckpointUsed,
    EnsembleChosen,
    EpochFinished,
    FrontFound,
    StageFinished,
    StageStarted,
    SweepFinished,
    SweepStarted,
    TrialFinished,
    TrialStarted,
    from_line,
    to_line,
)

RECORDS = Path(__file__).parents[2] / "data" / "records"

EVENTS = [
    SweepStarted(sweep="s", search="sed", tags={"a": "b"}, note="# ü"),
    TrialStarted(trial="t", params={"recipe": "sed_b3ns", "clip_s": 10, "lr": 3e-4, "compiled": True}, tags={}),
    StageStarted(trial="t", execution="t/train_ce", stage="train_ce", params={}, tags={"x": "y"}, starts_from="abc"),
    EpochFinished(trial="t", execution="t/train_ce", epoch=3, trial_epoch=7, metrics={"val/cmap": 0.25}, time_s=1.5),
    StageFinished(
        trial="t", execution="t/train_ce", stage_id="def", status="finished", checkpoint_uri="s3://b/def", artifacts="r"
    ),
    CheckpointUsed(trial="t", stage_id="abc", stage="pretrain_ce"),
    TrialFinished(trial="t", status="pruned", metrics={"objective": 0.5}, reason='below "the" median\nof the rung'),
    FrontFound(trials=("t0001", "t0004")),
    SweepFinished(status="finished", table_markdown="| a |\n|---|"),
    EnsembleChosen(
        ensemble="e", name="e", sweep="s", search="sed", stages={"abc": "finetune"}, checkpoint_uris={"abc": "s3://b/abc"}
    ),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_is_one_line_and_comes_back_the_same(event):
    line = to_line(event, 1234)
    assert "\n" not in line
    assert from_line(line.encode(), file="j") == (event, 1234)


def test_every_event_of_the_union_is_tested():
    assert {type(event) for event in EVENTS} == set(events.Event.__args__)


def test_numbers_that_are_not_finite_survive():
    event = EpochFinished(trial="t", execution="e", epoch=1, trial_epoch=1, metrics={"loss": math.nan, "top": math.inf}, time_s=0)
    metrics = from_line(to_line(event, 0).encode(), file="j")[0].metrics
    assert math.isnan(metrics["loss"])
    assert metrics["top"] == math.inf


def refused(line: bytes, place: str) -> None:
    with pytest.raises(FileContentError, match=r"^tracking\.jsonl cannot be read: ") as error:
        from_line(line, file="tracking.jsonl")
    assert place in error.value.problem


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_damage_to_a_line_is_refused(event):
    for damage in broken_files(to_line(event, 1)):
        refused(damage.content, damage.place)
    fields = json.dumps(vars(event))
    for damage in damages(type(event), fields):
        if damage.place:
            refused(
                json.dumps({"event": type(event).__name__, "time_ms": 1, **json.loads(damage.content)}).encode(), damage.place
            )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"event": "Other"}, "event must be one of SweepStarted, .*, but is 'Other'"),
        ({"event": ["TrialStarted"]}, r"event must be one of .*, but is \['TrialStarted'\]"),
        ({"event": None}, "event must be one of .*, but is None"),
        ({"time_ms": "now"}, "time_ms must be a whole number, but is 'now'"),
        ({"time_ms": True}, "time_ms must be a whole number, but is True"),
        ({"time_ms": None}, "time_ms must be a whole number, but is None"),
    ],
)
def test_a_line_says_which_event_it_is_and_when(changes, problem):
    line = json.dumps({"event": "TrialStarted", "time_ms": 1, "trial": "t", "params": {}, "tags": {}} | changes)
    with pytest.raises(FileContentError, match=problem):
        from_line(line.encode(), file="j")


def test_a_journal_that_an_earlier_version_wrote_is_read():
    lines = (RECORDS / "sweep/tracking.jsonl").read_bytes().splitlines()
    of_a_sweep = set(events.Event.__args__) - {EnsembleChosen, FrontFound}
    assert {type(from_line(line, file="j")[0]) for line in lines} == of_a_sweep
