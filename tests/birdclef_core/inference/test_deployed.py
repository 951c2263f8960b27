"""A detector's logits are those of the written rules: in the procedure of the 2023 solution, to 1e-5 for all seven recipes."""

from dataclasses import replace

import numpy as np
import pytest
import recreated_2023
import torch
from made_up_detector import (
    SPECIES,
    Loudness,
    loudness_detector,
    made_up_calibration,
    publish_random,
    recreated_member,
    tiny_config,
    with_weight,
)

from birdclef_core.audio.spectrogram import MelSpectrogram
from birdclef_core.errors import InputError, StoreError
from birdclef_core.inference.deployed import DeployedDetector
from birdclef_core.inference.procedure import DEFAULT, SOLUTION_2023, Procedure
from birdclef_core.inference.stored import load_member
from birdclef_core.inference.windows import stream_windows
from birdclef_core.models.detector import Detector
from birdclef_core.recipes import RECIPES
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(recreated_2023.GOLDEN))


def contexts(procedure: Procedure) -> np.ndarray:
    """What is heard of the windows of the golden sound that the 2023 solution has."""
    wave_T = recreated_2023.sound(round(22.5 * 32_000)).astype(np.float32)
    heard = [wave for _, wave in stream_windows([wave_T], procedure)]
    assert len(heard) == 5, "four whole windows, and the rest that the 2023 solution drops"
    return np.stack(heard[:4])


@pytest.mark.parametrize("name", recreated_2023.MODELS)
def test_the_2023_procedure_is_exact_for_every_recipe(golden, name):
    detector = DeployedDetector((recreated_member(name),), SOLUTION_2023)
    np.testing.assert_allclose(detector.hear(contexts(SOLUTION_2023)).logits_BC, golden[name], rtol=0, atol=1e-5)


def test_the_blend_of_the_2023_solution_is_exact(golden):
    members = tuple(recreated_member(name, weight=RECIPES[name]().ensemble_weight) for name in recreated_2023.MODELS)
    detector = DeployedDetector(members, SOLUTION_2023)
    np.testing.assert_allclose(detector.hear(contexts(SOLUTION_2023)).logits_BC, golden["blend"], rtol=0, atol=1e-5)


def test_the_golden_results_are_those_of_the_written_rules(golden):
    for name, logits in recreated_2023.recreate().items():
        np.testing.assert_allclose(logits, golden[name], rtol=0, atol=1e-9)


def test_another_procedure_gives_other_logits(golden):
    detector = DeployedDetector((recreated_member("sed_v2s"),), replace(SOLUTION_2023, side_weight=0.0))
    assert np.abs(detector.hear(contexts(SOLUTION_2023)).logits_BC - golden["sed_v2s"]).max() > 0.01


def test_weights_count_relative_to_each_other():
    members = (recreated_member("cnn_b0ns"), recreated_member("cnn_resnet34d"))
    waves = contexts(SOLUTION_2023)[:1]
    alone = [DeployedDetector((member,), SOLUTION_2023).hear(waves).logits_BC for member in members]
    both = DeployedDetector((with_weight(members[0], 3.0), with_weight(members[1], 1.0)), SOLUTION_2023)
    np.testing.assert_allclose(both.hear(waves).logits_BC, 0.75 * alone[0] + 0.25 * alone[1], atol=1e-6)


def test_members_with_the_same_decibels_share_them(monkeypatch):
    calls = []
    original = MelSpectrogram.mel_db
    monkeypatch.setattr(MelSpectrogram, "mel_db", lambda self, wave: calls.append(1) or original(self, wave))
    members = tuple(recreated_member(name) for name in ("sed_b3ns", "cnn_b3ns", "cnn_v2s"))
    DeployedDetector(members, SOLUTION_2023).hear(contexts(SOLUTION_2023)[:1])
    assert len(calls) == 2, "b3ns has the same decibels for both heads, scaled differently"


