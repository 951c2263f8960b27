"""Events as lines of a journal: each comes back as it was written."""

import math

import pytest

from sweeps.tracking import events
from sweeps.tracking.events import (
    CheckpointUsed,
    EpochFinished,
    StageFinished,
    StageStarted,
    SweepFinished,
    SweepStarted,
    TrialFinished,
    TrialStarted,
    from_json,
    to_json,
)

EVENTS = [
    SweepStarted(sweep="s", search="sed", tags={"a": "b"}, note="# ü"),
    TrialStarted(trial="t", params={"recipe": "sed_b3ns", "clip_s": 10, "lr": 3e-4}, tags={}),
    StageStarted(trial="t", execution="t/train_ce", stage="train_ce", params={}, tags={"x": "y"}, starts_from="abc"),
    EpochFinished(trial="t", execution="t/train_ce", epoch=3, trial_epoch=7, metrics={"val/cmap": 0.25}, time_s=1.5),
    StageFinished(
        trial="t", execution="t/train_ce", stage_id="def", status="finished", checkpoint_uri="s3://b/def", artifacts="r"
    ),
    CheckpointUsed(trial="t", stage_id="abc", stage="pretrain_ce"),
    TrialFinished(trial="t", status="pruned", metrics={"objective": 0.5}, reason='below "the" median\nof the rung'),
    SweepFinished(status="finished", table_markdown="| a |\n|---|"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_is_one_line_and_comes_back_the_same(event):
    line = to_json(event, 1234)
    assert "\n" not in line
    assert from_json(line) == (event, 1234)


def test_every_event_of_the_union_is_tested():
    assert {type(event) for event in EVENTS} == set(events.Event.__args__)


def test_numbers_that_are_not_finite_survive():
    event = EpochFinished(trial="t", execution="e", epoch=1, trial_epoch=1, metrics={"loss": math.nan, "top": math.inf}, time_s=0)
    metrics = from_json(to_json(event, 0))[0].metrics
    assert math.isnan(metrics["loss"])
    assert metrics["top"] == math.inf


@pytest.mark.parametrize("line", ["", "{", "[]", "{}", '{"event":"Other","time_ms":1}', '{"event":"TrialStarted","time_ms":1}'])
def test_any_other_line_is_a_value_error(line):
    with pytest.raises(ValueError):
        from_json(line)
