"""A stage or an ensemble becomes a bundle that predicts without the store."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from made_up_bundles import made_up_data
from made_up_detector import FEW_LAYERS, SPECIES, publish_random, write_sound
from made_up_ensembles import STAGES, ensemble_record
from made_up_store import store

from birdclef_core.ensemble.record import write_record
from birdclef_core.errors import InputError
from birdclef_core.inference.bundle.parity import Parity
from birdclef_core.inference.procedure import DEFAULT, SOLUTION_2023, Procedure
from birdclef_core.json_files import from_json
from birdclef_core.store.storage import Storage
from sweeps.cli.birdclef import birdclef
from sweeps.deploy import load_detector
from sweeps.deploy.export import export


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with a sound, a storage with two stages, and an ensemble of them."""
    monkeypatch.chdir(tmp_path)
    storage = Storage.parse("sweeps-output")
    publish_random(store(storage), STAGES[0], encoder=FEW_LAYERS)
    publish_random(store(storage), STAGES[1], head="cnn", encoder=FEW_LAYERS, seed=2)
    write_record(ensemble_record(procedure=SOLUTION_2023), tmp_path / "ensemble.json")
    write_sound(tmp_path / "in" / "a.wav", 12.0)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("wish", [["openvino"], ["onnx", "--with-frontend"]])
def test_it_is_compared_on_the_sound_of_a_data_folder(place, capsys, wish):
    """A SED and a CNN, on labelled soundscapes; with their spectrograms in themselves too."""
    pytest.importorskip("openvino")
    pytest.importorskip("onnxscript")
    made_up_data(place / "data", num_windows=66)
    command = ["export", "ensemble.json", "--to", "bundle", "--format", *wish]
    assert birdclef([*command, "--data", "data"]) == 0
    said = capsys.readouterr().out
    parity = from_json(Parity, (place / "bundle" / "parity.json").read_text(), file="parity.json")
    assert parity.num_windows == 72 and parity.num_species == 3 and parity.broken_rules == ()
    assert parity.source == "66 windows of labelled soundscapes and 6 of validation recordings in data"
    assert f"largest difference of a score {parity.largest_probability_difference:.2g}, cmAP {parity.cmap:.4f} (+0.0000)" in said
    expected = load_detector("ensemble.json").predict("in", threshold=0.0)
    found = load_detector("bundle").predict("in", threshold=0.0)
    np.testing.assert_allclose(found["score"], expected["score"], atol=1e-4)
    assert set(found["model_id"]) == set(expected["model_id"]), "in float32 it is the same model"
    is_inside = ["spectrogram in the network" in line for line in (place / "bundle" / "card.md").read_text().splitlines()]
    assert sum(is_inside) == (2 if "--with-frontend" in wish else 0)


@pytest.mark.slow
def test_an_int8_that_ranks_worse_is_written_by_force_only(place, capsys):
    """Labels are the windows that the network itself ranks first, so float32 is right everywhere and int8, with a random network, is not."""
    pytest.importorskip("nncf")
    made_up_data(place / "data", num_windows=66)
    heard = load_detector(STAGES[0]).predict(place / "data" / "test_soundscapes", threshold=0.0)
    first = heard["score"] >= heard.groupby("species")["score"].transform("median")
    labels = heard[first].groupby("end_s")["species"].agg(" ".join).reindex(np.arange(5.0, 335.0, 5.0), fill_value="")
    table = pd.DataFrame({"row_id": [f"scape_{end_s:.0f}" for end_s in labels.index], "labels": labels.to_numpy()})
    table.to_csv(place / "data" / "test_soundscapes_labels.csv", index=False)
    command = ["export", STAGES[0], "--to", "bundle", "--format", "openvino", "--precision", "int8", "--data", "data"]
    capsys.readouterr()
    assert birdclef(command) == 2 and not (place / "bundle").exists()
    said = capsys.readouterr()
    assert "in int8 the cmAP may be lower by 0.005, but it differs by -0." in said.err and not said.out
    assert birdclef([*command, "--force"]) == 0
    said = capsys.readouterr()
    parity = from_json(Parity, (place / "bundle" / "parity.json").read_text(), file="parity.json")
    assert parity.cmap_difference < -0.005 and len(parity.broken_rules) == 1
    assert f"Written by force: {parity.broken_rules[0]}" in said.err
    assert f"**It was written by force: {parity.broken_rules[0]}.**" in (place / "bundle" / "card.md").read_text()
    found = load_detector("bundle").predict("in", threshold=0.0)
    expected = load_detector(STAGES[0]).predict("in", threshold=0.0)
    assert set(found["model_id"]) != set(expected["model_id"]), "a calibration of one is none of the other"
    np.testing.assert_allclose(found["score"], expected["score"], atol=0.1)


