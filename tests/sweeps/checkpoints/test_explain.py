"""In what two stages differ is named field by field, up to where their ancestors part."""

import pytest
from made_up_store import A, C, P, identity, make, publish, store

from sweeps.checkpoints.explain import differences, explain
from sweeps.cli.birdclef import birdclef


@pytest.fixture
def storage(tmp_path):
    return make(str(tmp_path))


def test_fields_are_named_with_both_values_nested_ones_with_dots():
    first = {"a": {"b": 1, "c": [1, 2]}, "noise": [{"prob": 0.5}], "same": 1}
    second = {"a": {"b": 2, "c": [1, 2]}, "noise": [{"prob": 0.4}, {"prob": 0.1}], "same": 1}
    assert [(item.field, item.first, item.second) for item in differences(first, second)] == [
        ("a.b", 1, 2),
        ("noise.0.prob", 0.5, 0.4),
        ("noise.1.prob", None, 0.1),
    ]


def test_a_stage_is_the_same_as_itself(storage):
    assert explain(store(storage), C, C)[-1] == "  are the same stage."


def test_code_and_data_are_said_in_words(storage):
    publish(storage, "1" * 64, "pretrain_ce", identity=identity("pretrain_ce", code="0ld", data="e" * 64))
    assert explain(store(storage), P, "1" * 64)[1:] == [
        "  code: 'c0de' against '0ld' (the code that trains and scores stages)",
        "  data: dddddddddddd... against eeeeeeeeeeee... (the recordings, their labels, the split or the noise files)",
    ]


def test_shares_of_sources_are_named_one_by_one_and_sources_are_said_in_words(storage):
    for number, (share, sources) in enumerate([(0.75, "e" * 64), (0.5, "f" * 64)], start=1):
        drawn = identity("pretrain_ce") | {"sources": sources}
        drawn["stage"] = {**drawn["stage"], "sources": [["even", share], ["odd", 1 - share]]}
        publish(storage, str(number) * 64, "pretrain_ce", identity=drawn)
    assert explain(store(storage), "1" * 64, "2" * 64)[1:] == [
        "  sources: eeeeeeeeeeee... against ffffffffffff... (which recording came in which source)",
        "  stage.sources.even: 0.75 against 0.5",
        "  stage.sources.odd: 0.25 against 0.5",
    ]


def test_ancestors_are_followed_to_where_they_part(storage):
    other = identity("pretrain_ce", parent="random")
    other["stage"] = {**other["stage"], "learning_rate": 0.2}
    publish(storage, "1" * 64, "pretrain_ce", identity=other)
    publish(storage, "2" * 64, "train_ce", parent_id="1" * 64)
    lines = explain(store(storage), A, "2" * 64)
    assert lines[1] == "  parent: they start from different stages"
    assert lines[2].startswith("tiny pretrain_ce 999999999999 and tiny pretrain_ce 111111111111")
    assert lines[3:] == ["  stage.learning_rate: 0.1 against 0.2"]


def test_a_stage_with_a_parent_and_one_without_start_elsewhere(storage):
    publish(storage, "1" * 64, "train_ce", start="hub")
    assert explain(store(storage), A, "1" * 64)[-1] == "  start: tiny pretrain_ce 999999999999 against hub weights"


def test_an_ancestor_that_is_gone_ends_it(storage):
    publish(storage, "1" * 64, "train_ce", parent_id="8" * 64)
    assert "888888888888 is no longer in the store" in explain(store(storage), A, "1" * 64)[-1]


def test_predictions_of_heads_are_followed_to_their_embeddings(storage):
    """Of two students that differ only in the encoder whose embeddings taught the heads which taught them."""
    for number, parent in enumerate(("onnx:aa", "onnx:bb")):
        embed, head, labels, student = (f"{digit}{number}" * 32 for digit in "3456")
        publish(storage, embed, "embed", start=parent, identity=identity("embed", parent=parent) | {"model": {}})
        publish(storage, head, "head", identity=identity("head", embeddings=embed))
        of_head = identity("labels", parent=head) | {"model": {}}
        publish(storage, labels, "labels", parent_id=head, identity=of_head)
        publish(storage, student, "student", identity=identity("student", teacher=labels))
    assert explain(store(storage), "60" * 32, "61" * 32) == [
        "tiny student 606060606060 and tiny student 616161616161",
        "  teacher: they learn from different predictions",
        "tiny labels 505050505050 and tiny labels 515151515151",
        "  parent: they start from different stages",
        "tiny head 404040404040 and tiny head 414141414141",
        "  embeddings: they are trained on different embeddings",
        "tiny embed 303030303030 and tiny embed 313131313131",
        "  start: onnx:aa weights against onnx:bb weights",
    ]
    publish(storage, "7" * 64, "student", identity=identity("student"))
    assert explain(store(storage), "60" * 32, "7" * 64)[-1] == "  teacher: 505050505050... against None"


def test_the_command_compares_two_references(storage, capsys):
    assert birdclef(["explain", "s", "s/t0001", "--storage", storage.root]) == 0
    assert capsys.readouterr().out.startswith("tiny finetune cccccccccccc and tiny train_ce bbbbbbbbbbbb\n")
    assert birdclef(["explain", "s", "s/t0001/finetune", "--storage", storage.root]) == 2
    said = capsys.readouterr().err
    assert "it has not been trained, or was removed" in said and said.count("\n") == 1
