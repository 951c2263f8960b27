"""A trained stage that never was: five species, of which one has no validation recording."""

import numpy as np
import pandas as pd
import pytest

from birdclef_core.evaluation.jackknife import standard_errors
from birdclef_core.evaluation.metrics import summarise
from birdclef_core.recipes import sed_b3ns
from birdclef_core.reports.outcome import StageOutcome
from birdclef_core.store.stage_store import StageRecord

SPECIES = ["aldfly", "barswa", "<carwre>", "dunlin", "easmea"]


def made_up_epoch(number: int, scores: dict[str, float]) -> dict:
    times = {"clips_per_s": 100.0, "waited_s": 0.5, "device_s": 90.0, "evaluate_s": 5.0, "memory_bytes": 2**30}
    return {
        "epoch": number,
        "train_loss": 1 / number,
        "learning_rate": 1e-3,
        "scores": scores,
        "bottleneck": "All is well.",
        **times,
    }


@pytest.fixture
def outcome() -> StageOutcome:
    rng = np.random.default_rng(0)
    truth_RC = np.zeros((40, 5), np.uint8)
    truth_RC[np.arange(40), np.arange(40) % 4] = 1
    score_RC = np.clip(rng.random((40, 5)) * 0.5 + 0.4 * truth_RC, 0, 1)
    score_RC[0] = [0.01, 0.9, 0.8, 0.7, 0.6]  # its species, the first, ranks last
    recipe = sed_b3ns()
    scores = summarise(truth_RC, score_RC)
    scores |= {f"{name}_se": error for name, error in standard_errors(truth_RC, score_RC, np.arange(40) // 4).items()}
    record = StageRecord(
        stage_id="a1" * 32,
        parent_id="b2" * 32,
        recipe=recipe.name,
        stage="train_bce",
        identity={"data": "d4" * 32, "code": "c0de", "parent": "b2" * 32},
        species=SPECIES,
        metrics=scores,
        history=[made_up_epoch(number, scores) for number in (1, 2, 3)],
        cost_s=3725.0,
        surgery="603 entries carried over exactly",
        environment={"device": "a GPU", "torch": "2.11"},
        finished_at="2026-11-22T12:00:00+00:00",
    )
    recordings = pd.DataFrame(
        {"recording_id": [f"XC{n}" for n in range(40)], "author": ["", *["Ann & Co"] * 39], "duration_s": 42.0}
    )
    return StageOutcome(
        record=record,
        model=recipe.model,
        config=recipe.stages[3],
        recordings=recordings,
        truth_RC=truth_RC,
        score_RC=score_RC,
        spectrogram=lambda row: (rng.normal(-40, 10, (128, 900)).astype(np.float32), 30.0),
    )
