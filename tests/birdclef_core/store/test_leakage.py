"""What of a validation set trained earlier stages: by content, by id, by author, and what cannot be known."""

import pandas as pd
import pytest

from birdclef_core.errors import StoreError
from birdclef_core.store.leakage import NO_LEAK, Leak, RecordingsReader, Trained, TrainedStage, find_leak
from birdclef_core.store.recordings_table import write_recordings
from birdclef_core.store.storage import Storage


def table(*rows: str) -> pd.DataFrame:
    """Rows such as `v XC1 Ann c1`: side (v or t, or T for always), id, author and content, and perhaps a group; `-` is an empty text."""
    columns = ["side", "recording_id", "author", "content", "group"]
    found = pd.DataFrame([f"{row} -".split()[:5] for row in rows], columns=columns).replace("-", "")
    return found.assign(is_validation=found["side"] == "v", always_trains=found["side"] == "T")


def leak(now: pd.DataFrame, *before: pd.DataFrame) -> tuple[int, int]:
    found = find_leak(now, Trained(tables=before, unknown=()))
    return found.num_trained, found.num_by_author


NOW = table("v a Ann 1", "v b Bea 2", "v c - 3", "t d Dan 4")


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (["v a Ann 1", "v b Bea 2", "v c - 3", "t d Dan 4"], (0, 0)),
        (["t a Ann 1", "t b Bea 2", "t c - 3", "v d Dan 4"], (3, 0)),
        (["t other Ann 1"], (1, 0)),
        (["t a Ann 9"], (0, 1)),
        (["t a Eve 9"], (0, 0)),
        (["t a Eve -"], (1, 0)),
        (["t x Bea 8", "v b Bea 2"], (0, 1)),
        (["t x - 8"], (0, 0)),
        (["t x Dan 8"], (0, 0)),
    ],
    ids=[
        "the same split",
        "the sides swapped",
        "renamed: the same bytes",
        "other bytes and the same author",
        "the same file name in another collection",
        "same id, content not known",
        "only another recording of the author",
        "an author who is not known",
        "an author of the training side",
    ],
)
def test_overlap_by_recording_and_by_author(before, expected):
    assert leak(NOW, table(*before)) == expected


def test_no_table_leaks_nothing():
    assert leak(NOW) == (0, 0)


def test_every_table_counts_and_a_recording_counts_once():
    assert leak(NOW, table("t a Ann 1"), table("t a Ann 1", "t c - 3")) == (2, 0)


def test_a_recording_whose_content_is_not_known_now_is_found_by_its_id():
    assert leak(table("v a Ann -", "t d Dan 4"), table("t a Eve 9")) == (1, 0)


@pytest.mark.parametrize(
    ("recording_id", "is_same"), [("XC134874", True), ("iNat1034", True), ("CSA7", True), ("XC134874-2", False), ("rec17", False)]
)
def test_the_number_of_a_large_collection_is_the_same_recording_whatever_its_bytes(recording_id, is_same):
    """As a copy in another format, or cut."""
    now, before = table(f"v {recording_id} Ann 1", "t d Dan 4"), table(f"t {recording_id} Eve 2")
    assert leak(now, before) == (int(is_same), 0)


@pytest.mark.parametrize(
    ("group", "other", "expected"),
    [("place1", "place1", (0, 1)), ("place1", "place2", (0, 0)), ("-", "-", (0, 0))],
    ids=["the same place and day", "another", "nothing is known"],
)
def test_the_group_counts_where_the_author_is_not_known(group, other, expected):
    assert leak(table(f"v a - 1 {group}", "t d Dan 4"), table(f"t x - 2 {other}")) == expected


def test_an_author_counts_in_whatever_group():
    """A copy joins two authors in one of the two collections."""
    assert leak(table("v a Bob 1 bob", "t d Dan 4"), table("t x Bob 2 ann")) == (0, 1)
    assert leak(table("v a Bob 1 ann", "t d Dan 4"), table("t x Ann 2 ann")) == (0, 1)


