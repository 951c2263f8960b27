"""The recordings that score candidates: the mean over folds, and what must not have learned from them."""

from dataclasses import replace

import numpy as np
import pytest
from made_up_ensembles import SPECIES_OF_TONES, Place, make_place, save_folds
from made_up_store import store

from birdclef_core.data.dataset import load_dataset
from birdclef_core.data.targets import validation_truth
from birdclef_core.errors import InputError
from birdclef_core.evaluation.metrics import cmap
from birdclef_core.inference.logits import DeployedLogits
from birdclef_core.taxonomy import LabelSpace
from sweeps.deploy.folded import find_trials
from sweeps.deploy.scored_data import ScoredData, find_leaks, require_unchanged, require_unlearnt
from sweeps.execution.audio_cache import AudioCache
from sweeps.execution.recordings import FoundRecordings


@pytest.fixture(scope="module")
def place(tone_data, tmp_path_factory) -> Place:
    place = make_place(tmp_path_factory.mktemp("scored"), tone_data.dataset.root, trials=0)
    save_folds(place)
    return place


@pytest.fixture(scope="module")
def data(place) -> ScoredData:
    dataset, cache = load_dataset(place.data), AudioCache(folder=place.cache)
    return ScoredData(tuple(FoundRecordings(dataset=dataset.of_fold(fold), cache=cache, pretrained="off") for fold in range(2)))


def test_a_mean_over_folds_scores_each_fold_by_itself(data):
    """A model that is sure of all in one fold, and of nothing in the other, loses by a common ranking alone."""
    space = LabelSpace.of("deployed", SPECIES_OF_TONES)
    truths = [validation_truth(found.dataset, space)[1] for found in data.folds]
    logits_RC = np.concatenate([truths[0] + 10.0, truths[1] - 10.0]).astype(np.float32)
    rows = data.rows("recordings", SPECIES_OF_TONES, [DeployedLogits(recordings_RC=logits_RC, soundscapes_RC=logits_RC[:0])])
    assert np.array_equal(rows.truth_RC, np.concatenate(truths).astype(bool)) and rows.num_groups > 1
    assert data.means_of_folds(rows, SPECIES_OF_TONES, "cmap") == (1.0,)
    assert cmap(rows.truth_RC, 1 / (1 + np.exp(-logits_RC))) < 1


def test_the_data_of_several_folds_have_a_fingerprint_of_their_own(data):
    first, second = (ScoredData((found,)).fingerprint for found in data.folds)
    assert first == data.first.fingerprint and len({first, second, data.fingerprint}) == 3


def test_each_model_is_compared_with_the_recordings_of_its_own_fold(place, data):
    """With the folds the other way round, each of them has learned from what it is scored by."""
    candidates = find_trials(place.storage, ["s"]).found
    other = ScoredData(data.folds[::-1])
    assert not find_leaks(store(place.storage), data, candidates).found
    assert len(find_leaks(store(place.storage), other, candidates).found) == len(candidates)
    require_unchanged(data, candidates[0])
    with pytest.raises(InputError, match="but they have changed since"):
        require_unchanged(other, candidates[0])


def test_a_second_fold_may_leak_too(place, data):
    candidates = find_trials(place.storage, ["s"]).found
    first, second = (item.networks for item in candidates)
    mixed = replace(candidates[0], networks=(first[0], second[0]))
    assert len(find_leaks(store(place.storage), data, [mixed]).found) == 1


def test_what_may_calibrate(place, data):
    stages = store(place.storage)
    assert require_unlearnt(stages, ["1" * 64], data.folds[0].dataset) == ""
    with pytest.raises(InputError, match=r"must not have trained it, but .* trained stage 222222222222"):
        require_unlearnt(stages, ["1" * 64, "2" * 64], data.folds[0].dataset)
    assert "not known" in require_unlearnt(stages, ["e" * 64], data.folds[0].dataset)
    assert "their storage is not there" in require_unlearnt(None, ["1" * 64], data.folds[0].dataset)
