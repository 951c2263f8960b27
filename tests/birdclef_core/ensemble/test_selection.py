"""A candidate becomes a member for a gain that is more than chance, within the budget, and the first members are an ensemble too."""

import numpy as np
import pytest
from made_up_ensembles import made_up_rows

from birdclef_core.ensemble.ranks import RankedLogits
from birdclef_core.ensemble.selection import Rules, _Selection, select
from birdclef_core.errors import InputError


def cost(members) -> float:
    return 10.0 * len(members)


def members_of(selected) -> set[int]:
    return {candidate for candidate, _ in selected.members}


def test_candidates_that_help_each_other_enter_and_useless_ones_do_not():
    rows = made_up_rows(own=(1.0, 1.0, 8.0, 8.0))
    selected = select(rows, "auroc", cost, Rules(bag_share=1.0))
    assert members_of(selected) == {0, 1}
    assert selected.scores[1] > max(selected.singles) and selected.scores[0] in selected.singles
    weights = dict(selected.members)
    assert sum(weights.values()) == pytest.approx(1) and min(weights.values()) >= 0.25, "at least halfway to equal weights"


def test_copies_of_a_candidate_do_not_enter():
    rows = made_up_rows(own=(1.0, 6.0))
    copies = np.concatenate([rows.logits_KRC, rows.logits_KRC[:1], rows.logits_KRC[:1]])
    selected = select(made_up_rows(own=(1.0, 6.0), logits_KRC=copies), "auroc", cost, Rules(bag_share=1.0))
    assert len(selected.members) == 1 and selected.members[0][1] == 1


def test_a_gain_within_its_error_is_refused_and_told():
    rows = made_up_rows(own=(0.6,) * 8, files=4, windows=30)
    selected = select(rows, "auroc", cost, Rules(bag_share=1.0, max_members=8))
    assert 1 < len(selected.members) < 8
    gain, error = selected.refused_gain
    assert 0 < gain <= error


def test_with_one_file_no_gain_is_known_to_be_more_than_chance():
    rows = made_up_rows(own=(1.0, 1.0), files=1, windows=200)
    selected = select(rows, "auroc", cost, Rules(bag_share=1.0))
    assert len(selected.members) == 1 and np.isnan(selected.refused_gain[1])


@pytest.mark.parametrize(
    ("third_G", "members"), [((0.53, 0.53, 0.54, 0.53), [0, 1, 2]), ((0.53, 0.63, 0.43, 0.53), [0])], ids=["sure", "chance"]
)
def test_candidates_without_a_clear_gain_alone_enter_together(monkeypatch, third_G, members):
    """The second gains .01, which is chance, and the third .02 more."""
    rows = made_up_rows(own=(1.0, 1.0, 1.0))
    selection = _Selection(rows, RankedLogits(rows.truth_RC, rows.logits_KRC, "auroc"), "auroc", cost, Rules())
    scores, without_each = {1: 0.5, 2: 0.51, 3: 0.53}, {1: (0.5,) * 4, 2: (0.51, 0.61, 0.41, 0.51), 3: third_G}
    monkeypatch.setattr(selection, "_single_K", [0.5, 0.4, 0.4])
    monkeypatch.setattr(selection, "_best_addition", lambda have, _: (len(have), scores.get(len(have) + 1, -np.inf)))
    monkeypatch.setattr(selection, "_figures", lambda have, _: np.array([*without_each[len(have)], scores[len(have)]]))
    found, refused = selection._enter(0, np.ones(3))
    assert found == members
    assert refused is None if len(members) == 3 else refused[0] == pytest.approx(0.01)


@pytest.mark.parametrize("max_members", [1, 2, 3])
def test_there_are_never_more_members_than_asked_for(max_members):
    rows = made_up_rows(own=(1.0,) * 8)
    assert len(select(rows, "cmap", cost, Rules(max_members=max_members)).members) == max_members


def test_what_does_not_fit_into_the_budget_is_no_member():
    rows = made_up_rows(own=(0.5, 1.0, 1.0, 1.0))

    def dear_first(members) -> float:
        return sum(100.0 if member == 0 else 10.0 for member in members)

    assert 0 in members_of(select(rows, "auroc", dear_first, Rules(bag_share=1.0)))
    selected = select(rows, "auroc", dear_first, Rules(bag_share=1.0, budget_ms=25.0))
    assert 0 not in members_of(selected) and len(selected.members) == 2
    with pytest.raises(InputError, match=r"the cheapest takes 10\.0 ms .* the budget is 5\.0 ms"):
        select(rows, "auroc", dear_first, Rules(budget_ms=5.0))


def test_the_order_keeps_what_is_worth_most_for_its_time():
    rows = made_up_rows(own=(1.0, 1.0, 1.0))

    def dear_first(members) -> float:
        return sum(100.0 if member == 0 else 1.0 for member in members)

    for dear, last in ((dear_first, True), (cost, False)):
        selected = select(rows, "auroc", dear, Rules(bag_share=1.0))
        assert members_of(selected) == {0, 1, 2}
        if last:
            assert selected.members[-1][0] == 0
    first = selected.first(2)
    assert [candidate for candidate, _ in first] == [candidate for candidate, _ in selected.members[:2]]
    assert sum(weight for _, weight in first) == pytest.approx(1)


@pytest.mark.parametrize("metric", ["auroc", "cmap", "cmap_pad5", "lrap"])
def test_a_bag_finds_what_trying_all_in_every_round_finds(metric):
    rows = made_up_rows(own=(1.0, 1.1, 1.2, 1.3, 1.4, 1.5), files=5, windows=30)
    ranked = RankedLogits(rows.truth_RC, rows.logits_KRC, metric)
    found = _Selection(rows, ranked, metric, cost, Rules())._bag(range(6))
    counts, total_GN, score = np.zeros(6), np.zeros_like(ranked.values_KGN[0]), 0.0
    for _ in range(20):
        scores = [ranked.addition(total_GN, candidate) for candidate in range(6)]
        best = int(np.argmax(scores))
        if scores[best] <= score:
            break
        total_GN, score = total_GN + ranked.values_KGN[best], scores[best]
        counts[best] += 1
    ours = ranked.mixture([(candidate, share) for candidate, share in enumerate(found) if share])
    assert ours >= score - 0.002


@pytest.mark.parametrize("rules", [{"max_members": 0}, {"budget_ms": 0.0}, {"budget_ms": float("nan")}])
def test_rules_that_nothing_can_keep_are_refused(rules):
    with pytest.raises(InputError):
        Rules(**rules)
