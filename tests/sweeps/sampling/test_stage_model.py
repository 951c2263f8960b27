"""Final scores are foretold through the chain of stages and directly, against simulations, and the better foreteller counts more."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from made_up_facts import trial_of

from birdclef_core.recipes import cnn_b0ns, sed_v2s
from sweeps.sampling import stage_model
from sweeps.sampling.candidates import CandidateMaker
from sweeps.sampling.encoding import Encoding
from sweeps.sampling.stage_model import BY_STAGES, DIRECT, Bar, FittedProcesses, Foretold, StageModel, log_expected_improvement
from sweeps.search import Range, Search

SEARCH = Search(
    name="x",
    recipes=(sed_v2s(), cnn_b0ns()),
    space={
        "pretrain_ce.learning_rate": Range(1e-4, 1e-2, log=True),
        "train_ce.learning_rate": Range(1e-4, 1e-2, log=True),
        "finetune.learning_rate": Range(1e-4, 1e-2, log=True),
    },
)
NAME = "sed_v2s"
STAGES = {recipe.name: [stage.name for stage in recipe.stages] for recipe in SEARCH.recipes}
ENCODING = Encoding(SEARCH)


def drawn(count: int, num_scores: int = 5, *, recipe: str = NAME, first: int = 0, **changes) -> list:
    """Trials whose scores follow from their parameters and from the stage before."""
    generator = random.Random(first)
    trials = []
    for number in range(first, first + count):
        params = SEARCH.draw(SEARCH.recipe(recipe), generator)
        start = 0.05 * math.log10(params.get("pretrain_ce.learning_rate", 1e-3) / 1e-3)
        scores = [0.5 + start + 0.02 * index + 0.005 * generator.gauss(0, 1) for index in range(num_scores)]
        trials.append(trial_of(SEARCH, number, recipe, params, scores, **changes))
    return trials


def model_of(trials, fitted: FittedProcesses | None = None) -> StageModel:
    maker = CandidateMaker(SEARCH, ENCODING)
    vectors = {trial.trial: maker.vector(trial) for trial in trials}
    return StageModel(STAGES, ENCODING, trials, vectors, fitted or FittedProcesses())


def foretell(model: StageModel, trials, depth: int = 0, score: float = 0.0) -> Foretold:
    maker = CandidateMaker(SEARCH, ENCODING)
    x_CD = np.array([maker.vector(trial) for trial in trials])
    return model.foretell(trials[0].recipe, x_CD, np.full(len(trials), depth), np.full(len(trials), score))


@pytest.mark.parametrize(
    ("z", "expected"),
    [
        (-300.0, -45012.32653681455),
        (-100.0, -5010.12957880025),
        (-50.001, -1258.794223320196),
        (-49.999, -1258.694143415929),
        (-40.0, -808.29856835662),
        (-10.0, -55.55312203612236),
        (-1.001, -2.487025657955389),
        (-0.999, -2.483217115447585),
        (0.0, -0.9189385332046727),
        (1.0, 0.08002621884930694),
        (10.0, 2.302585092994046),
        (50.0, 3.912023005428146),
        (1e6, 13.81551055796427),
    ],
)
def test_the_logarithm_of_the_expected_improvement_is_right_far_from_zero(z, expected):
    """Expected values were computed with 60 digits."""
    with np.errstate(all="raise", under="ignore"):
        found = float(log_expected_improvement(np.array([z]))[0])
    assert found == pytest.approx(expected, rel=1e-9 if z > -50 else 0, abs=1e-9 if z > -50 else 2e-3)


def test_the_expected_improvement_is_that_of_a_simulation_of_the_mixture():
    model = model_of(drawn(8))
    model.bar, model.stage_share = Bar.of([0.5], None), 0.3
    means, deviations = {BY_STAGES: np.array([0.52, 0.3]), DIRECT: np.array([0.4, 0.45])}, {BY_STAGES: 0.05, DIRECT: 0.1}
    foretold = Foretold(mean=means, deviation={name: np.full(2, value) for name, value in deviations.items()}, noise=0.0)
    generator = np.random.default_rng(0)
    simulated = sum(
        share
        * np.maximum(means[name][:, None] + deviations[name] * generator.standard_normal((2, 400_000)) - 0.5, 0).mean(axis=1)
        for name, share in ((BY_STAGES, 0.3), (DIRECT, 0.7))
    )
    np.testing.assert_allclose(np.exp(model.log_improvement(foretold)), simulated, rtol=0.02)


def test_an_open_trial_is_awaited_with_the_score_that_it_has_before_its_next_stage():
    """The variance at a candidate depends on the score before it, so it must be the open trial's own."""
    trials, (own,) = drawn(12), drawn(1, 2, first=40, state="open")
    own = replace(own, scores=[0.5, 0.9])
    process = model_of([*trials, own])._processes["train_ce"]
    assert process._before_N[-1] == pytest.approx(float(process.standardise(np.array([0.9]))[0])) and process._before_N[-1] > 1
    assert model_of([*trials, own])._processes["train_bce"]._before_N[-1] == 0.0, "nobody knows its later ones"