@pytest.mark.parametrize("reference", [STAGES[0][:8], "ensemble.json"])
def test_it_predicts_what_it_was_made_of_predicts(place, reference, capsys):
    assert birdclef(["export", reference, "--to", "bundle", "--force"]) == 0
    said, warned = capsys.readouterr()
    assert (
        "Written by force: there must be 64 windows of labelled sound, but there are none (The recordings of stage ab" in warned
    )
    assert (
        f"tiny, train_bce {STAGES[0][:8]}: weight {1 if 'ab' in reference else 0.6:.3f}, " in said and "Bundle: bundle (" in said
    )
    expected = load_detector(reference).predict("in", threshold=0.0)
    (place / "sweeps-output").rename(place / "gone")
    pd.testing.assert_frame_equal(load_detector("bundle").predict("in", threshold=0.0), expected)
    assert birdclef(["predict", "in", "--model", "bundle", "-o", "out", "--threshold", "0"]) == 0
    np.testing.assert_allclose(pd.read_csv("out/detections.csv")["score"], expected["score"])
    detector = load_detector("bundle", device="auto").detector
    assert detector.species == SPECIES and detector.procedure == (DEFAULT if "ab" in reference else SOLUTION_2023)


def test_souped_stages_are_one_network(place):
    ensemble = ensemble_record()
    publish_random(store(Storage.parse("sweeps-output")), "ef" * 32, encoder=FEW_LAYERS, seed=3)
    first = ensemble.members[0]
    soup = type(first)(**{**vars(first), "weight": 1.0, "souped_with": ("ef" * 32,)})
    write_record(ensemble_record(members=(soup,), weights_of_first=((1.0,),)), place / "soup.json")
    bundle = export("soup.json", place / "bundle", force=True)
    assert bundle.record.members[0].souped_with == ("ef" * 32,)
    assert bundle.record.model_id == load_detector("soup.json").detector.model_id == soup.model_id


def test_a_bundle_keeps_its_procedure_but_the_step_can_change(place):
    export(STAGES[0], place / "bundle", procedure="2023", force=True)
    with pytest.raises(InputError, match="has the procedure that it was exported with"):
        load_detector("bundle", procedure="default")
    assert load_detector("bundle", procedure="2023").detector.procedure == SOLUTION_2023
    own = Procedure(side_weight=0.25, tail="silence", remove_mean=False, step_s=2.5)
    assert load_detector("bundle", procedure=own).detector.procedure == own
    assert birdclef(["predict", "in", "--model", "bundle", "-o", "out", "--threshold", "0", "--step", "2.5"]) == 0
    assert pd.read_csv("out/detections.csv")["start_s"].unique().tolist() == [0, 2.5, 5, 7.5]


def test_names_and_the_device_can_be_given(place, monkeypatch):
    export(STAGES[0], place / "bundle", force=True)
    (place / "names.csv").write_text("SPECIES_CODE,SCI_NAME,PRIMARY_COM_NAME\nbeta,Avis beta,Second bird\n")
    assert load_detector("bundle", names="names.csv").detector.name("beta") == "Second bird"
    export(STAGES[0], place / "named", names=place / "names.csv", force=True)
    assert load_detector("named").detector.name("beta") == "Second bird"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="needs a GPU"):
        load_detector("bundle", device="cuda")