def test_a_cnn_is_given_the_frames_of_the_window_and_a_sed_all():
    for head, frames in (("cnn", 128), ("sed", 257)):
        detector = loudness_detector(head)
        detector.hear(np.zeros((2, DEFAULT.context), dtype=np.float32))
        assert detector.members[0].runtime.shapes == [(2, 1, 16, frames)]


def test_members_must_know_the_same_species_and_weigh_something():
    member = loudness_detector().members[0]
    with pytest.raises(InputError, match="same species"):
        DeployedDetector((member, replace(member, species=("alpha", "beta"))))
    with pytest.raises(InputError, match="weights above 0"):
        DeployedDetector((replace(member, weight=0.0),))
    with pytest.raises(InputError, match="at least one"):
        DeployedDetector(())


def test_a_detector_of_one_member_is_called_like_it_and_others_by_members_and_weights():
    member = loudness_detector().members[0]
    assert DeployedDetector((member,)).model_id == member.model_id
    other = replace(member, model_id="2" * 64)
    ids = {DeployedDetector((member, replace(other, weight=weight))).model_id for weight in (1.0, 2.0)}
    assert len(ids) == 2 and member.model_id not in ids
    assert (
        DeployedDetector((member, other)).model_id == DeployedDetector((with_weight(member, 2), with_weight(other, 2))).model_id
    )


def test_names_stand_for_codes_where_they_are_known():
    detector = loudness_detector()
    assert [detector.name(code) for code in SPECIES] == ["Alpha bird", "beta", "gamma"]


@pytest.mark.parametrize("head", ["sed", "cnn"])
def test_a_stored_stage_becomes_a_member_with_its_weights(tmp_path, head):
    store = StageStore(Storage.parse(str(tmp_path)))
    record = publish_random(store, head=head)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    member = load_member(store.open(record.stage_id), CPU)
    assert torch.equal(torch.random.get_rng_state(), before), "the random numbers of a notebook stay as they are"
    assert (member.model_id, member.species, member.config) == (record.stage_id, SPECIES, tiny_config(head))
    model = Detector(tiny_config(head), 3)
    model.load_state_dict(store.open(record.stage_id).weights())
    wave_BT = 0.1 * torch.randn(2, 160_000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model.eval()(model.spectrograms(wave_BT))
    alone = DeployedDetector((member,), Procedure(context_s=5.0, pool="clip"))
    torch.testing.assert_close(torch.from_numpy(alone.hear(wave_BT.numpy()).logits_BC), expected.logits_BC)


def test_weights_of_another_model_are_refused(tmp_path):
    store = StageStore(Storage.parse(str(tmp_path)))
    record = publish_random(store, species=SPECIES)
    entry = store.open(record.stage_id)
    with pytest.raises(StoreError, match="must be those of the model of its record"):
        load_member(replace(entry, record=replace(record, species=["a", "b"])), CPU)


def test_loudness_is_heard_by_its_factors():
    """The made-up network of other tests does what it says."""
    loud = Loudness(True)(torch.ones(1, 1, 16, 64))
    np.testing.assert_allclose(loud.clip_BC.numpy(), [[1.0, -1.0, 20.0]])
    assert loud.segments_BSC.shape == (1, 2, 3)


def test_the_first_members_have_the_weights_that_are_written_for_them():
    members = tuple(replace(loudness_detector().members[0], model_id=name) for name in "abc")
    detector = DeployedDetector(members, weights_of_first=((1.0,), (0.7, 0.3), (0.5, 0.3, 0.2)))
    detector = replace(detector, calibration=made_up_calibration(detector))
    two = detector.first(2)
    assert [(member.model_id, member.weight) for member in two.members] == [("a", 0.7), ("b", 0.3)]
    assert two.calibration is None and two.model_id != detector.model_id
    assert [member.weight for member in two.first(1).members] == [1.0]
    assert detector.first(3) is detector
    assert [member.weight for member in DeployedDetector(members).first(2).members] == [1.0, 1.0]
    with pytest.raises(InputError, match="weights_of_first"):
        DeployedDetector(members, weights_of_first=((1.0,), (0.7, 0.3)))