def test_length_scales_of_many_scores_are_those_of_all_but_the_newest_and_fitted_in_steps():
    trials = drawn(66)
    lengths, observed = {}, {}
    for count in (47, 48, 55, 56, 63, 64, 66):
        model = model_of(trials[:count])
        lengths[count], observed[count] = model._direct.length_G.tolist(), len(model._direct.smoothed_N)
    assert observed == {count: count for count in observed}, "all scores count"
    assert lengths[47] != lengths[48] == lengths[55] == model_of(trials[:40])._direct.length_G.tolist()
    assert lengths[55] != lengths[56] == lengths[63] != lengths[64] == lengths[66]


def test_with_a_cost_the_expected_improvement_is_that_of_the_area_under_the_front():
    """Against a simulation: the area above the front, over the logarithm of the cost from the candidate's to the end."""
    model = model_of(drawn(8))
    scores, costs = [0.5, 0.6, 0.55, 0.2], [2.0, 8.0, 16.0, 4.0]
    model.bar, model.stage_share = Bar.of(scores, costs), 1.0
    cost_C, mean_C, deviation = np.array([1.0, 2.0, 3.0, 8.0, 20.0, 40.0]), np.full(6, 0.52), 0.08
    foretold = Foretold(
        mean=dict.fromkeys((BY_STAGES, DIRECT), mean_C),
        deviation=dict.fromkeys((BY_STAGES, DIRECT), np.full(6, deviation)),
        noise=0.0,
    )
    drawn_N = 0.52 + deviation * np.random.default_rng(0).standard_normal(200_000)
    grid = np.linspace(math.log(0.5), math.log(32), 4000)
    beaten = np.array([max([0.2, *(s for s, c in zip(scores, costs, strict=True) if c <= math.exp(at))]) for at in grid])
    gain = {bar: np.maximum(drawn_N - bar, 0).mean() for bar in set(beaten)}
    step = grid[1] - grid[0]
    expected = [sum(gain[bar] for at, bar in zip(grid, beaten, strict=True) if at >= math.log(cost)) * step for cost in cost_C]
    found = np.exp(model.log_improvement(foretold, cost_C))
    np.testing.assert_allclose(found[:5], expected[:5], rtol=0.02)
    assert found[5] == 0, "more than twice the costliest"
    assert model.best == 0.6
    model.bar = Bar.of(scores, costs, costliest=40.0)
    later = np.exp(model.log_improvement(foretold, cost_C))
    assert later[5] == pytest.approx(gain[0.6] * math.log(2), rel=0.02), (
        "the costliest model of the space, which no trial has yet"
    )


