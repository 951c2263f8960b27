"""Stored stages with the configuration of those asked for are found, at any depth, and what differs is said."""

from dataclasses import replace

import pytest
from made_up import make_chain_builder, summary_of
from made_up_heads import taught_stages

from birdclef_core.models.encoders import PretrainedWeights
from birdclef_core.recipes import predictions
from birdclef_core.taxonomy import LabelSpace
from sweeps.plan.near_misses import find_lookalikes, lookalike_lines
from sweeps.replicates import Replicate
from sweeps.search.space import Search

TREE = make_chain_builder()
RECIPE = TREE.search.recipes[0]


def chain_of(chains, **params):
    return chains.chain(RECIPE.name, {**chains.search.baseline(RECIPE), **params})


def found(asked, stored, **changes):
    tasks = {task.stage_id: task for task in asked}
    return dict(find_lookalikes(tasks, {task.stage_id: summary_of(task, **changes) for task in stored}))


def test_other_code_is_found_in_the_whole_chain():
    stored = chain_of(make_chain_builder(code_version="0ld"))
    assert found(chain_of(TREE), stored) == {(("code", "0ld", "code"),): len(stored)}


def test_a_stage_that_differs_in_itself_or_in_an_ancestor_is_not_alike():
    stored = chain_of(make_chain_builder(code_version="0ld"))
    asked = chain_of(TREE, **{"train_ce.learning_rate": 0.005})
    assert found(asked, stored) == {(("code", "0ld", "code"),): 2}, "the two before train_ce"


def test_what_is_in_the_store_is_no_lookalike_and_an_empty_store_has_none():
    assert found(chain_of(TREE), chain_of(TREE)) == {} and found(chain_of(TREE), ()) == {}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"data_fingerprint": "d2"}, "trained on other data (recordings, labels, split or noise) (data, now d2)"),
        ({"target_species": LabelSpace.of("t", "abc")}, "trained for other species"),
        ({"pretrained": {RECIPE.model.encoder: PretrainedWeights("hub")}}, "started from other weights (random, now hub)"),
    ],
)
def test_other_data_species_and_first_weights_are_said(changes, what):
    lines = list(lookalike_lines(found(chain_of(make_chain_builder(**changes)), chain_of(TREE))))
    assert len(lines) == 1 and what in lines[0] and lines[0].endswith("trained again, not reused.")


def test_of_several_the_one_with_the_fewest_differences_counts():
    near, far = make_chain_builder(code_version="0ld"), make_chain_builder(code_version="older", data_fingerprint="d0")
    result = found(chain_of(TREE)[:1], [*chain_of(far)[:1], *chain_of(near)[:1]])
    assert result == {(("code", "0ld", "code"),): 1}
    assert list(lookalike_lines(result)) == [
        "  1 stage asked for is in the store as made by other code (0ld, now code): trained again, not reused.",
        "    `birdclef store adopt --from 0ld` reuses them if this code still trains the same weights.",
    ]


def test_a_stored_stage_whose_parent_is_gone_is_like_no_other():
    stored = chain_of(make_chain_builder(code_version="0ld"))[1:]
    assert found(chain_of(TREE), stored) == {}


def test_other_sources_are_said_and_other_shares_are_another_stage():
    """A stage that draws by sources depends on which recording came in which, and on the proportions of their shares alone."""

    def drawn(first: float, second: float, **changes):
        stage = replace(RECIPE.stages[0], sources=(("a", first), ("b", second)))
        search = Search(name="x", recipes=(replace(RECIPE, stages=(stage, *RECIPE.stages[1:])),), space={})
        return make_chain_builder(search, sources_fingerprint="before", **changes).chain(RECIPE.name, {})

    asked, whole = drawn(3.0, 1.0, code_version="new"), len(RECIPE.stages)
    lines = list(lookalike_lines(found(asked, drawn(0.75, 0.25))))
    assert len(lines) == 2 and f"{whole} of the stages" in lines[0] and "adopt --from code" in lines[1], "3 to 1 is .75 to .25"
    assert found(asked, drawn(0.5, 0.5)) == {}
    (line,) = lookalike_lines(found(asked, drawn(3.0, 1.0)[:1], sources="after"))
    assert "made by other code (code, now new) and trained on recordings of other sources (after, now before)" in line


def test_heads_are_alike_when_their_embeddings_are():
    """Of another encoder or window they are other stages, although their own settings are the same."""

    def heads(window_s: float, **changes):
        embed = predictions("embed", of="encoder:timm", on="recordings", window_s=window_s)
        recipe = replace(RECIPE, stages=(embed, replace(RECIPE.stages[-1], name="head", embeddings="embed")))
        return make_chain_builder(Search(name="x", recipes=(recipe,), space={}), **changes).chain(RECIPE.name, {})

    assert found(heads(5.0), heads(10.0)) == {}
    assert found(heads(5.0), heads(5.0, code_version="0ld")) == {(("code", "0ld", "code"),): 2}
    weights = {"pretrained": {RECIPE.model.encoder: PretrainedWeights("hub")}}
    assert found(heads(5.0), heads(5.0, **weights)) == {(("start", "hub", "random"),): 2}, "the head's encoder has other weights"


def test_stages_of_another_fold_of_the_same_trials_are_no_lookalikes():
    folds = tuple(Replicate.of_fold(number, f"data{number}") for number in range(2))
    asked = chain_of(make_chain_builder(replicates=folds))
    assert found(asked, chain_of(make_chain_builder(data_fingerprint="data0"))) == {}
    (difference, *_), *_ = found(asked, chain_of(make_chain_builder(data_fingerprint="data7")))
    assert difference[:2] == ("data", "data7")


def test_predictions_of_heads_and_their_students_are_alike_when_the_heads_are():
    def taught(**changes):
        stages = taught_stages(replace(RECIPE, stages=RECIPE.stages[1:4]), "timm", window_s=5.0)
        search = Search(name="x", recipes=(replace(RECIPE, stages=stages),), space={})
        return make_chain_builder(search, **changes).chain(RECIPE.name, {})

    assert found(taught(), taught(code_version="0ld")) == {(("code", "0ld", "code"),): 5}
