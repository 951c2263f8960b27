"""An ensemble is chosen from stored stages, on data that trained none of them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from made_up_detector import tiny_config, write_sound
from made_up_ensembles import SPECIES_OF_TONES, STAGE_CONFIG, Place, make_place
from made_up_heads import head_chain, train_chain, write_encoder
from made_up_records import SEARCH
from made_up_store import save_trial, store

from birdclef_core.data.dataset import load_dataset
from birdclef_core.ensemble.record import write_record
from birdclef_core.ensemble.scores import ENSEMBLE, SINGLE
from birdclef_core.ensemble.selection import Rules
from birdclef_core.errors import InputError
from birdclef_core.evaluation.metrics import auroc
from birdclef_core.identity import canonical
from birdclef_core.store.recordings_table import write_recordings
from birdclef_core.taxonomy import LabelSpace
from sweeps.cli.birdclef import birdclef
from sweeps.deploy import ensembles
from sweeps.deploy.ensembles import EnsembleWish, choose_ensemble
from sweeps.deploy.loading import load_detector
from sweeps.execution.audio_cache import AudioCache
from sweeps.execution.recordings_list import RecordingsList
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


def test_of_a_sweep_with_folds_one_fold_is_compared_on_recordings_and_all_on_soundscapes(tone_data, tmp_path):
    place, said = make_place(tmp_path, tone_data.dataset.root, trials=0), []
    other = load_dataset(place.data).of_fold(1)
    for index, fingerprint in enumerate((place.fingerprint, other.fingerprint)):
        identity = {"model": canonical(tiny_config("sed")), "stage": STAGE_CONFIG, "data": fingerprint}
        place.publish(f"{index + 1}" * 64, identity=identity, seed=index)
    stages = {"stages": ["train_bce@fold0", "train_bce@fold1"], "kinds": ["target bce"] * 2}
    save_trial(place.storage, "t0000", ["1" * 64, "2" * 64], score=0.5, **stages)
    records = SweepRecords(place.storage.at("s"))
    record = records.load_sweep()
    options = replace(record.options, folds=2)
    records.save_sweep(replace(record, options=options, parts=(replace(record.parts[0], options=options),)))
    chosen = choose(place, "s", select_on="recordings", said=said)
    assert [item.record.stage_id[0] for item in chosen.candidates] == ["1"]
    assert any("1 candidate of other folds is left out" in text for text in said)
    assert len(choose(place, "s", select_on="soundscapes").candidates) == 2


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