def test_trials_with_costs_set_the_bar_and_those_of_the_front_are_among_many_observations():
    trials = [replace(trial, cost=1.0 + number % 3) for number, trial in enumerate(drawn(9))]
    bar = model_of(trials).bar
    assert np.exp(bar.log_cost_R).tolist() == pytest.approx(sorted({0.0, *np.exp(bar.log_cost_R)})) and len(bar.score_R) >= 2
    assert bar.log_end == pytest.approx(math.log(6))
    assert len(model_of(drawn(9)).bar.score_R) == 1, "without costs there is one range"
    items = [stage_model._Observation(trial=replace(trials[0], trial=f"t{n}"), index=0, score=1 - n / 1000) for n in range(1000)]
    assert not any(item.trial.trial == "t501" for item in stage_model._capped(items))
    assert any(item.trial.trial == "t501" for item in stage_model._capped(items, {"t501"}))


@pytest.mark.parametrize("depth", [0, 2, 4])
def test_a_chain_of_processes_has_the_mean_and_deviation_of_a_simulation(depth):
    """A stage starts from the score before as it would be measured, with its noise; the last score is foretold without noise."""
    trials = drawn(14)
    model, others, score = model_of(trials), drawn(3, first=50), 0.47
    found = foretell(model, others, depth, score)
    generator, (maker, samples) = np.random.default_rng(0), (CandidateMaker(SEARCH, ENCODING), 150_000)
    x_CD = np.array([maker.vector(trial) for trial in others])
    value_CS = np.full((3, samples), score if depth else math.nan)
    for index, stage in enumerate(STAGES[NAME]):
        if index < depth:
            continue
        process = model._processes[stage]
        terms, z_CS = process.terms(ENCODING.until(NAME, index, x_CD)), process.standardise(value_CS)
        spread_CS = terms.variance_C[:, None] + 2 * terms.mixed_C[:, None] * z_CS + terms.square * z_CS**2
        noise = math.sqrt(process.noise2) if index < 4 else 0.0
        made_CS = terms.mean_C[:, None] + terms.slope * z_CS
        made_CS = (
            made_CS + np.sqrt(spread_CS) * generator.standard_normal(z_CS.shape) + noise * generator.standard_normal(z_CS.shape)
        )
        value_CS = process.centre + process.scale * made_CS
    np.testing.assert_allclose(found.mean[BY_STAGES], value_CS.mean(axis=1), atol=0.02 * value_CS.std())
    np.testing.assert_allclose(found.deviation[BY_STAGES], value_CS.std(axis=1), rtol=0.02)


def test_the_direct_model_sees_all_parameters_and_no_stage():
    trials = drawn(14)
    model, others = model_of(trials), drawn(3, first=50)
    one, other = foretell(model, others), foretell(model, others, 3, 0.9)
    np.testing.assert_array_equal(one.mean[DIRECT], other.mean[DIRECT])
    assert (other.mean[BY_STAGES] > one.mean[BY_STAGES]).all(), "a better score at the end of train_ce leads to a better one"
    assert np.corrcoef(foretell(model, trials).mean[DIRECT], [trial.final for trial in trials])[0, 1] > 0.8
    assert one.noise == pytest.approx(model._direct.scale * math.sqrt(model._direct.noise2))


def test_of_a_stage_that_nobody_has_reached_only_the_range_of_final_scores_is_known():
    trials = drawn(6, 1, recipe="cnn_b0ns")
    model, others = model_of(trials), drawn(2, first=50)
    found = foretell(model, others, 3, 0.9)
    finals = [trial.final for trial in trials]
    np.testing.assert_allclose(found.mean[BY_STAGES], np.mean(finals))
    np.testing.assert_allclose(found.deviation[BY_STAGES], np.std(finals))
    assert np.isfinite(foretell(model, others).mean[BY_STAGES]).all()


def test_recipes_that_skip_stages_share_the_processes_of_those_that_they_have():
    trials = [*drawn(6), *drawn(6, 1, recipe="cnn_b0ns", first=6)]
    model = model_of(trials)
    assert set(model._processes) == set(STAGES[NAME])
    assert len(model._processes["train_ce"].smoothed_N) == 12 and len(model._processes["finetune"].smoothed_N) == 6
    assert len(model._direct.smoothed_N) == 12
    assert model._processes["pretrain_ce"]._before_N is None and model._processes["train_ce"]._before_N is not None
    assert model._processes["train_ce"]._before_N[6:] == pytest.approx(0), "without a stage before, its score says nothing"


