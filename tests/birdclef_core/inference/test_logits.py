"""Logits as deployed, of recordings and labelled soundscapes, are those of the files themselves, and computed once."""

import shutil
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
import pytest
from made_up_detector import Loudness, loudness_detector, write_sound

from birdclef_core.data.cache import build_cache, build_soundscape_cache
from birdclef_core.data.dataset import load_dataset
from birdclef_core.data.targets import validation_truth
from birdclef_core.errors import InputError
from birdclef_core.inference.deployed import DeployedDetector
from birdclef_core.inference.logits import deployed_logits
from birdclef_core.inference.procedure import DEFAULT, SOLUTION_2023, Procedure
from birdclef_core.inference.results.formats import AudioFile
from birdclef_core.inference.run.predictor import Predictor
from birdclef_core.stages.training_data import TrainingData
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage

SPECIES = ("low", "top")


@pytest.fixture(scope="module")
def data(tone_data, tmp_path_factory):
    """The recordings of `tone_data` with two labelled soundscapes; the second has a rest behind its whole windows."""
    root = tmp_path_factory.mktemp("soundscapes") / "data"
    shutil.copytree(tone_data.dataset.root, root)
    for name, seconds in (("one", 15.0), ("two", 12.5)):
        write_sound(root / "test_soundscapes" / f"{name}.wav", seconds, seed=len(name))
    rows = ["row_id,labels", *(f"{name},low" for name in ("one_5", "one_15", "two_10", "one_10", "two_5"))]
    (root / "test_soundscapes_labels.csv").write_text("\n".join(rows) + "\n")
    dataset, folder = load_dataset(root), root.parent / "cache"
    soundscape_cache = build_soundscape_cache(dataset.soundscapes, folder)
    return TrainingData(dataset=dataset, cache=build_cache(dataset, folder), soundscape_cache=soundscape_cache)


@pytest.fixture
def store(tmp_path):
    return StageStore(Storage.parse(str(tmp_path / "store")))


def detector(procedure: Procedure = DEFAULT, model_id: str = "1" * 64) -> DeployedDetector:
    member = loudness_detector().members[0]
    return DeployedDetector(
        (replace(member, model_id=model_id, species=SPECIES, runtime=Loudness(True, (1.0, -20.0))),), procedure
    )


def logits_of_file(path, procedure: Procedure) -> np.ndarray:
    heard, _ = Predictor(detector(procedure)).hear(AudioFile(path, "", path.parent, PurePosixPath("x")))
    return heard.logits_WC


@pytest.mark.parametrize("procedure", [DEFAULT, replace(SOLUTION_2023, remove_mean=True), Procedure(context_s=5.0, pool="clip")])
def test_they_are_what_prediction_gives_for_the_files(data, store, procedure):
    logits = deployed_logits(store, detector(procedure), data, "d" * 64, batch_size=4)
    folder = data.dataset.root / "test_soundscapes"
    one, two = (logits_of_file(folder / f"{name}.wav", procedure) for name in ("one", "two"))
    assert len(one) == len(two) == 3
    np.testing.assert_allclose(logits.soundscapes_RC, [one[0], one[2], two[1], one[1], two[0]], atol=2e-3)
    rows_R, _ = validation_truth(data.dataset, data.dataset.target_species)
    paths = [data.dataset.root / data.dataset.recordings["path"].iloc[row] for row in rows_R]
    expected = [logits_of_file(path, procedure).max(axis=0) for path in paths]
    assert len(expected) > 1
    np.testing.assert_allclose(logits.recordings_RC, expected, atol=2e-3)
    assert logits.recordings_RC.dtype == logits.soundscapes_RC.dtype == np.float32


def test_they_are_computed_once_for_a_stage_data_and_procedure(data, store):
    def runs(procedure=DEFAULT, data_fingerprint="d" * 64, model_id="1" * 64) -> bool:
        heard = detector(procedure, model_id)
        deployed_logits(store, heard, data, data_fingerprint)
        return bool(heard.members[0].runtime.shapes)

    first = deployed_logits(store, detector(), data, "d" * 64)
    again = deployed_logits(store, detector(), data, "d" * 64)
    assert not runs()
    assert np.array_equal(first.recordings_RC, again.recordings_RC) and np.array_equal(first.soundscapes_RC, again.soundscapes_RC)
    assert runs(Procedure(context_s=5.0)) and runs(data_fingerprint="e" * 64) and runs(model_id="2" * 64)
    assert not runs(Procedure(context_s=5.0))


def test_what_is_damaged_is_computed_again(data, store, tmp_path):
    deployed_logits(store, detector(), data, "d" * 64)
    (file,) = (tmp_path / "store" / "logits").rglob("*.safetensors")
    file.write_bytes(b"rubbish")
    logits = deployed_logits(store, detector(), data, "d" * 64)
    assert logits.soundscapes_RC.shape == (5, 2)


def test_they_go_with_their_stage(data, store, tmp_path):
    for model_id in ("1" * 64, "2" * 64):
        deployed_logits(store, detector(model_id=model_id), data, "d" * 64)
    store.remove("1" * 64)
    assert [path.name for path in (tmp_path / "store" / "logits").iterdir()] == ["2" * 64]


def test_those_of_a_mean_of_weights_are_kept_with_a_stage(data, store, tmp_path):
    deployed_logits(store, detector(model_id="3" * 64), data, "d" * 64, kept_with="1" * 64)
    heard = detector(model_id="3" * 64)
    deployed_logits(store, heard, data, "d" * 64, kept_with="1" * 64)
    assert not heard.members[0].runtime.shapes
    own = detector(model_id="1" * 64)
    deployed_logits(store, own, data, "d" * 64)
    assert own.members[0].runtime.shapes, "the stage itself has others"
    assert [path.name for path in (tmp_path / "store" / "logits").iterdir()] == ["1" * 64]


def test_data_without_soundscapes_have_logits_of_recordings_only(tone_data, store):
    logits = deployed_logits(store, detector(), tone_data, "d" * 64)
    assert logits.soundscapes_RC.shape == (0, 2) and len(logits.recordings_RC) > 1


def test_a_recording_that_could_not_be_decoded_is_silence(data, store, monkeypatch):
    monkeypatch.setattr(type(data.cache), "num_samples", lambda self, row: 0)
    logits = deployed_logits(store, detector(), data, "f" * 64)
    assert len(np.unique(logits.recordings_RC, axis=0)) == 1 and np.isfinite(logits.recordings_RC).all()


def test_windows_must_be_those_of_the_labels(data, store):
    with pytest.raises(InputError, match="window_s == 5 must hold"):
        deployed_logits(store, detector(Procedure(window_s=3.0)), data, "d" * 64)


def test_progress_counts_windows(data, store):
    seen = []
    deployed_logits(store, detector(), data, "d" * 64, batch_size=4, progress=lambda done, of: seen.append((done, of)))
    assert [of for _, of in seen] == [seen[-1][0]] * len(seen) and [done for done, _ in seen] == sorted(done for done, _ in seen)