@pytest.mark.parametrize(("name", "format"), [("timm", "torch"), ("onnx", "onnx")])
def test_a_head_on_embeddings_becomes_a_bundle_that_needs_no_store(heads, tone_data, tmp_path, name, format):
    """By its own `runtime.py` too, which resamples for an ONNX encoder."""
    pytest.importorskip("onnxscript")
    storage, (embed, head) = heads[name]
    bundle = export(head.stage_id, tmp_path / "bundle", format=format, storage=storage.root, force=True)
    (member,) = bundle.record.members
    assert member.head.clip_s == 0.5 and member.head.hidden == (8 if name == "onnx" else 0) and member.network_ms > 0
    assert bundle.parity().num_windows and bundle.parity().largest_probability_difference < 1e-5
    if name == "onnx":
        kept = bundle.folder / member.head.encoder
        assert kept.read_bytes() == (store(storage).open(embed.stage_id).folder / "encoder.onnx").read_bytes()
        with pytest.raises(InputError, match="needs --format onnx, but got torch"):
            export(head.stage_id, tmp_path / "other", storage=storage.root, force=True)
    sound, found = tone_data.dataset.root / "train_audio" / "low", tmp_path / "found.csv"
    expected = load_detector(head.stage_id, storage=storage.root).predict(sound, threshold=0.0)
    pd.testing.assert_frame_equal(load_detector(bundle.folder).predict(sound, threshold=0.0), expected, rtol=1e-4)
    command = [sys.executable, "-I", str(bundle.folder / "runtime.py"), str(sound), "-o", str(found), "--threshold", "0"]
    subprocess.run(command, check=True, cwd=tmp_path)
    np.testing.assert_allclose(pd.read_csv(found)["score"], expected["score"], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("wish", [["openvino"], ["onnx", "--with-frontend"]])
def test_a_head_on_a_timm_encoder_has_the_other_formats(heads, tone_data, tmp_path, wish):
    pytest.importorskip("openvino")
    pytest.importorskip("onnxscript")
    storage, (_, head) = heads["timm"]
    command = ["export", head.stage_id, "--to", str(tmp_path / "bundle"), "--storage", storage.root, "--force", "--format", *wish]
    assert birdclef(command) == 0
    parity = from_json(Parity, (tmp_path / "bundle" / "parity.json").read_text(), file="parity.json")
    assert parity.num_windows and parity.largest_probability_difference < 1e-4
    sound = tone_data.dataset.root / "train_audio" / "low"
    expected = load_detector(head.stage_id, storage=storage.root).predict(sound, threshold=0.0)
    pd.testing.assert_frame_equal(
        load_detector(tmp_path / "bundle").predict(sound, threshold=0.0), expected, rtol=1e-3, check_exact=False
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "tflite"], "--format must be one of torch, "),
        (["--precision", "int4"], "--precision must be one of float32, "),
        (["--to", "in"], "is not empty"),
        (["--with-frontend"], "--with-frontend needs --format openvino or onnx, but got torch"),
        (["--with-frontend", "--format", "openvino", "--precision", "bfloat16"], "needs --precision float32, but got bfloat16"),
        (["--precision", "int8"], "--precision must be one that the format torch has (float32)"),
        (["--format", "openvino", "--precision", "int8", "--force"], "int8 is fitted on real sound"),
        ([], "there must be 64 windows of labelled sound, but there are none (The recordings of stage abababababababab"),
        (["--data", "nowhere"], "nowhere"),
        (["--procedure", "1999"], "no procedure"),
        (["--storage", "nowhere"], "There is no store"),
    ],
)
def test_wrong_input_exits_2(place, capsys, arguments, message):
    assert birdclef(["export", STAGES[0], "--to", "bundle", *arguments]) == 2
    assert message in capsys.readouterr().err and not (place / "bundle").exists()


def test_a_damaged_bundle_exits_2(place, capsys):
    export(STAGES[0], place / "bundle", force=True)
    (place / "bundle" / "networks" / "1_tiny.pt").write_bytes(b"")
    assert birdclef(["predict", "in", "--model", "bundle", "-o", "out"]) == 2
    assert "has another content" in capsys.readouterr().err and not (place / "out").exists()