def test_one_pretraining_does_not_make_it_sure_of_all_others():
    """Only one stage of the name has a score: others may end anywhere about as widely as final scores do."""
    (one, *_) = drawn(1)
    late = [{**one.params, "finetune.learning_rate": rate} for rate in (1e-4, 1e-3, 3e-3, 1e-2)]
    scores = [[0.5, 0.5, 0.5, 0.5, final] for final in (0.40, 0.48, 0.55, 0.45)]
    trials = [
        trial_of(SEARCH, number, NAME, params, item) for number, (params, item) in enumerate(zip(late, scores, strict=True))
    ]
    model = model_of(trials)
    assert len(model._processes["pretrain_ce"].smoothed_N) == len(model._processes["train_bce"].smoothed_N) == 1
    other = [replace(one, params={**one.params, "pretrain_ce.learning_rate": 3e-3})]
    spread = np.std([trial.final for trial in trials])
    assert foretell(model, other).deviation[BY_STAGES] > 0.5 * spread
    assert model._processes["pretrain_ce"].scale > 0.5 * spread


def test_equal_scores_end_nothing():
    trials = [replace(trial, scores=[0.4] * 5, final=0.4) for trial in drawn(5)]
    model = model_of(trials)
    found = foretell(model, drawn(3, first=50))
    assert np.isfinite(model.log_improvement(found)).all() and model.best == pytest.approx(0.4)


def test_open_trials_narrow_variances_and_change_no_mean():
    trials, (waits,) = drawn(10), drawn(1, 2, first=70)
    before, after = model_of([*trials, replace(waits, state="ended")]), model_of([*trials, waits])
    for depth, score in ((0, 0.0), (2, waits.scores[1])):
        one, other = foretell(before, [waits], depth, score), foretell(after, [waits], depth, score)
        np.testing.assert_allclose(other.mean[DIRECT], one.mean[DIRECT])
        assert other.deviation[BY_STAGES] < one.deviation[BY_STAGES] and other.deviation[DIRECT] < one.deviation[DIRECT]
    np.testing.assert_allclose(other.mean[BY_STAGES], one.mean[BY_STAGES])
    assert after.best == before.best


def test_a_model_that_grew_is_the_same_as_one_that_was_made_at_once():
    """A resumed driver fits everything anew, and draws what the one before would have drawn."""
    trials, fitted = drawn(14), FittedProcesses()
    for number in (4, 5, 9, 14):
        grown, fresh = model_of(trials[:number], fitted), model_of(trials[:number])
        for name in (BY_STAGES, DIRECT):
            one, other = (foretell(model, drawn(3, first=50)) for model in (grown, fresh))
            np.testing.assert_array_equal(one.mean[name], other.mean[name])
            np.testing.assert_array_equal(one.deviation[name], other.deviation[name])


def test_a_stage_without_new_scores_keeps_its_process():
    trials, fitted = drawn(10), FittedProcesses()
    before = model_of(trials, fitted)
    (more,) = drawn(1, 2, first=70)
    after = model_of([*trials, replace(more, state="ended")], fitted)
    assert after._processes["finetune"] is before._processes["finetune"] and after._direct is before._direct
    assert after._processes["pretrain_bce"] is not before._processes["pretrain_bce"]


def test_a_stage_that_trials_share_is_one_observation():
    (one, *_) = drawn(1)
    late = [{**one.params, "finetune.learning_rate": rate} for rate in (1e-4, 1e-3, 3e-3, 1e-2)]
    trials = [
        trial_of(SEARCH, number, NAME, params, [0.5, 0.5, 0.5, 0.5, 0.5 + number / 100]) for number, params in enumerate(late)
    ]
    found = model_of(trials)._observations(trials)
    assert {stage: len(items) for stage, items in found.items()} == dict.fromkeys(STAGES[NAME][:4], 1) | {"finetune": 4}
    assert math.isnan(found["pretrain_ce"][0].before) and found["finetune"][3].before == 0.5


