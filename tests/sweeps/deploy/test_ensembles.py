"""An ensemble is chosen from stored stages, on data that trained none of them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from made_up_detector import tiny_config, write_sound
from made_up_ensembles import SPECIES_OF_TONES, STAGE_CONFIG, Place, make_place, save_folds
from made_up_heads import head_chain, train_chain, write_encoder
from made_up_records import SEARCH
from made_up_store import save_trial, store

from birdclef_core.data.dataset import load_dataset
from birdclef_core.data.targets import validation_truth
from birdclef_core.ensemble.record import write_record
from birdclef_core.ensemble.scores import ENSEMBLE, SINGLE, judge
from birdclef_core.ensemble.selection import Rules, Selected
from birdclef_core.errors import InputError
from birdclef_core.evaluation.metrics import auroc
from birdclef_core.identity import canonical
from birdclef_core.inference.logits import deployed_logits
from birdclef_core.inference.run.predictor import Predictor
from birdclef_core.store.recordings_table import write_recordings
from birdclef_core.taxonomy import LabelSpace
from sweeps.cli.birdclef import birdclef
from sweeps.deploy import ensembles
from sweeps.deploy.ensembles import EnsembleWish, choose_ensemble, weights_of_first
from sweeps.deploy.loading import load_detector
from sweeps.execution.audio_cache import AudioCache
from sweeps.execution.recordings_list import RecordingsList, list_soundscapes
from sweeps.schedule.records import SweepRecords

OTHER_DATA = "e" * 64


@pytest.fixture(scope="module")
def place(tone_data, tmp_path_factory) -> Place:
    return make_place(tmp_path_factory.mktemp("ensemble"), tone_data.dataset.root)


def choose(place: Place, *references: str, said=None, **values):
    wish = EnsembleWish(references=references, storage=place.storage.root, cache_dir=str(place.cache), device="cpu", **values)
    return choose_ensemble(wish, (said if said is not None else []).append, lambda title: lambda done, total: None)


def test_an_ensemble_is_chosen_on_soundscapes_and_can_be_loaded(place, tmp_path):
    chosen = choose(place, "s")
    record = chosen.record
    assert (record.selected_on, record.metric, record.objective) == ("soundscapes", "auroc", "val/cmap")
    assert len(chosen.candidates) == 3 and record.species == SPECIES_OF_TONES
    assert all(member.cpu_ms_per_window > 0 for member in record.members)
    assert record.storage == place.storage.root and record.data_fingerprint == place.fingerprint
    scores = record.scores
    assert scores.apparent.num_rows == 12 and scores.apparent.num_groups == 4 and scores.cross_fitted.value is not None
    assert scores.untouched.reason == "no untouched data: val/cmap is the objective of s"
    assert set(chosen.locations) == {member.stage_id for member in record.members}


def test_scores_are_those_of_what_is_deployed(place):
    """The best single candidate scores what its detector scores on the same files."""
    chosen = choose(place, "s", rules=Rules(max_members=1))
    detector = load_detector(chosen.record.members[0].stage_id, storage=place.storage.root, device="cpu")
    rows = detector.predict(place.data / "test_soundscapes", threshold=0.0)
    table = rows.pivot_table(index=["file", "start_s"], columns="species", values="score")
    truth_RC = load_dataset(place.data).soundscapes.truth(LabelSpace.of("deployed", SPECIES_OF_TONES))
    assert chosen.record.scores.apparent.value == pytest.approx(auroc(truth_RC, table.to_numpy()), abs=0.03)
    assert chosen.verdict.way(SINGLE).members[0][0] == int(np.argmax(chosen.verdict.selected.singles))


def test_soundscapes_that_trained_a_candidate_neither_select_nor_are_untouched(tone_data, tmp_path):
    place = make_place(tmp_path, tone_data.dataset.root)
    learnt = list_soundscapes(load_dataset(place.data).soundscapes)[:2]
    write_recordings(store(place.storage).storage, OTHER_DATA, learnt)
    stage = STAGE_CONFIG | {"soundscape_share": 0.3}
    place.publish("9" * 64, identity={"model": canonical(tiny_config("sed")), "stage": stage, "data": OTHER_DATA}, trained_by="")
    with pytest.raises(InputError, match="Soundscapes that select an ensemble must not have trained a candidate, but 2 trained"):
        choose(place, "s", "9999", data=place.data)
    chosen = choose(place, "s", "9999", data=place.data, select_on="recordings")
    assert chosen.record.scores.untouched.value is None and "2 trained" in chosen.record.scores.untouched.reason


def test_selected_on_recordings_soundscapes_are_untouched(place):
    chosen = choose(place, "s", select_on="recordings")
    assert (chosen.record.selected_on, chosen.record.metric) == ("recordings", "cmap")
    untouched = chosen.record.scores.untouched
    assert (untouched.source, untouched.metric, untouched.num_rows) == (
        "soundscapes",
        "auroc",
        12,
    ) and untouched.value is not None
    assert chosen.verdict.way(ENSEMBLE).scores == chosen.record.scores


def test_few_soundscapes_do_not_decide_unless_they_are_asked_to(tone_data, tmp_path):
    place, said = make_place(tmp_path, tone_data.dataset.root, files=1, trials=2), []
    assert choose(place, "s", said=said).record.selected_on == "recordings"
    assert any("4 labelled files are needed" in text and "has 1." in text for text in said)
    alone = choose(place, "s", select_on="soundscapes").record
    assert len(alone.members) == 1 and alone.scores.cross_fitted.reason == "all rows are of one soundscape file"


def test_without_soundscapes_recordings_decide(tone_data, tmp_path):
    place = make_place(tmp_path, tone_data.dataset.root, files=0, trials=2)
    record = choose(place, "s").record
    assert record.selected_on == "recordings"
    assert record.scores.untouched.reason == "no untouched data: there are no labelled soundscapes"
    with pytest.raises(InputError, match="--select-on soundscapes needs labelled soundscapes"):
        choose(place, "s", select_on="soundscapes")


def test_a_candidate_that_was_trained_on_validation_recordings_is_refused(place):
    """It is of another fold: what validates the others trained it."""
    dataset = load_dataset(place.data)
    table = RecordingsList(store(place.storage).storage, dataset, place.fingerprint).table
    others = load_dataset(place.data, fold=1).recordings["is_validation"].to_numpy()
    write_recordings(store(place.storage).storage, OTHER_DATA, table.assign(is_validation=others))
    identity = {"model": canonical(tiny_config("sed")), "stage": STAGE_CONFIG, "data": OTHER_DATA}
    place.publish("f" * 64, identity=identity, seed=9)
    number = int(dataset.recordings["is_validation"].sum())
    with pytest.raises(
        InputError, match=rf"must not have trained a candidate, but {number} of {number} trained tiny train_bce ffffffffffff"
    ):
        choose(place, "s", "ffff", select_on="recordings", data=place.data)
    chosen = choose(place, "s", "ffff", data=place.data)
    assert len(chosen.candidates) == 4, "soundscapes trained nobody"
    assert "trained tiny train_bce ffffffffffff" in chosen.record.scores.untouched.reason


@pytest.fixture(scope="module")
def folded(tone_data, tmp_path_factory) -> Place:
    place = make_place(tmp_path_factory.mktemp("folded"), tone_data.dataset.root, trials=0)
    save_folds(place)
    return place


def heard(place: Place, stage_id: str, fold: int) -> np.ndarray:
    """What a stage says of the validation recordings of a fold."""
    data = AudioCache(folder=place.cache).build(load_dataset(place.data, fold=fold))
    detector = load_detector(stage_id, storage=place.storage.root, device="cpu").detector
    return deployed_logits(store(place.storage), detector, data, data.dataset.fingerprint).recordings_RC


def authors(place: Place, fold: int) -> list[str]:
    """The author of each recording that scores in a fold."""
    dataset = load_dataset(place.data, fold=fold)
    rows_R, _ = validation_truth(dataset, LabelSpace.of("deployed", SPECIES_OF_TONES))
    return dataset.recordings["group"].iloc[rows_R].tolist()


def test_trials_with_folds_are_compared_on_recordings_that_each_model_did_not_learn_from(folded, monkeypatch):
    """Each recording of each fold scores the model of this fold alone; the ensemble has the models of all folds."""
    problems, said = [], list[str]()
    monkeypatch.setattr(ensembles, "judge", lambda problem, rest: (problems.append((problem, rest)), judge(problem, rest))[1])
    chosen = choose(folded, "s", select_on="recordings", said=said)
    ((problem, untouched),) = problems
    own = [np.concatenate([heard(folded, digit * 64, fold) for fold, digit in enumerate(digits)]) for digits in ("12", "34")]
    order = ["12", "34"] if chosen.candidates[0].of_trial.record.trial == "t0000" else ["34", "12"]
    assert np.array_equal(problem.rows.logits_KRC, np.stack(own if order[0] == "12" else own[::-1]))
    groups = [author for fold in range(2) for author in authors(folded, fold)]
    assert problem.rows.group_R.tolist() == groups and len(set(groups)) > len(set(authors(folded, 0)))
    record = chosen.record
    assert (record.folds, record.selected_on, record.scores.apparent.num_rows) == ((0, 1), "recordings", len(own[0]))
    chosen_ids = {
        stage_id for candidate, _ in chosen.verdict.selected.members for stage_id in chosen.candidates[candidate].stage_ids
    }
    assert {member.stage_id for member in record.members} == chosen_ids and len(chosen_ids) == len(record.members)
    for candidate, weight in chosen.verdict.selected.members:
        shares = [member.weight for member in record.members if member.stage_id in chosen.candidates[candidate].stage_ids]
        assert shares == pytest.approx([weight / 2] * 2)
    text = f"Out of fold: {len(own[0])} recordings of 2 folds decide, each by the model of a trial that did not learn from it."
    assert any(line.startswith(text) and "all models of each trial will hear" in line for line in said)
    assert untouched.logits_KRC.shape[1] == 12 and record.scores.untouched.value is not None


def test_the_cost_of_a_trial_is_that_of_all_its_models(folded):
    """And soundscapes are heard by all of them, as in the ensemble that is written."""
    chosen = choose(folded, "s", select_on="recordings", rules=Rules(max_members=1))
    (first, second), (point,) = chosen.record.members, chosen.verdict.first
    assert point.cost_ms == pytest.approx(first.cpu_ms_per_window + second.cpu_ms_per_window)
    assert second.cpu_ms_per_window < first.cpu_ms_per_window, "the second has the decibels of the first"
    detector = load_detector_of(folded, chosen)
    assert len(detector.members) == 2
    truth_RC = load_dataset(folded.data).soundscapes.truth(LabelSpace.of("deployed", SPECIES_OF_TONES))
    rows = Predictor(detector).predict(folded.data / "test_soundscapes", threshold=0.0)
    table = rows.pivot_table(index=["file", "start_s"], columns="species", values="score")
    assert chosen.record.scores.untouched.value == pytest.approx(auroc(truth_RC, table.to_numpy()), abs=0.03)
    with pytest.raises(InputError, match="--budget must leave time for one candidate"):
        choose(folded, "s", select_on="recordings", rules=Rules(budget_ms=point.cost_ms * 0.2))


def load_detector_of(place: Place, chosen):
    path = place.cache / "ensemble.json"
    write_record(chosen.record, path)
    return load_detector(path, storage=place.storage.root, device="cpu").detector


def test_a_model_of_all_recordings_may_hear_in_place_of_those_of_folds(folded, monkeypatch):
    """It is chosen by what the models of the folds score, and its own sound on soundscapes is scored."""
    identity = {"model": canonical(tiny_config("sed")), "stage": STAGE_CONFIG, "data": "a" * 64}
    folded.publish("a" * 64, identity=identity, seed=9)
    refit = store(folded.storage).record("a" * 64)
    monkeypatch.setattr(ensembles, "find_refit", lambda stages, trial, found: refit if trial.trial == "t0000" else None)
    said: list[str] = []
    one, plain = (choose(folded, "s/t0000", select_on="recordings", refit=value, said=said) for value in (True, False))
    assert [member.stage_id[0] for member in one.record.members] == ["a"] and len(plain.record.members) == 2
    assert one.record.scores.apparent == plain.record.scores.apparent
    assert one.record.scores.untouched != plain.record.scores.untouched and one.record.scores.untouched.value is not None
    assert any("a model of each trial that was trained on all recordings will hear" in line for line in said)
    choose(folded, "s", select_on="recordings", refit=True, said=said)
    assert any(
        "no model of all recordings of s/t0001: where chosen" in line and "birdclef refit s/t0001" in line for line in said
    )
    with pytest.raises(InputError, match="--refit is for trials of sweeps with --folds where recordings decide"):
        choose(folded, "s", select_on="soundscapes", refit=True)


def test_where_soundscapes_decide_all_models_of_folds_are_candidates(folded):
    chosen = choose(folded, "s", select_on="soundscapes")
    assert len(chosen.candidates) == 4 and not chosen.record.folds and not chosen.means_of_folds


def test_a_trial_with_a_model_that_learned_from_its_own_fold_is_refused(tone_data, tmp_path):
    """By its start stage, for one: what that was trained on counts as much as what the model itself was trained on."""
    place = make_place(tmp_path, tone_data.dataset.root, trials=0)
    save_folds(place)
    dataset = load_dataset(place.data)
    table = RecordingsList(store(place.storage).storage, dataset, place.fingerprint).table
    write_recordings(store(place.storage).storage, OTHER_DATA, table.assign(is_validation=False))
    identity = {"model": canonical(tiny_config("sed")), "stage": STAGE_CONFIG, "data": OTHER_DATA}
    place.publish("9" * 64, identity=identity, seed=9)
    other = dataset.of_fold(1)
    place.publish("b" * 64, identity=identity | {"data": other.fingerprint}, parent_id="9" * 64, seed=3)
    names = [f"train_bce@fold{fold}" for fold in range(2)]
    save_trial(place.storage, "t0002", ["3" * 64, "b" * 64], stages=names, kinds=["target bce"] * 2, score=0.5)
    number = int(other.recordings["is_validation"].sum())
    with pytest.raises(InputError, match=rf"{number} of {number} trained tiny train_bce s/t0002"):
        choose(place, "s", select_on="recordings")
    assert len(choose(place, "s/t0000", "s/t0001", select_on="recordings").candidates) == 2


def test_repetitions_are_candidates_of_the_same_recordings(tone_data, tmp_path):
    place = make_place(tmp_path, tone_data.dataset.root, trials=0)
    records = SweepRecords(place.storage.at("s"))
    record = records.load_sweep()
    records.save_sweep(replace(record, options=replace(record.options, repeats=2)))
    for digit in "12":
        place.publish(digit * 64, seed=int(digit))
    names = [f"train_bce@repeat{number}" for number in range(2)]
    save_trial(place.storage, "t0000", ["1" * 64, "2" * 64], stages=names, kinds=["target bce"] * 2, score=0.5)
    chosen = choose(place, "s", select_on="recordings")
    assert len(chosen.candidates) == 2 and not chosen.record.folds


def test_the_models_of_a_member_share_its_weight_also_where_only_some_run():
    selected = Selected(((4, 0.6), (2, 0.4)), (0.5, 0.6), (0.5,) * 5, None)
    weights = weights_of_first(selected, [2, 3])
    assert weights[:2] == ((1.0,), (0.5, 0.5))
    assert weights[2] == pytest.approx((0.3, 0.3, 0.4)) and weights[3] == pytest.approx((0.3, 0.3, 0.2, 0.2))
    assert weights[4] == pytest.approx((0.3, 0.3, *[0.4 / 3] * 3))


def test_what_trained_a_candidate_may_be_unknown(place):
    identity = {"model": canonical(tiny_config("sed")), "stage": STAGE_CONFIG, "data": "c" * 64}
    place.publish("d" * 64, identity=identity)
    said: list[str] = []
    chosen = choose(place, "dddd", data=place.data, said=said, rules=Rules(max_members=1))
    assert any(
        text.startswith("Scores on recordings may be too good: it is not known which recordings trained tiny") for text in said
    )
    assert "it is not known which recordings trained" in chosen.record.scores.untouched.reason
    assert choose(place, "dddd", data=place.data, select_on="recordings").record.selected_on == "recordings"


def test_stages_of_other_soundscapes_are_refused(place, tone_data, tmp_path):
    identity = {"model": canonical(tiny_config("sed")), "stage": STAGE_CONFIG, "data": OTHER_DATA}
    place.publish("e" * 64, identity=identity)
    with pytest.raises(InputError, match="must be named with --data"):
        choose(place, "s", "eeee")


def test_data_that_have_changed_are_refused_and_can_be_named(tone_data, tmp_path):
    place = make_place(tmp_path, tone_data.dataset.root, trials=2)
    write_sound(place.data / "test_soundscapes" / "s0.wav", 20.0)
    with pytest.raises(InputError, match=r"but they have changed since\. To score them as they are now, give --data"):
        choose(place, "s")
    assert choose(place, "s", data=place.data, rules=Rules(max_members=1)).record.data_fingerprint != place.fingerprint


def test_a_budget_limits_what_may_run(place):
    with pytest.raises(InputError, match="--budget must leave time for one candidate"):
        choose(place, "s", rules=Rules(budget_ms=1e-3))


def test_a_mean_of_siblings_takes_their_place_only_where_it_is_better(tone_data, tmp_path, monkeypatch):
    """The mean of two equal stages scores what each of them scores; then it is made to score more."""
    place, said = make_place(tmp_path, tone_data.dataset.root, trials=0), []
    for letter, seed in (("a", 1), ("b", 1), ("c", 2)):
        place.publish(letter * 64, seed=seed, parent_id="9" * 64 if letter != "c" else None)
    references = ["aaaa", "bbbb", "cccc"]
    assert len(choose(place, *references, soup=True, said=said).candidates) == 3
    assert any("The mean of the weights of 2 siblings" in text and "not used" in text for text in said)
    monkeypatch.setattr(ensembles, "RankedLogits", lambda *_: SimpleNamespace(singles=lambda: [0.9, 0.8, 0.7]))
    chosen = choose(place, *references, soup=True, said=said)
    assert any("scores 0.9000, the best of them 0.8000: it takes their place" in text for text in said)
    assert [item.stage_ids for item in chosen.candidates] == [("c" * 64,), ("a" * 64, "b" * 64)]
    only = choose(place, *references[:2], soup=True)
    assert only.record.members[0].souped_with == ("b" * 64,) and set(only.locations) == {"a" * 64, "b" * 64}
    assert [path.name for path in (tmp_path / "out" / "store" / "logits").iterdir() if path.name[0] == "a"] == ["a" * 64]


def test_the_objective_says_what_is_scored(place):
    records = SweepRecords(place.storage.at("s"))
    before = records.load_sweep()
    part = replace(before.parts[0], search=replace(SEARCH, objective="0.2*val_soundscapes/auroc + 0.8*val_soundscapes/cmap"))
    records.save_sweep(replace(before, parts=(part,)))
    chosen = choose(place, "s", rules=Rules(max_members=1))
    records.save_sweep(before)
    assert chosen.record.metric == "cmap" and chosen.record.selected_on == "soundscapes"


def test_a_head_on_embeddings_is_a_candidate_and_all_hear_its_clips(tone_data, tiny_recipe, tmp_path, monkeypatch):
    """It is chosen alone here, and what is chosen can be calibrated and make a submission."""
    place, said = make_place(tmp_path, tone_data.dataset.root, trials=1), []
    data = AudioCache(folder=place.cache).build(load_dataset(place.data))
    encoder = write_encoder(tmp_path / "tiny.onnx", 12 * 32_000)
    chain = head_chain(tiny_recipe, data, encoder, clip_s=12.0, epochs=1)
    train_chain(chain, data, store(place.storage))
    both = choose(place, "1" * 64, chain[1].stage_id, said=said)
    assert len(both.candidates) == 2 and any(line.startswith("All hear 12 s, as ") for line in said)
    record = choose(place, chain[1].stage_id).record
    assert record.members[0].encoder.startswith("onnx:") and record.procedure.context_s == 12
    write_record(record, tmp_path / "ensemble.json")
    assert load_detector(tmp_path / "ensemble.json").detector.members[0].clip_s == 12
    monkeypatch.chdir(tmp_path)
    assert birdclef(["calibrate", "ensemble.json", "--labels", str(place.data), "-o", "calibrated"]) == 0
    command = ["submit", "--model", "ensemble.json", "--calibration", "calibrated/calibration.json", "-o", "submission.csv"]
    assert birdclef([*command, "--soundscapes", str(place.data / "test_soundscapes")]) == 0
    assert pd.read_csv("submission.csv").shape == (12, 3)
