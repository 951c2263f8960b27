"""What bundles are made of, with random weights."""

import torch
from made_up_detector import SPECIES, tiny_config

from birdclef_core.inference.bundle.writing import Contents, Part
from birdclef_core.inference.procedure import SOLUTION_2023
from birdclef_core.models.detector import Detector


def random_part(head: str, *, seed: int = 1) -> Part:
    """A small network; the classes of a CNN are not in sorted order."""
    torch.manual_seed(seed)
    model = Detector(tiny_config(head), len(SPECIES))
    with torch.no_grad():
        # As they are after training: logits differ between windows.
        for parameter in model.head.parameters():
            parameter.mul_(3)
    stage_id = {"sed": "ab", "cnn": "cd"}[head] * 32
    species = SPECIES if head == "sed" else SPECIES[::-1]
    return Part(stage_id=stage_id, souped_with=(), recipe="tiny", stage="train_bce", model=model, species=species)


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
    }
    return Contents(**{**known, **values})
