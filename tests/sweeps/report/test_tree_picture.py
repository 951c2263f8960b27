"""The picture of a sweep's stages has each executed stage once, with its score, its cost and the trials that came through it."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest
from made_up import MadeUpWorkers, make_chain_builder, make_coordinator, make_search, summary_of
from pages import HOSTILE, Page

from sweeps.objective import Objective, Score
from sweeps.report.tree_picture import MAX_TRIALS, grow_tree, tree_page, tree_svg
from sweeps.schedule.pruning import Rung, Stopped
from sweeps.schedule.records import TrialRecord

OBJECTIVE = Objective.of(None)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The trials of a sweep with pruned ones among them, and the store's summaries of their stages."""
    chains = make_chain_builder(replace(make_search(), sampler="random"))
    workers = MadeUpWorkers(make_coordinator(tmp_path_factory.mktemp("sweep"), chains, samples=16))
    workers.run()
    trials = list(workers.coordinator.trials.values())
    tasks = {task.stage_id: task for record in trials for task in chains.chain(record.recipe, record.params)}
    return trials, {stage_id: summary_of(tasks[stage_id]) for stage_id in workers.executed}


def nodes(children):
    for node in children.values():
        yield node
        yield from nodes(node.children)


def test_every_executed_stage_is_there_once_below_its_parent(swept):
    trials, summaries = swept
    roots = grow_tree(trials, summaries, OBJECTIVE)
    found = [node for root in roots for node in nodes(root.children)]
    assert sorted(node.stage_id for node in found) == sorted(summaries)
    assert all(summaries[child.stage_id].parent_id == node.stage_id for node in found for child in node.children.values())
    assert sum(root.trials for root in roots) == len(trials) and {root.start for root in roots} == {"random weights"}
    assert {(node.cost_s, node.trained_here) for node in found} == {(1.0, True)}


def test_a_stage_that_was_removed_or_taken_from_the_store_is_said_to_be(swept):
    trials, summaries = swept
    best = max((record for record in trials if record.score is not None), key=lambda record: record.score)
    gone, taken = best.stage_ids[-1], best.stage_ids[0]
    others = {stage_id: item for stage_id, item in summaries.items() if stage_id != gone}
    strangers = [replace(record, trained_ids=[i for i in record.trained_ids if i != taken]) for record in trials]
    found = {node.stage_id: node for root in grow_tree(strangers, others, OBJECTIVE) for node in nodes(root.children)}
    assert not found[gone].is_stored and (found[gone].score, found[gone].cost_s) == (
        Score(best.score),
        best.spent_s[best.stages[-1]],
    )
    assert found[taken].is_stored and not found[taken].trained_here
    svg = tree_svg(grow_tree(strangers, others, OBJECTIVE), best)
    assert f"{best.trial} finished, removed" in svg
    unknown = grow_tree(strangers, {stage_id: item for stage_id, item in others.items() if stage_id != taken}, OBJECTIVE)
    assert [node.cost_s for root in unknown for node in nodes(root.children) if node.stage_id == taken] == [None]


def test_the_picture_shows_them_and_the_way_to_the_best(swept):
    trials, summaries = swept
    best = max((record for record in trials if record.score is not None), key=lambda record: record.score)
    svg = ElementTree.fromstring(tree_svg(grow_tree(trials, summaries, OBJECTIVE), best))
    boxes = list(svg.iter("rect"))
    assert len(boxes) == len(summaries) + len({record.recipe for record in trials})
    assert sum(box.get("fill") == "var(--best)" for box in boxes) == len(best.stage_ids)
    assert sum(path.get("stroke") == "var(--best)" for path in svg.iter("path")) == len(best.stage_ids)
    texts = [text.text for text in svg.iter("text")]
    assert f"{best.score:.3f} ± 0.010" in texts and "in 1.0 s" in texts and f"{best.trial} finished" in texts


