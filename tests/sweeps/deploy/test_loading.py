"""A reference becomes a detector that predicts, with the names of its species as far as they are known."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from made_up_detector import SPECIES, made_up_calibration, publish_random, write_sound
from made_up_ensembles import ensemble_record
from made_up_records import sweep_record
from made_up_store import damage, store

from birdclef_core.ensemble.record import write_record
from birdclef_core.errors import InputError, StoreError
from birdclef_core.inference.procedure import DEFAULT, SOLUTION_2023, Procedure
from birdclef_core.inference.results.calibration import write_calibration
from birdclef_core.inference.results.columns import COLUMNS
from birdclef_core.store.storage import Storage
from sweeps.deploy import load_detector
from sweeps.options import DEFAULT_STORAGE, SweepOptions
from sweeps.schedule.records import SweepRecords, TrialRecord

STAGE = "ab" * 32
PREDICTING = Path(__file__).parents[3] / "docs" / "predicting.md"


@pytest.fixture
def storage(tmp_path):
    """A storage whose sweep `s` has one trial, with a stage that can be loaded; its data folder names one species."""
    storage = Storage.parse(str(tmp_path / "out"))
    publish_random(store(storage), STAGE, trained_by="s/t0000")
    records = SweepRecords(storage.at("s"))
    records.save_sweep(sweep_record(SweepOptions(search="tiny", data=str(tmp_path / "data"))))
    trial = TrialRecord(
        trial="t0000",
        recipe="tiny",
        params={},
        stage_ids=[STAGE],
        stages=["train_bce"],
        kinds=["target bce"],
        score=0.5,
        status="finished",
        stage_scores={"train_bce": 0.5},
    )
    records.save_trials([trial])
    return storage


def write_metadata(folder, **names) -> None:
    folder.mkdir()
    rows = [{"primary_label": code, "filename": f"{code}/1.ogg", "common_name": name} for code, name in names.items()]
    pd.DataFrame(rows).to_csv(folder / "train.csv", index=False)


def test_three_lines_of_a_notebook(storage, tmp_path):
    write_sound(tmp_path / "in" / "a.wav", 12.0)
    detector = load_detector("s", storage=storage.root)
    rows = detector.predict(tmp_path / "in", top=2)
    assert len(rows) == 6 and set(rows["model_id"]) == {STAGE[:16]} and set(rows["species"]) <= set(SPECIES)
    assert detector.detector.species == SPECIES and detector.detector.procedure == DEFAULT


def test_the_lines_of_the_documents_run(storage, tmp_path, monkeypatch):
    """Those of docs/predicting.md, with the sweep and the folder of this test."""
    (code,) = re.findall(r"```python\n(.*?)```", PREDICTING.read_text(encoding="utf-8"), re.DOTALL)
    write_sound(tmp_path / "recordings" / "a.wav", 12.0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").rename(DEFAULT_STORAGE)
    names: dict = {}
    exec(code.replace('"NAME"', '"s"'), names)
    assert isinstance(names["rows"], pd.DataFrame) and list(names["rows"]) == list(COLUMNS)


@pytest.mark.parametrize("reference", ["s", "s/t0000", "s/t0000/train_bce", STAGE[:6]])
def test_a_reference_is_that_of_all_commands(storage, reference):
    assert load_detector(reference, storage=storage.root, device="cpu").detector.model_id == STAGE


def test_a_procedure_is_a_name_or_settings(storage):
    assert load_detector("s", storage=storage.root, procedure="2023").detector.procedure == SOLUTION_2023
    own = Procedure(context_s=7.0)
    assert load_detector("s", storage=storage.root, procedure=own).detector.procedure == own
    with pytest.raises(InputError, match="no procedure 'x'"):
        load_detector("s", storage=storage.root, procedure="x")


def test_names_are_those_of_the_recordings_that_trained_the_stage(storage, tmp_path):
    write_metadata(tmp_path / "data", alpha="Alpha bird", beta="")
    detector = load_detector("s", storage=storage.root).detector
    assert [detector.name(code) for code in SPECIES] == ["Alpha bird", "beta", "gamma"]
    (tmp_path / "data" / "taxonomy.csv").write_text(
        "primary_label,scientific_name,common_name\nalpha,Avis alpha,First bird\ngamma,Avis gamma,Third bird\n"
    )
    detector = load_detector("s", storage=storage.root).detector
    assert [detector.name(code) for code in SPECIES] == ["First bird", "beta", "Third bird"]


def test_names_can_be_given(storage, tmp_path):
    write_metadata(tmp_path / "data", alpha="Alpha bird")
    (tmp_path / "names.csv").write_text("SPECIES_CODE,SCI_NAME,PRIMARY_COM_NAME\nbeta,Avis beta,Second bird\n")
    detector = load_detector("s", storage=storage.root, names=tmp_path / "names.csv").detector
    assert [detector.name(code) for code in SPECIES] == ["alpha", "Second bird", "gamma"]


def test_recordings_that_are_gone_or_damaged_name_nothing(storage, tmp_path):
    assert load_detector("s", storage=storage.root).detector.names == {}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").write_bytes(b"PK\x03\x04")
    assert load_detector("s", storage=storage.root).detector.names == {}


def test_a_stage_that_no_sweep_trained_is_loaded_too(storage):
    publish_random(store(storage), "cd" * 32, head="cnn")
    assert load_detector("cdcd", storage=storage.root).detector.names == {}


def test_what_cannot_be_loaded_is_said(storage, monkeypatch, tmp_path):
    (tmp_path / "half").mkdir()
    with pytest.raises(InputError, match=r"half is no bundle, as it has no bundle\.json; and as a REF: .*no such stage"):
        load_detector(tmp_path / "half", storage=storage.root)
    with pytest.raises(InputError, match="has no such stage or sweep"):
        load_detector("other", storage=storage.root)
    with pytest.raises(InputError, match="There is no store"):
        load_detector("s", storage=storage.at("s").root)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="--device cuda needs a GPU"):
        load_detector("s", storage=storage.root, device="cuda")
    with pytest.raises(InputError, match="auto, cpu or cuda"):
        load_detector("s", storage=storage.root, device="tpu")
    damage(storage, STAGE)
    with pytest.raises(StoreError, match="must be whole"):
        load_detector("s", storage=storage.root)


def test_an_ensemble_hears_with_all_its_members(storage, tmp_path):
    publish_random(store(storage), "cd" * 32, head="cnn", species=SPECIES[::-1])
    path = tmp_path / "ensemble.json"
    write_record(ensemble_record(storage=storage.root, procedure=SOLUTION_2023), path)
    detector = load_detector(path).detector
    assert [(member.model_id, member.weight) for member in detector.members] == [(STAGE, 0.6), ("cd" * 32, 0.4)]
    assert detector.procedure == SOLUTION_2023 and detector.species == SPECIES
    wave_BT = np.random.default_rng(0).normal(0, 0.1, (2, 320_000)).astype(np.float32)
    each = [
        load_detector(item, storage=storage.root, procedure="2023").detector.hear(wave_BT).logits_BC for item in (STAGE, "cdcd")
    ]
    assert np.allclose(detector.hear(wave_BT).logits_BC, 0.6 * each[0] + 0.4 * each[1], atol=1e-5)
    assert load_detector(str(path), storage=storage.root, procedure="default").detector.procedure == DEFAULT
    assert [member.weight for member in detector.first(1).members] == [1.0], "as the record says, and not its share of all"


def test_a_calibration_of_the_model_is_taken_and_one_of_another_refused(storage, tmp_path):
    write_sound(tmp_path / "in" / "a.wav", 5.0)
    calibration = made_up_calibration(load_detector("s", storage=storage.root).detector)
    path = tmp_path / "calibration.json"
    write_calibration(calibration, path)
    rows = load_detector("s", storage=storage.root, calibration=path).predict(tmp_path / "in", threshold=0.0)
    logit = np.log(rows["score"] / (1 - rows["score"]))
    expected = 1 / (1 + np.exp(-(0.5 * logit + np.array(calibration.intercepts))))
    np.testing.assert_allclose(rows["calibrated"], expected, atol=1e-4)
    with pytest.raises(InputError, match="of another"):
        load_detector("s", storage=storage.root, procedure="2023", calibration=path)
    write_calibration(replace(calibration, model_id="9" * 64), path)
    with pytest.raises(InputError, match="must be of the model"):
        load_detector("s", storage=storage.root, calibration=path)


def test_a_member_can_be_the_mean_of_several_stages(storage, tmp_path):
    other = "cd" * 32
    publish_random(store(storage), other, seed=2)
    first = ensemble_record().members[0]
    alone = replace(first, souped_with=(other,), weight=1.0)
    path = tmp_path / "ensemble.json"
    write_record(ensemble_record(storage=storage.root, members=(alone,), weights_of_first=((1.0,),)), path)
    (member,) = load_detector(path).detector.members
    assert member.model_id == alone.model_id not in (STAGE, other)
    weights = [store(storage).open(stage_id).weights() for stage_id in (STAGE, other)]
    name = next(name for name in weights[0] if name.startswith("head.") and not torch.equal(weights[0][name], weights[1][name]))
    assert torch.allclose(member.runtime._network.model.state_dict()[name], (weights[0][name] + weights[1][name]) / 2)


def test_an_ensemble_whose_stages_are_gone_or_other_is_refused(storage, tmp_path):
    path = tmp_path / "ensemble.json"
    write_record(ensemble_record(storage=storage.root), path)
    with pytest.raises(InputError, match="Stage cdcdcdcdcdcdcdcd must be in the store"):
        load_detector(path)
    publish_random(store(storage), "cd" * 32, species=("alpha", "beta"))
    with pytest.raises(InputError, match="must know the species of the ensemble"):
        load_detector(path)


def test_a_head_on_embeddings_is_a_detector_like_any_other(heads, tone_data):
    """Each of its clips is of half a second, so a window is what the loudest of ten says."""
    storage, (_, head) = heads["onnx"]
    predictor = load_detector("s", storage=storage.root, device="cpu", embeddings=True)
    assert predictor.detector.model_id == head.stage_id and predictor.detector.procedure == DEFAULT
    rows = predictor.predict(tone_data.dataset.root / "train_audio", threshold=0.0)
    best = rows.loc[rows.groupby("file")["score"].idxmax()]
    known = best[~best["file"].str.contains("/mid/")]
    assert (known["species"] == known["file"].str.split("/").str[-2]).mean() > 0.9
