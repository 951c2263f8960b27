"""Examples are windows of labelled sound, those with a species first."""

import numpy as np
import pytest
from made_up_bundles import made_up_data
from made_up_detector import SPECIES
from soundfile import read

from birdclef_core.data.dataset import load_dataset
from birdclef_core.inference.bundle.examples import find_examples, no_examples
from birdclef_core.inference.procedure import SOLUTION_2023


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return load_dataset(made_up_data(tmp_path_factory.mktemp("data"), num_windows=8))


def test_soundscapes_come_first_and_recordings_fill_up(dataset):
    found = find_examples(dataset, SPECIES, SOLUTION_2023)
    assert found.wave_RT.shape == (14, 320_000) and found.truth_RC.shape == (14, 3)
    assert found.source == f"8 windows of labelled soundscapes and 6 of validation recordings in {dataset.root}"
    # Windows 1 to 3 and 5 to 7 have species, 0 and 4 none.
    assert found.truth_RC[:8].sum(axis=1).tolist() == [1, 2, 3, 1, 2, 3, 0, 0]
    assert found.truth_RC[8:].sum(axis=1).tolist() == [1] * 6


def test_a_window_is_what_is_heard_of_it(dataset):
    found = find_examples(dataset, SPECIES, SOLUTION_2023, most=1)
    wave_T, _ = read(dataset.root / "test_soundscapes" / "scape.wav", dtype="float32")
    # Window 1, from 5 to 10 s, with 2.5 s on each side.
    np.testing.assert_allclose(found.wave_RT[0], wave_T[80_000:400_000], atol=1e-6)
    assert found.truth_RC.tolist() == [[1, 0, 0]]


def test_files_that_cannot_be_read_have_none(tmp_path):
    dataset = load_dataset(made_up_data(tmp_path, num_windows=8))
    (tmp_path / "test_soundscapes" / "scape.wav").write_bytes(b"no audio")
    assert len(find_examples(dataset, SPECIES, SOLUTION_2023).wave_RT) == 6
    assert no_examples(SOLUTION_2023, "because").wave_RT.shape == (0, 320_000)
