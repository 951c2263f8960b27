"""A stage or an ensemble becomes a bundle that predicts without the store."""

import numpy as np
import pandas as pd
import pytest
import torch
from made_up_detector import SPECIES, publish_random, write_sound
from made_up_ensembles import STAGES, ensemble_record
from made_up_store import store

from birdclef_core.ensemble.record import write_record
from birdclef_core.errors import InputError
from birdclef_core.inference.procedure import DEFAULT, SOLUTION_2023, Procedure
from birdclef_core.store.storage import Storage
from sweeps.cli.birdclef import birdclef
from sweeps.deploy import load_detector
from sweeps.deploy.export import export


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with a sound, a storage with two stages, and an ensemble of them."""
    monkeypatch.chdir(tmp_path)
    storage = Storage.parse("sweeps-output")
    publish_random(store(storage), STAGES[0])
    publish_random(store(storage), STAGES[1], head="cnn", seed=2)
    write_record(ensemble_record(procedure=SOLUTION_2023), tmp_path / "ensemble.json")
    write_sound(tmp_path / "in" / "a.wav", 12.0)
    return tmp_path


@pytest.mark.parametrize("reference", [STAGES[0][:8], "ensemble.json"])
def test_it_predicts_what_it_was_made_of_predicts(place, reference, capsys):
    assert birdclef(["export", reference, "--to", "bundle"]) == 0
    said = capsys.readouterr().out
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
    publish_random(store(Storage.parse("sweeps-output")), "ef" * 32, seed=3)
    first = ensemble.members[0]
    soup = type(first)(**{**vars(first), "weight": 1.0, "souped_with": ("ef" * 32,)})
    write_record(ensemble_record(members=(soup,), weights_of_first=((1.0,),)), place / "soup.json")
    bundle = export("soup.json", place / "bundle")
    assert bundle.record.members[0].souped_with == ("ef" * 32,)
    assert bundle.record.model_id == load_detector("soup.json").detector.model_id == soup.model_id


def test_a_bundle_keeps_its_procedure_but_the_step_can_change(place):
    export(STAGES[0], place / "bundle", procedure="2023")
    with pytest.raises(InputError, match="has the procedure that it was exported with"):
        load_detector("bundle", procedure="default")
    assert load_detector("bundle", procedure="2023").detector.procedure == SOLUTION_2023
    own = Procedure(side_weight=0.25, tail="silence", remove_mean=False, step_s=2.5)
    assert load_detector("bundle", procedure=own).detector.procedure == own
    assert birdclef(["predict", "in", "--model", "bundle", "-o", "out", "--threshold", "0", "--step", "2.5"]) == 0
    assert pd.read_csv("out/detections.csv")["start_s"].unique().tolist() == [0, 2.5, 5, 7.5]


def test_names_and_the_device_can_be_given(place, monkeypatch):
    export(STAGES[0], place / "bundle")
    (place / "names.csv").write_text("SPECIES_CODE,SCI_NAME,PRIMARY_COM_NAME\nbeta,Avis beta,Second bird\n")
    assert load_detector("bundle", names="names.csv").detector.name("beta") == "Second bird"
    export(STAGES[0], place / "named", names=place / "names.csv")
    assert load_detector("named").detector.name("beta") == "Second bird"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="needs a GPU"):
        load_detector("bundle", device="cuda")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "tflite"], "--format must be one of torch, "),
        (["--precision", "int4"], "--precision must be one of float32, "),
        (["--to", "in"], "is not empty"),
        (["--procedure", "1999"], "no procedure"),
        (["--storage", "nowhere"], "There is no store"),
    ],
)
def test_wrong_input_exits_2(place, capsys, arguments, message):
    assert birdclef(["export", STAGES[0], "--to", "bundle", *arguments]) == 2
    assert message in capsys.readouterr().err and not (place / "bundle").exists()


def test_a_damaged_bundle_exits_2(place, capsys):
    export(STAGES[0], place / "bundle")
    (place / "bundle" / "networks" / "1_tiny.pt").write_bytes(b"")
    assert birdclef(["predict", "in", "--model", "bundle", "-o", "out"]) == 2
    assert "has another content" in capsys.readouterr().err and not (place / "out").exists()
