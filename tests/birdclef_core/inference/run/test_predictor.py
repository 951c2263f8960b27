"""Files are predicted from Python, in bounded memory, and a file that was cut off is continued where it was."""

import struct
import tracemalloc
import warnings
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from made_up_detector import loudness_detector, write_sound

from birdclef_core.errors import InputError
from birdclef_core.inference.procedure import SOLUTION_2023, Procedure
from birdclef_core.inference.results.columns import COLUMNS
from birdclef_core.inference.results.formats import AudioFile
from birdclef_core.inference.run import predictor as predictor_module
from birdclef_core.inference.run.predictor import Predictor


def audio_file(path: Path) -> AudioFile:
    return AudioFile(path, path.name, path.parent, PurePosixPath(path.stem))


@pytest.fixture
def predictor():
    return Predictor(loudness_detector(), batch_size=2)


def test_a_table_of_detections_in_three_lines(predictor, tmp_path):
    write_sound(tmp_path / "in" / "a.wav", 12.0)
    write_sound(tmp_path / "in" / "b.wav", 5.0)
    rows = predictor.predict(tmp_path / "in", top=1)
    assert {name: str(kind) for name, kind in rows.dtypes.items()} == COLUMNS
    assert rows[["start_s", "end_s"]].to_numpy().tolist() == [[0, 5], [5, 10], [10, 12], [0, 5]]
    assert [Path(name).name for name in rows["file"]] == ["a.wav"] * 3 + ["b.wav"]
    assert rows.attrs["unreadable"] == {}
    assert len(predictor.predict(str(tmp_path / "in" / "b.wav"), threshold=0.0, species=["alpha", "beta"])) == 2
    assert len(predictor.predict([tmp_path / "in" / "a.wav"], threshold=0.0, merge=True)) == 3


def test_nothing_found_is_a_table_without_rows(predictor, tmp_path):
    rows = predictor.predict(write_sound(tmp_path / "a.wav", 5.0), threshold=1.0)
    assert list(rows) == list(COLUMNS) and not len(rows)


def test_a_file_that_cannot_be_read_is_said_and_the_others_are_predicted(predictor, tmp_path):
    write_sound(tmp_path / "good.wav", 5.0)
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    with pytest.warns(UserWarning, match=r"1 files could not be read, such as .*bad\.wav"):
        rows = predictor.predict(tmp_path, top=1)
    assert len(rows) == 1 and list(rows.attrs["unreadable"]) == [str(tmp_path / "bad.wav")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor.predict(tmp_path / "good.wav")


def test_a_species_that_it_does_not_know_is_wrong_input(predictor, tmp_path):
    with pytest.raises(InputError, match="unicorn"):
        predictor.predict(write_sound(tmp_path / "a.wav", 5.0), species=["unicorn"])


def test_a_file_that_was_cut_off_is_continued_after_its_last_part(predictor, tmp_path, monkeypatch):
    monkeypatch.setattr(predictor_module, "SAVE_S", 0.0)
    path = write_sound(tmp_path / "a.wav", 33.0)
    parts, heard = [], []
    whole, _ = predictor.hear(audio_file(path), keep=parts.append, advance=heard.append)
    assert [len(part.start_W) for part in parts] == [2, 2, 2, 1] and heard == [320_000, 640_000, 960_000, 1_056_000]
    for count in range(len(parts) + 1):
        again = []
        continued, _ = predictor.hear(audio_file(path), known=parts[:count], keep=again.append)
        assert [len(part.start_W) for part in again] == [2, 2, 2, 1][count:]
        assert all(np.array_equal(a, b) for a, b in zip(vars(continued).values(), vars(whole).values(), strict=True))


def test_what_was_heard_is_kept_when_it_is_stopped(predictor, tmp_path):
    path, parts = write_sound(tmp_path / "a.wav", 33.0), []

    def stop(samples: float) -> None:
        if samples >= 640_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predictor.hear(audio_file(path), keep=parts.append, advance=stop)
    assert [len(part.start_W) for part in parts] == [4]


def test_embeddings_are_kept_where_they_are_asked_for(tmp_path):
    path = write_sound(tmp_path / "a.wav", 10.0)
    for asked, columns in ((False, 0), (True, 4)):
        whole, _ = Predictor(loudness_detector(), embeddings=asked).hear(audio_file(path))
        assert whole.embedding_WD.shape == (2, columns)


def test_the_batch_size_does_not_change_results(tmp_path):
    path = write_sound(tmp_path / "a.wav", 33.0)
    first, second = (Predictor(loudness_detector(), batch_size=size).hear(audio_file(path))[0] for size in (1, 5))
    np.testing.assert_allclose(first.logits_WC, second.logits_WC, atol=1e-6)


def write_silence(path: Path, duration_s: int) -> Path:
    """A WAV file of any length that takes no space: its samples are a hole in the file."""
    num_bytes = duration_s * 32_000 * 2
    layout = struct.pack("<IHHIIHH", 16, 1, 1, 32_000, 64_000, 2, 16)
    head = b"RIFF" + struct.pack("<I", 36 + num_bytes) + b"WAVEfmt " + layout + b"data" + struct.pack("<I", num_bytes)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + num_bytes)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("remove_mean", [True, False])
def test_memory_does_not_grow_with_the_length_of_a_file(tmp_path, remove_mean):
    """Windows of a minute, so that the time goes into reading: it is the sound that might be kept."""
    minutes = Procedure(window_s=60.0, context_s=60.0, step_s=60.0, remove_mean=remove_mean, tail=SOLUTION_2023.tail)
    peaks = []
    for hours in (1, 2):
        path = write_silence(tmp_path / f"{hours}.wav", hours * 3600)
        tracemalloc.start()
        whole, _ = Predictor(loudness_detector(procedure=minutes), batch_size=1).hear(audio_file(path))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert whole.end_W[-1] == hours * 3600 * 32_000
    assert peaks[1] < 1.1 * peaks[0] < 100e6
