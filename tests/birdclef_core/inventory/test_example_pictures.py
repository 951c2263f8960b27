from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.inventory.example_pictures import choose_examples, settings_of
from birdclef_core.recipes import RECIPES


def recordings_of(tmp_path: Path, rows: list[tuple[str, str, float, float]]) -> pd.DataFrame:
    """(name, species, seconds, rating); the second half of each is loud."""
    for name, _, duration_s, _ in rows:
        num_samples = round(duration_s * 8_000)
        loudness = np.where(np.arange(num_samples) < num_samples // 2, 0.01, 0.5)
        soundfile.write(tmp_path / f"{name}.wav", loudness * np.sin(np.arange(num_samples)), 8_000)
    table = pd.DataFrame(rows, columns=["recording_id", "primary_label", "duration_s", "rating"])
    return table.assign(path=table["recording_id"] + ".wav")


def test_examples_are_of_several_species_well_rated_and_loud(tmp_path: Path) -> None:
    rows = [("a1", "a", 12.0, 2.0), ("a2", "a", 30.0, 4.0), ("a3", "a", 1.0, 5.0), ("b1", "b", 2.0, 1.0), ("b2", "b", 3.0, 1.0)]
    recordings = recordings_of(tmp_path, [*rows, ("c1", "c", 0.5, 1.0)])
    examples = choose_examples(tmp_path, recordings, 3)
    assert [example.recording_id for example in examples] == ["a2", "b2", "c1"]
    assert examples[0].start_s >= 15 and len(examples[0].wave_T) == 10 * SAMPLE_RATE_HZ
    assert [len(choose_examples(tmp_path, recordings, count)) for count in (1, 2, 9)] == [1, 2, 3]


def test_what_cannot_be_decoded_makes_way(tmp_path: Path) -> None:
    recordings = recordings_of(tmp_path, [("a1", "a", 3.0, 5.0), ("a2", "a", 3.0, 4.0)])
    (tmp_path / "a1.wav").write_bytes(b"junk")
    assert [example.recording_id for example in choose_examples(tmp_path, recordings, 1)] == ["a2"]


def test_recipes_with_the_same_bins_and_frames_share_a_picture() -> None:
    settings = settings_of({name: recipe().model.spectrogram for name, recipe in RECIPES.items()})
    assert [setting.recipes for setting in settings] == [
        ("sed_v2s",),
        ("sed_b3ns", "cnn_b3ns"),
        ("sed_seresnext26t", "cnn_resnet34d", "cnn_b0ns"),
        ("cnn_v2s",),
    ]
