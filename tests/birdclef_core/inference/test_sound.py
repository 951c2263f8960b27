"""A file is read in order, as training reads it or as it was recorded, whatever its rate, channels and faults."""

import numpy as np
import pytest
import soundfile
from made_up_detector import write_sound

from birdclef_core.data.decode import decode
from birdclef_core.errors import DataError
from birdclef_core.inference.procedure import DEFAULT, SOLUTION_2023
from birdclef_core.inference.sound import SoundFile


def whole(path, procedure) -> np.ndarray:
    return np.concatenate(list(SoundFile(path, procedure).blocks()))


@pytest.mark.parametrize("rate_hz", [32_000, 44_100])
def test_the_default_procedure_hears_what_training_hears(tmp_path, rate_hz):
    path = write_sound(tmp_path / "a.wav", 3.0, rate_hz=rate_hz)
    assert np.array_equal(whole(path, DEFAULT), decode(path))


def test_the_2023_procedure_hears_the_samples_of_the_file(tmp_path):
    samples_T = (np.sin(np.arange(40_000) / 9) * 8_000 + 3_000).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", samples_T, 32_000, subtype="PCM_16")
    assert np.array_equal(whole(tmp_path / "a.wav", SOLUTION_2023), samples_T / np.float32(32_768))
    assert abs(whole(tmp_path / "a.wav", DEFAULT).mean()) < 1e-6


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
def test_without_the_mean_both_procedures_hear_the_same_at_other_rates(tmp_path, rate_hz):
    path = write_sound(tmp_path / "a.wav", 9.0, rate_hz=rate_hz)
    recorded_T, trained_T = whole(path, SOLUTION_2023), whole(path, DEFAULT)
    assert len(recorded_T) == len(trained_T) == 9 * 32_000
    inner = slice(1_000, -1_000)
    difference_T = recorded_T[inner] - trained_T[inner]
    assert np.abs(difference_T - difference_T.mean()).max() < 1e-5


def test_channels_are_averaged_and_what_is_no_number_is_silence(tmp_path):
    wave_TC = np.array([[0.2, 0.4], [np.nan, 0.5], [np.inf, 1.0], [0.0, -0.5]], dtype=np.float32)
    soundfile.write(tmp_path / "a.wav", wave_TC, 32_000, subtype="FLOAT")
    np.testing.assert_allclose(whole(tmp_path / "a.wav", SOLUTION_2023), [0.3, 0.25, 1.0, -0.25], atol=1e-7)


@pytest.mark.parametrize("procedure", [DEFAULT, SOLUTION_2023])
def test_a_file_that_is_no_audio_is_named(tmp_path, procedure):
    for name, content in (("text.wav", b"no audio"), ("empty.flac", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} must be audio that can be decoded"):
            whole(tmp_path / name, procedure)
    soundfile.write(tmp_path / "silent.wav", np.zeros(0, dtype=np.float32), 32_000)
    with pytest.raises(DataError, match="has no samples"):
        whole(tmp_path / "silent.wav", procedure)


@pytest.mark.parametrize("procedure", [DEFAULT, SOLUTION_2023])
def test_a_file_that_is_cut_off_is_read_as_far_as_it_goes_and_says_so(tmp_path, procedure):
    path = write_sound(tmp_path / "a.wav", 4.0)
    path.write_bytes(path.read_bytes()[:-64_000])
    sound = SoundFile(path, procedure)
    assert sum(len(block) for block in sound.blocks()) == 3 * 32_000
    assert "3.0 s" in sound.faults[0]