def failed(number: int, num_scores: int):
    (trial,) = drawn(1, num_scores, first=number)
    return replace(trial, state="failed")


def test_a_stage_that_failed_counts_as_much_as_the_lowest_score_there():
    trials = [*drawn(5), failed(60, 2), failed(61, 4)]
    model = model_of(trials)
    found = model._observations(trials)
    lowest = {stage: min(trial.scores[index] for trial in trials[:5]) for index, stage in enumerate(STAGES[NAME])}
    assert [item.score for item in found["train_ce"]][5:] == [lowest["train_ce"], trials[6].scores[2]]
    assert [item.score for item in found["finetune"]][5:] == [lowest["finetune"]], "the first of them never came so far"
    assert len(model._direct.smoothed_N) == 7 and model.best == pytest.approx(model_of(trials[:5]).best, abs=0.02)
    one, other = (foretell(item, [trials[5]]) for item in (model_of(trials[:5]), model))
    assert other.mean[DIRECT] < one.mean[DIRECT]


def test_a_failure_of_a_stage_that_somebody_has_trained_since_does_not_count():
    trials, fitted = drawn(5), FittedProcesses()
    fails = failed(60, 2)
    again = replace(drawn(1, 5, first=60)[0], trial="again")
    before, after = model_of([*trials, fails], fitted), model_of([*trials, fails, again], fitted)
    assert before._observations([*trials, fails])["train_ce"][-1].score < again.scores[2]
    assert [item.score for item in after._observations([*trials, fails, again])["train_ce"]][5:] == [again.scores[2]]
    fresh = model_of([*trials, fails, again])
    np.testing.assert_array_equal(after._processes["train_ce"].smoothed_N, fresh._processes["train_ce"].smoothed_N)


def test_a_stage_that_only_failed_is_unknown():
    trials = [*drawn(5, 1, recipe="cnn_b0ns"), failed(60, 0)]
    assert set(model_of(trials)._processes) == {"train_ce"}


def test_of_many_observations_the_best_the_newest_and_some_others_are_seen():
    trials = drawn(1)
    items = [stage_model._Observation(trial=trials[0], index=0, score=score) for score in (*np.linspace(1, 0, 700), *[0.5] * 300)]
    kept = stage_model._capped(items)
    places = [index for index, item in enumerate(items) if any(item is other for other in kept)]
    assert len(kept) == 240 and [items[index] for index in places] == kept, "in their order"
    assert places[:80] == list(range(80)) and places[-80:] == list(range(920, 1000))
    assert np.diff(places[80:160]).max() < 15, "the others from everywhere between"
    assert stage_model._capped(items[:240]) == items[:240]


def with_foretold(final: float, by_stages: tuple[float, float], direct: tuple[float, float]):
    (trial,) = drawn(1)
    return replace(trial, final=final, foretold={BY_STAGES: by_stages, DIRECT: direct})


def test_the_model_that_has_foretold_better_counts_more():
    assert stage_model.share_of_stages(drawn(5)) == 0.5, "nothing was foretold"
    better, worse = with_foretold(0.5, (0.5, 0.1), (0.6, 0.1)), with_foretold(0.5, (0.6, 0.1), (0.5, 0.1))
    assert stage_model.share_of_stages([better]) == pytest.approx(1 / (1 + math.exp(-0.5)))
    assert stage_model.share_of_stages([worse]) == pytest.approx(1 / (1 + math.exp(0.5)))
    assert stage_model.share_of_stages([worse, better]) == pytest.approx(1 / (1 + math.exp(-0.5 * 0.03)), rel=1e-6), (
        "older ones fade"
    )
    far = with_foretold(0.5, (0.5, 0.01), (0.9, 0.01))
    assert stage_model.share_of_stages([far]) == pytest.approx(1 / (1 + math.exp(-3))), "one trial does not decide"
    wide = with_foretold(0.5, (0.5, 0.1), (0.5, 0.2))
    assert stage_model.share_of_stages([wide]) == pytest.approx(2 / 3), "and it counts how sure they were"
    assert model_of([*drawn(5), better]).stage_share > 0.5
