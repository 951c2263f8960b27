"""The best windows of each species are cut out of their files, sample by sample."""

from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
import pytest
import soundfile
from made_up_detector import loudness_detector, write_sound

from birdclef_core.errors import DataError
from birdclef_core.inference.procedure import SOLUTION_2023
from birdclef_core.inference.results.file_logits import FileLogits
from birdclef_core.inference.results.formats import AudioFile
from birdclef_core.inference.results.selection import Selection
from birdclef_core.inference.results.snippets import Snippets


def logits(first_species, duration_s) -> FileLogits:
    start_W = np.arange(len(first_species)) * 160_000
    end_W = np.minimum(start_W + 160_000, round(duration_s * 32_000))
    logits_WC = np.full((len(first_species), 3), -5.0, dtype=np.float32)
    logits_WC[:, 0] = first_species
    return FileLogits(start_W, end_W, logits_WC, np.zeros((len(start_W), 0), np.float32))


@pytest.fixture
def files(tmp_path):
    paths = [
        write_sound(tmp_path / name, seconds, seed=number)
        for number, (name, seconds) in enumerate((("x/a.wav", 12), ("b.wav", 10)))
    ]
    return [AudioFile(path, path.name, tmp_path, PurePosixPath(path.relative_to(tmp_path)).with_suffix("")) for path in paths]


def test_the_best_windows_of_all_files_are_written(files, tmp_path):
    snippets = Snippets(tmp_path / "segments", 3, Selection().for_detector(loudness_detector()))
    snippets.add(files[0], logits([1.0, -1.0, 3.0], 12))
    snippets.add(files[1], logits([2.0, 0.5], 10))
    assert snippets.write(SOLUTION_2023) == 3
    written = sorted(path.relative_to(tmp_path / "segments").as_posix() for path in (tmp_path / "segments").rglob("*.wav"))
    assert written == ["alpha/0.731_x_a_0.0-5.0.wav", "alpha/0.881_b_0.0-5.0.wav", "alpha/0.953_x_a_10.0-12.0.wav"]
    cut_T, rate_hz = soundfile.read(tmp_path / "segments" / written[2], dtype="int16")
    whole_T, _ = soundfile.read(files[0].path, dtype="int16")
    assert rate_hz == 32_000 and np.array_equal(cut_T, whole_T[320_000:384_000])


def test_windows_of_a_file_deep_in_long_folders_are_written(files, tmp_path):
    deep = replace(files[1], place=PurePosixPath("a" * 100, "b" * 100, "c" * 100))
    snippets = Snippets(tmp_path / "segments", 1, Selection().for_detector(loudness_detector()))
    snippets.add(deep, logits([2.0], 10))
    assert snippets.write(SOLUTION_2023) == 1
    (written,) = (tmp_path / "segments").rglob("*.wav")
    assert written.name.startswith("0.881_aaa") and written.name.endswith("_0.0-5.0.wav")


def test_of_equal_scores_the_earlier_file_and_window_count(files, tmp_path):
    snippets = Snippets(tmp_path / "segments", 2, Selection().for_detector(loudness_detector()))
    snippets.add(files[0], logits([-1.0, 1.0, -1.0], 12))
    snippets.add(files[1], logits([1.0, 1.0], 10))
    snippets.write(SOLUTION_2023)
    names = sorted(path.name for path in (tmp_path / "segments").rglob("*.wav"))
    assert names == ["0.731_b_0.0-5.0.wav", "0.731_x_a_5.0-10.0.wav"]


def test_nothing_is_cut_out_where_nothing_passes(files, tmp_path):
    snippets = Snippets(tmp_path / "segments", 2, Selection(threshold=0.99).for_detector(loudness_detector()))
    snippets.add(files[0], logits([1.0, 1.0, 1.0], 12))
    assert snippets.write(SOLUTION_2023) == 0
    assert not (tmp_path / "segments").exists()


def test_a_file_that_has_become_shorter_is_named(files, tmp_path):
    snippets = Snippets(tmp_path / "segments", 1, Selection().for_detector(loudness_detector()))
    snippets.add(files[0], logits([-1.0, -1.0, 1.0], 12))
    write_sound(files[0].path, 3)
    with pytest.raises(DataError, match=r"a\.wav must be as long as when it was heard"):
        snippets.write(SOLUTION_2023)
