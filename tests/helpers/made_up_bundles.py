"""What bundles are made of, with random weights."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from made_up_detector import SPECIES, tiny_config, write_sound

from birdclef_core.inference.bundle.examples import Examples
from birdclef_core.inference.bundle.writing import Contents, Part
from birdclef_core.inference.procedure import SOLUTION_2023
from birdclef_core.models.detector import Detector


def random_part(head: str, *, encoder: str = "mobilenetv3_small_050", seed: int = 1) -> Part:
    """A small network; the classes of a CNN are not in sorted order."""
    torch.manual_seed(seed)
    model = Detector(tiny_config(head, encoder), len(SPECIES))
    with torch.no_grad():
        # As they are after training: logits differ between windows.
        for parameter in model.head.parameters():
            parameter.mul_(3)
    stage_id = {"sed": "ab", "cnn": "cd"}[head] * 32
    species = SPECIES if head == "sed" else SPECIES[::-1]
    return Part(stage_id=stage_id, souped_with=(), recipe="tiny", stage="train_bce", model=model, species=species)


@cache
def examples(num_windows: int = 64) -> Examples:
    """Noise whose level and species change from window to window."""
    generator = np.random.default_rng(0)
    wave_RT = generator.uniform(-1, 1, (num_windows, 320_000)).astype(np.float32) * generator.uniform(0.01, 0.5, (num_windows, 1))
    truth_RC = generator.integers(0, 2, (num_windows, len(SPECIES)), dtype=np.uint8)
    return Examples(wave_RT=wave_RT.astype(np.float32), truth_RC=truth_RC, source="made up")


def contents(*parts: Part, **values) -> Contents:
    """One or two networks; `values` replace fields."""
    known = {
        "parts": parts,
        "weights_of_first": ((1.0,), (0.75, 0.25))[: len(parts)],
        "procedure": SOLUTION_2023,
        "names": {"alpha": "Alpha bird", "other": "Other bird"},
        "source": "made up",
        "format": "torch",
        "precision": "float32",
        "examples": examples(),
    }
    return Contents(**{**known, **values})


def made_up_data(root: Path, *, num_windows: int) -> Path:
    """A data folder: two recordings by each of five authors a species, of a second, and a soundscape with labelled windows."""
    rows = []
    for species in SPECIES:
        for number in range(10):
            name = f"{species}/{number}.wav"
            write_sound(root / "train_audio" / name, 1.0, seed=number)
            rows.append(
                {
                    "primary_label": species,
                    "secondary_labels": "[]",
                    "filename": name,
                    "author": f"Author {number // 2}",
                    "rating": 4,
                }
            )
    pd.DataFrame(rows).to_csv(root / "train.csv", index=False)
    write_sound(root / "test_soundscapes" / "scape.wav", 5.0 * num_windows)
    labels = [{"row_id": f"scape_{5 * number + 5}", "labels": " ".join(SPECIES[: number % 4])} for number in range(num_windows)]
    pd.DataFrame(labels).to_csv(root / "test_soundscapes_labels.csv", index=False)
    return root
