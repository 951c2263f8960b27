"""A stored head on embeddings hears as it was trained and scored, with the encoder that is kept with its embeddings."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from made_up_ensembles import make_place
from made_up_heads import head_chain, train_chain, write_encoder
from made_up_store import store

from birdclef_core.data.dataset import load_dataset
from birdclef_core.errors import InputError
from birdclef_core.inference.deployed import DeployedDetector
from birdclef_core.inference.logits import deployed_logits
from birdclef_core.inference.procedure import DEFAULT, Procedure
from birdclef_core.inference.stored import load_member, load_model, member_of_model
from birdclef_core.stages.embeddings.head import HeadStage
from birdclef_core.stages.embeddings.stored import ONNX_FILE, TIMM_WEIGHTS, Embeddings
from birdclef_core.store.stage_store import StageEntry, StageStore
from birdclef_core.store.storage import Storage
from sweeps.execution.audio_cache import AudioCache

CPU = torch.device("cpu")
CLIPS = Procedure(window_s=0.5, context_s=0.5, step_s=0.5)


def scores_of(entry: StageEntry, detector: DeployedDetector, data) -> tuple[np.ndarray, np.ndarray]:
    """The logits of validation recordings as the stage scored them, and as the detector hears their two windows."""
    scored = pd.read_parquet(entry.folder / "predictions.parquet")[list(detector.species)]
    place = {name: row for row, name in enumerate(data.dataset.recordings["recording_id"])}
    waves = [data.cache.read(place[name], start, 16_000) for name in scored.index for start in (0, 16_000)]
    heard = detector.hear(np.stack(waves).astype(np.float32) / 2**15).logits_BC
    probability_RC = scored.to_numpy(np.float64)
    return np.log(probability_RC / (1 - probability_RC)), heard.reshape(len(scored), 2, -1).max(axis=1)


@pytest.mark.parametrize("name", ["timm", "onnx"])
def test_a_head_scores_validation_recordings_as_its_stage_did(heads, tone_data, name):
    storage, (embed, head) = heads[name]
    entry, embeddings = store(storage).open(head.stage_id), store(storage).open(embed.stage_id)
    member = load_member(entry, CPU, embeddings=embeddings)
    assert (member.clip_s, member.takes_sound) == (0.5, name == "onnx")
    detector = DeployedDetector((member,), CLIPS)
    assert entry.record.metrics["cmap"] > 0.9
    scored, heard = scores_of(entry, detector, tone_data)
    np.testing.assert_allclose(heard, scored, atol=2e-3)  # embeddings are kept in half precision
    assert np.ptp(scored) > 0.1
    if name == "onnx":
        assert detector.frequencies_hz == (0, 12_000) and member.config.encoder.startswith("onnx:")


def test_a_head_hears_in_the_precision_of_its_embeddings(tiny_recipe, tone_data, tmp_path):
    chain, stages = head_chain(tiny_recipe, tone_data, precision="bfloat16", epochs=1), StageStore(Storage.parse(str(tmp_path)))
    train_chain(chain, tone_data, stages)
    embeddings, entry = (stages.open(task.stage_id) for task in chain)
    member = load_member(entry, CPU, embeddings=embeddings)
    made = Embeddings.load(embeddings.folder)
    wave_BT = np.stack([tone_data.cache.read(row, 0, 16_000) for row in range(4)]).astype(np.float32) / 2**15
    exact = member_of_model(load_model(entry, embeddings=embeddings), CPU, model_id="", species=member.species)
    heard, in_float32 = (DeployedDetector((item,), CLIPS).hear(wave_BT).embedding_BD for item in (member, exact))
    error, other = (np.abs(item - made.embedding_WD[[0, 2, 4, 6]]).max() for item in (heard, in_float32))
    assert error < other / 4, "half precision rounds less than bfloat16"


@pytest.mark.parametrize("clip_s", [2.0, 5.0, 7.0])
def test_labelled_soundscapes_are_heard_as_in_training(tiny_recipe, tone_data, tmp_path, clip_s):
    """A window by the clips that cover it, or by one around it, at the edges of a file too."""
    place = make_place(tmp_path, tone_data.dataset.root, files=2, trials=0)
    dataset = load_dataset(place.data)
    data = AudioCache(folder=place.cache).build(dataset)
    encoder = write_encoder(tmp_path / "tiny.onnx", round(32_000 * clip_s))
    chain = head_chain(tiny_recipe, data, encoder, clip_s=clip_s, epochs=1)
    train_chain(chain, data, store(place.storage))
    embeddings, entry = (store(place.storage).open(task.stage_id) for task in chain)
    made = Embeddings.load(embeddings.folder)
    assert len(made.scored_WD) == 6 * (3 if clip_s == 2 else 1)
    stage = HeadStage(chain[1].config, chain[1].model, data, made, CPU)
    stage.head.load_state_dict(entry.weights())
    scored_RC = stage.soundscape_logits(6).numpy()
    detector = DeployedDetector((load_member(entry, CPU, embeddings=embeddings),), DEFAULT)
    heard = deployed_logits(store(place.storage), detector, data, "data").soundscapes_RC
    np.testing.assert_allclose(heard, scored_RC, atol=2e-3)
    with pytest.raises(InputError, match="context_s >= "):
        detector.with_procedure(Procedure(window_s=1.0, context_s=1.0))


@pytest.mark.parametrize(("name", "file"), [("timm", TIMM_WEIGHTS), ("onnx", ONNX_FILE)])
def test_an_encoder_that_was_not_kept_or_is_another_is_refused(heads, tmp_path, name, file):
    storage, (embed, head) = heads[name]
    entry, whole = store(storage).open(head.stage_id), store(storage).open(embed.stage_id)
    folder = tmp_path / "embeddings"
    shutil.copytree(whole.folder, folder)
    (folder / file).unlink()
    with pytest.raises(InputError, match=r"must be with its embeddings.*train the head again"):
        load_member(entry, CPU, embeddings=StageEntry(whole.record, folder))
    if name == "onnx":
        write_encoder(folder / file)
        with pytest.raises(InputError, match="must be the ONNX encoder that made the embeddings"):
            load_member(entry, CPU, embeddings=StageEntry(whole.record, folder))
