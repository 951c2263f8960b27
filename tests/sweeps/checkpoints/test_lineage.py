"""A checkpoint's ancestry: every stage with what made it, what is missing or damaged among them, as text and as a page."""

from xml.etree import ElementTree

import pytest
from made_up_store import A, C, P, damage, identity, make, publish, store
from pages import HOSTILE, Page

from sweeps.checkpoints.lineage import is_sound, lineage, lineage_lines, lineage_page, lineage_svg
from sweeps.cli.birdclef import birdclef
from sweeps.objective import Objective


@pytest.fixture
def storage(tmp_path):
    return make(str(tmp_path))


def test_every_stage_is_told_from_the_first_weights_on(storage):
    found = lineage(store(storage), C, verify=True)
    assert [ancestor.stage_id for ancestor in found] == [P, A, C] and is_sound(found)
    text = "\n".join(lineage_lines(found))
    assert text.startswith("starts from random weights\npretrain_ce 9999999999999999 (tiny, tiny)")
    for part in (
        "learning_rate=0.1",
        "data dddddddddddddddd, code c0de",
        "on cpu in 2.0 s",
        "scores  cmap 0.5000",
        "every hash verified",
    ):
        assert text.count(part) == 3, part
    assert text.endswith("in all 6.0 s of device time")


def test_scores_on_soundscapes_and_standard_errors_are_told_too(storage):
    scores = {"soundscapes/auroc": 0.75, "soundscapes/auroc_se": 0.05, "soundscapes/num_windows": 36.0, "num_recordings": 24.0}
    publish(storage, C, "finetune", metrics={"cmap": 0.5, **scores})
    found = lineage(store(storage), C, verify=False)
    line = next(line for line in lineage_lines(found)[::-1] if "scores" in line)
    assert line.strip() == "scores  cmap 0.5000, soundscapes/auroc 0.7500 ± 0.0500 (24 recordings, 36 windows of soundscapes)"
    page = Page(lineage_page(found, "Lineage", Objective.of("val_soundscapes/auroc"))).check()
    assert "score 0.750 ± 0.050" in page.text
    assert "The score of a box is val_soundscapes/auroc, of a stage on all species val_all/auroc." in page.text


def test_damage_is_found_where_it_is_looked_for(storage):
    damage(storage, A)
    assert is_sound(lineage(store(storage), C, verify=False))
    found = lineage(store(storage), C, verify=True)
    assert not is_sound(found)
    assert [line.strip()[:14] for line in lineage_lines(found) if "files" in line] == [
        "files   every ",
        "files   DAMAGE",
        "files   every ",
    ]
    assert store(storage).is_published(A), "it is not set aside by looking at it"


def test_an_ancestor_that_is_gone_ends_the_lineage(storage):
    store(storage).remove(A)
    found = lineage(store(storage), C, verify=True)
    assert not is_sound(found)
    assert lineage_lines(found)[:2] == [
        "starts from a stage that is no longer in the store",
        f"{A[:16]}: MISSING, no longer in the store",
    ]


def test_the_picture_has_a_box_for_each_stage_and_its_score_and_cost(storage):
    svg = ElementTree.fromstring(lineage_svg(lineage(store(storage), C, verify=False), Objective.of(None)))
    texts = [element.text for element in svg.iter("text")]
    assert len(list(svg.iter("rect"))) == 4 and len(list(svg.iter("path"))) == 3
    assert texts.count("score 0.500") == 3 and "finetune" in texts and "random weights" in texts


def test_the_page_stands_alone_and_shows_every_name_as_text(storage):
    publish(storage, C, "finetune", recipe=HOSTILE, surgery=HOSTILE, trained_by=HOSTILE, environment={"device": HOSTILE})
    page = Page(lineage_page(lineage(store(storage), C, verify=True), HOSTILE)).check()
    assert "http" not in page.source and "<script" not in page.source
    assert page.text.startswith(f"{HOSTILE} {HOSTILE}"), "title and heading"
    for part in (f"({HOSTILE}, tiny)", f"start {HOSTILE}", f"by {HOSTILE} on {HOSTILE} in 2.0 s"):
        assert part in page.text, part
    assert len(page.labels) == 1


def test_the_command_prints_it_and_exits_1_when_something_is_wrong(storage, tmp_path, capsys):
    page = tmp_path / "new" / "page.html"
    assert birdclef(["lineage", "s", "--storage", storage.root, "--html", str(page)]) == 0
    assert "finetune cccccccccccccccc" in capsys.readouterr().out and "<svg" in page.read_text()
    damage(storage, P)
    assert birdclef(["lineage", "s", "--storage", storage.root]) == 1
    store(storage).remove(P)
    assert birdclef(["lineage", "s", "--storage", storage.root]) == 1


def test_a_student_is_told_with_its_teacher_and_its_predictions(storage):
    labels, student = "1" * 64, "2" * 64
    of_labels = identity("labels", parent=A) | {"model": {}, "stage": {"predicts_on": "unlabelled"}}
    publish(storage, labels, "labels", parent_id=A, identity=of_labels)
    publish(storage, student, "student", parent_id=P, identity=identity("student", parent=P, teacher=labels))
    found = lineage(store(storage), student, verify=True)
    assert [ancestor.stage_id for ancestor in found] == [P, A, labels, student] and is_sound(found)
    text = "\n".join(lineage_lines(found))
    assert f"labels {labels[:16]} (predictions)\n    of      {A[:16]} on unlabelled" in text
    assert f"teacher predictions {labels[:16]}" in text
    svg = ElementTree.fromstring(lineage_svg(found, Objective.of(None)))
    assert len(list(svg.iter("path"))) == 5, "first weights, teacher, predictions, and two into the student"
    store(storage).remove(labels)
    assert not is_sound(lineage(store(storage), student, verify=True))


def test_a_head_that_teaches_is_told_with_its_embeddings(taught):
    storage, chain = taught
    found = lineage(store(storage), chain[-1].stage_id, verify=True)
    assert [ancestor.stage_id for ancestor in found] == [task.stage_id for task in chain] and is_sound(found)
    text = "\n".join(lineage_lines(found))
    assert f"labels {chain[3].stage_id[:16]} (predictions)\n    of      {chain[2].stage_id[:16]} on recordings" in text
    assert text.count(f"on embeddings {chain[0].stage_id[:16]}") == 2, "both heads"
