"""Pictures are drawn for ordinary, short and partly undefined input, and show what is true."""

from pathlib import Path

import numpy as np
import pytest

from birdclef_core.reports import pictures
from birdclef_core.reports.pictures import save_curves, save_predictions

PNG = b"\x89PNG"


def epoch(number: int) -> dict:
    scores = {
        "cmap_pad5": 0.4 + number / 40,
        "cmap": 0.1 + number / 30,
        "cmap_chance": 0.1,
        "lrap": 0.2 + number / 30,
        "auroc": 0.8,
    }
    return {"epoch": number, "train_loss": 3 / number, "scores": scores}


@pytest.mark.parametrize("epochs", [1, 12])
def test_curves(tmp_path: Path, epochs: int) -> None:
    save_curves([epoch(number) for number in range(1, epochs + 1)], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(PNG)


def test_curves_of_undefined_scores(tmp_path: Path) -> None:
    history = [{"train_loss": 1.0, "scores": {"cmap_pad5": 1.0, "cmap": float("nan"), "auroc": float("nan")}}]
    save_curves(history, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize("species", [2, 30])
def test_predictions(tmp_path: Path, species: int) -> None:
    generator = np.random.default_rng(0)
    truth = np.zeros(species)
    truth[[0, 1]] = [1, 0.9]
    mel = generator.normal(-40, 10, (64, 200)).astype(np.float32)
    names = [f"species{i}" for i in range(species)]
    save_predictions(mel, truth, generator.random(species).astype(np.float32), names, tmp_path / "predictions.png")
    assert (tmp_path / "predictions.png").read_bytes().startswith(PNG)


def test_true_species_are_shown_also_when_ranked_low() -> None:
    scores = np.linspace(1, 0, 30)
    is_true = np.zeros(30, bool)
    is_true[[2, 25]] = True
    rows = pictures._shown(is_true, scores)
    assert rows == [(n + 1, n) for n in range(10)] + [(26, 25)]
