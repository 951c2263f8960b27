"""Teachers together: heads on embeddings hear by the clips that a deployed head hears by, alone and beside other teachers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_up_heads import head_chain, train_chain, write_encoder
from made_up_store import store as store_of

from birdclef_core.errors import StoreError
from birdclef_core.inference.deployed import DeployedDetector
from birdclef_core.inference.procedure import Procedure
from birdclef_core.inference.stored import load_member
from birdclef_core.stages.teachers.predictions import Predictions
from birdclef_core.stages.teachers.together import Together
from birdclef_core.stages.training import train_stage

CPU = torch.device("cpu")


def entries_of(heads, name):
    storage, chain = heads[name]
    store = store_of(storage)
    return store, *(store.open(task.stage_id) for task in chain)


def of_stage(heads, name, window):
    store, _, head = entries_of(heads, name)
    return Together.of_stages(store, [head], [1.0], window, CPU)


@pytest.mark.parametrize("name", ["timm", "onnx"])
@pytest.mark.parametrize("window", [8_000, 16_000, 36_000])
def test_a_head_hears_a_window_as_it_does_where_it_is_deployed(heads, name, window):
    """By the middle of a clip of 16,000 samples, by one clip, or by three of which the largest logit counts."""
    _, embeddings, head = entries_of(heads, name)
    teacher, species = of_stage(heads, name, window)
    assert teacher.side == max(0, (16_000 - window) // 2) and list(species.species) == head.record.species
    wave_BT = 0.1 * np.random.default_rng(0).standard_normal((3, window + 2 * teacher.side)).astype(np.float32)
    procedure = Procedure(window_s=window / 32_000, context_s=max(window, 16_000) / 32_000, step_s=window / 32_000)
    detector = DeployedDetector((load_member(head, CPU, embeddings=embeddings),), procedure)
    with torch.inference_mode():
        logits_BC = teacher(torch.from_numpy(wave_BT)).logits_BC.numpy()
    np.testing.assert_allclose(logits_BC, detector.hear(wave_BT).logits_BC, atol=1e-5)
    assert np.ptp(logits_BC) > 1e-3


def test_a_head_and_a_detector_are_averaged_and_the_detector_hears_its_window_alone(taught):
    """The species are those that both know; the clip of the head is longer than the window."""
    storage, chain = taught
    student, head_all = (store_of(storage).open(chain[index].stage_id) for index in (4, 1))
    store, window = store_of(storage), 12_800
    both, species = Together.of_stages(store, [student, head_all], [1.0, 3.0], window, CPU)
    alone = [Together.of_stages(store, [entry], [1.0], window, CPU)[0] for entry in (student, head_all)]
    assert species.species == ("low", "top") and [item.side for item in (both, *alone)] == [1_600, 0, 1_600]
    wave_BT = 0.1 * torch.randn(3, window + 2 * both.side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together_BC = both(wave_BT).logits_BC
        own_BC = alone[0](wave_BT[:, 1_600:-1_600]).logits_BC
        all_BC = alone[1](wave_BT).logits_BC
    head_BC = all_BC[:, [0, 2]]
    torch.testing.assert_close(
        all_BC.sigmoid().sum(dim=1), torch.ones(3), msg="a head that learned by cross-entropy gives its softmax"
    )
    torch.testing.assert_close(together_BC, 0.25 * own_BC + 0.75 * head_BC)


def test_a_student_of_a_head_is_made_and_scores_come_with_it(taught, tone_data):
    storage, (embed, _, head, labels, student) = taught
    store = store_of(storage)
    assert labels.needs == (head.stage_id, embed.stage_id) and student.needs == (labels.stage_id,)
    record = store.record(labels.stage_id)
    assert record.metrics == store.record(head.stage_id).metrics and record.metrics["cmap"] > 0.9
    made = Predictions.load(store.open(labels.stage_id).folder)
    assert set(made.row_W) == set(np.flatnonzero(~tone_data.dataset.recordings["is_validation"].to_numpy()))
    assert store.record(student.stage_id).identity["teacher"] == labels.stage_id


@pytest.fixture
def own(taught, store):
    """A store with the heads and their embeddings alone."""
    storage, chain = taught
    for task in chain[:3]:
        store.publish_copy(store_of(storage).open(task.stage_id))
    return store


def test_teachers_of_an_ensemble_are_scored_together_also_where_a_clip_is_longer(tiny_recipe, tone_data, taught, own, tmp_path):
    _, (_, head_all, _, labels, _) = taught
    long = head_chain(tiny_recipe, tone_data, write_encoder(tmp_path / "long.onnx", 25_600), clip_s=0.8)
    train_chain(long, tone_data, own)
    teachers = ((long[1].stage_id, 1.0), (head_all.stage_id, 1.0))
    both = replace(labels, stage_id="both", parent_id=None, teachers=teachers, config=replace(labels.config, clip_s=0.5))
    list(train_stage(both, tone_data, own, CPU))
    assert own.record("both").metrics["cmap"] > 0.9
    assert Predictions.load(own.open("both").folder).window_samples == 16_000


def test_a_head_without_its_embeddings_is_refused(taught, tone_data, own):
    _, (embed, _, _, labels, _) = taught
    own.remove(embed.stage_id)
    with pytest.raises(StoreError, match=f"hears with the encoder of {embed.stage_id[:12]}, which is not in the store"):
        list(train_stage(labels, tone_data, own, CPU))