def test_a_recording_that_always_trains_hides_no_leak_and_is_none():
    """Ann's only recording of a species trains in every fold, also while her others validate."""
    now = table("v a Ann 1", "v b Ann 2", "T own Ann 3", "t d Dan 4")
    assert leak(now, table("t own Ann 3", "v a Ann 1", "t d Dan 4")) == (0, 0)
    assert leak(now, table("t own Ann 3", "t a Ann 1", "t d Dan 4")) == (1, 1)
    assert leak(now, table("t other Ann 5", "t own Ann 3")) == (0, 2)


def test_what_the_split_has_on_both_sides_is_no_fault_of_the_start_stage():
    """A copy of a validation recording, and an author, that are in training anyway."""
    now = table("v a Ann 1", "v b Bea 2", "t copy Eve 1", "t e Bea 5")
    assert leak(now, table("t copy Eve 1", "t e Bea 5", "t f Bea 6")) == (0, 0)
    assert leak(now, table("t b Bea 2")) == (1, 0)


def of(trained: int = 0, by_author: int = 0, *unknown: str) -> Leak:
    return Leak(num_validation=62, num_trained=trained, num_by_author=by_author, unknown=unknown)


@pytest.mark.parametrize(
    ("leak", "mark", "sentence"),
    [
        (of(), "", ""),
        (NO_LEAK, "", ""),
        (of(56), "56 of 62", "leaked: 56 of 62 validation recordings trained the start stage"),
        (
            of(56, 4),
            "56 of 62",
            "leaked: 56 of 62 validation recordings trained the start stage, and 4 more have an author (or place and day, where "
            "it is unknown) in common with recordings that did",
        ),
        (
            of(0, 30),
            "30 of 62 by author",
            "leaked: 30 of 62 validation recordings have an author (or place and day, where it is unknown) in common with recordings "
            "that trained the start stage",
        ),
        (of(56, 0, "x"), "at least 56 of 62", "leaked: at least 56 of 62 validation recordings trained the start stage"),
        (of(0, 0, "x"), "unknown", "leaked: unknown, because it is not known which recordings trained the start stage"),
    ],
)
def test_a_leak_is_said_in_a_few_words_and_in_a_sentence(leak, mark, sentence):
    assert (leak.mark, leak.sentence) == (mark, sentence)


@pytest.fixture
def storage(tmp_path):
    storage = Storage.parse(str(tmp_path))
    write_recordings(storage, "first", table("t a Ann 1", "t b Bea 2", "v d Dan 4"))
    storage.write_text("recordings/broken.parquet", "rubbish")
    return storage


def stage(data: str | None) -> TrainedStage:
    return TrainedStage(title=f"stage {data}", data=data)


def test_what_is_not_known_is_said_with_its_reason_and_the_rest_counts(storage):
    reader = RecordingsReader(storage)
    found = reader.leak(lambda: NOW, "now", [stage(data) for data in ("first", "imported", "older", "broken", None, "now")])
    assert (found.num_validation, found.num_trained, found.num_by_author) == (3, 2, 0)
    reasons = ("it was imported", "an older version of the code trained it", "is damaged", "no longer in the store")
    assert len(found.unknown) == 4
    for line, data, reason in zip(found.unknown, ("imported", "older", "broken", "None"), reasons, strict=True):
        assert line.startswith(f"stage {data}: ") and reason in line
    assert str(storage.path("recordings/broken.parquet")) in found.unknown[2]
    with pytest.raises(StoreError, match="is damaged"):
        reader.recordings("broken")


def test_with_the_same_recordings_nothing_is_read(storage):
    assert RecordingsReader(storage).leak(lambda: pytest.fail("read"), "older", [stage("older"), stage("older")]) == NO_LEAK


def test_a_stage_is_described_with_its_numbers_and_the_leak_of_the_stages_before(storage):
    write_recordings(storage, "now", NOW)
    reader = RecordingsReader(storage)
    assert reader.describe(stage("first"), []) == "2 recordings, validated on 1"
    assert reader.describe(stage("now"), [stage("first")]) == "1 recording, validated on 3; scores leaked: 2 of 3"
    assert reader.describe(stage("now"), [stage("imported")]).endswith("scores leaked: unknown")
    assert reader.describe(stage("imported"), []) == "unknown recordings: it was imported"