def test_no_two_boxes_overlap(swept):
    svg = ElementTree.fromstring(tree_svg(grow_tree(*swept, OBJECTIVE), None))
    areas = [tuple(float(box.get(name)) for name in ("x", "y", "width", "height")) for box in svg.iter("rect")]
    for index, (x, y, width, height) in enumerate(areas):
        for other_x, other_y, other_width, other_height in areas[:index]:
            apart_x = x + width <= other_x or other_x + other_width <= x
            assert apart_x or y + height <= other_y or other_y + other_height <= y


def test_a_trial_comes_as_far_as_its_last_known_score():
    record = TrialRecord(trial="t", recipe="r", params={}, stage_ids=["a", "b"], stages=["pretrain_ce", "train_ce"])
    assert record.reached_ids() == []
    record.stage_scores = {"pretrain_ce": 0.5}
    assert record.reached_ids() == ["a"]
    record.stopped = Stopped(rung=Rung("train_ce"), stage_id="b", score=0.4, reason="worse")
    assert record.reached_ids() == ["a", "b"], "stopped by a stage that another trial had trained"
    record.stopped = Stopped(rung=Rung("train_ce", 2, 4), stage_id="b", score=0.4, reason="worse")
    assert record.reached_ids() == ["a"]


def test_a_page_of_many_trials_has_the_best_and_one_of_none_is_a_page(swept):
    trials, summaries = swept
    many = [replace(trials[0], trial=f"t{number:04d}") for number in range(MAX_TRIALS + 1)]
    assert f"The best {MAX_TRIALS} of {MAX_TRIALS + 1} trials are shown." in tree_page(many, summaries, OBJECTIVE, "s")
    assert "are shown" not in tree_page(many[:-1], summaries, OBJECTIVE, "s")
    assert "<svg" in tree_page([], {}, OBJECTIVE, "s") and "<svg" in tree_page(
        [replace(trials[0], stage_scores={}, stopped=None)], {}, OBJECTIVE, "s"
    )


def test_every_name_is_shown_as_text(swept):
    trials, summaries = swept
    named = [replace(record, trial=f"{HOSTILE}{record.trial}", recipe=HOSTILE) for record in trials]
    started = {stage_id: replace(item, start=HOSTILE) for stage_id, item in summaries.items()}
    page = Page(tree_page(named, started, OBJECTIVE, HOSTILE)).check()
    assert page.text.startswith(f"Stages of {HOSTILE}") and f"{HOSTILE}: {len(trials)} trials from" in page.text


def test_the_table_has_what_the_picture_shows(swept):
    trials, summaries = swept
    page = Page(tree_page(trials, summaries, OBJECTIVE, "s"))
    rows = page.source.split("<tbody>")[1].split("<tr>")[1:]
    assert sorted(row.split("<td>")[1].split("<")[0] for row in rows) == sorted(stage_id[:16] for stage_id in summaries)
    assert f"A tree of {len(summaries)} stages" in page.labels[0]


def test_a_stage_without_a_score_has_a_dash(swept):
    trials, _ = swept
    unscored = [replace(record, stage_scores=dict.fromkeys(record.stage_scores, float("nan"))) for record in trials]
    assert "nan" not in Page(tree_page(unscored, {}, OBJECTIVE, "s")).text


def test_recipes_do_not_overlap_where_their_first_weights_have_long_names(swept):
    trials, summaries = swept
    long = {stage_id: replace(item, start="a long name of first weights " * 5) for stage_id, item in summaries.items()}
    svg = ElementTree.fromstring(
        tree_svg(grow_tree([trials[0], next(t for t in trials if t.recipe != trials[0].recipe)], long, OBJECTIVE), None)
    )
    roots = [box for box in svg.iter("rect") if box.get("x") == "0.0"]
    first, second = ((float(box.get("y")), float(box.get("height"))) for box in roots)
    assert sum(first) <= second[0] and first[0] >= 0
    assert sum(second) <= float(svg.get("viewBox").split()[3])
