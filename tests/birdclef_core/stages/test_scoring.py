"""Recordings are scored by the best of their windows, in as many parts as memory asks for."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from birdclef_core.errors import TrainingError
from birdclef_core.models.heads import Output
from birdclef_core.stages.interruption import StageInterrupted
from birdclef_core.stages.precision import Arithmetic
from birdclef_core.stages.scoring import Scorer

CPU = torch.device("cpu")
TRUTH_RC = np.array([[1, 0], [0, 1], [1, 0]], dtype=np.uint8)


class LevelModel(torch.nn.Module):
    """Logits are a window's first sample and its negative; it counts what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.room = 100

    def spectrograms(self, wave_BT):
        return wave_BT

    def forward(self, mel):
        if len(mel) > self.room:
            raise torch.OutOfMemoryError("made up")
        self.sizes.append(len(mel))
        return Output(torch.stack((mel[:, 0] * 32768, -mel[:, 0] * 32768), dim=1), None, None)


class Windows:
    """Five windows of three recordings in two batches."""

    truth_RC = TRUTH_RC

    def __iter__(self):
        waves = torch.tensor([[1, 0], [3, 0], [-2, 0], [40, 0], [-40, 0]], dtype=torch.int16)
        recordings = torch.tensor([0, 0, 1, 2, 2])
        yield SimpleNamespace(wave_BT=waves[:3], recording_B=recordings[:3])
        yield SimpleNamespace(wave_BT=waves[3:], recording_B=recordings[3:])


def scorer(model) -> Scorer:
    return Scorer(model, Windows(), Arithmetic("float32", CPU), CPU)


def test_the_maximum_over_windows_counts_and_large_logits_do_not_tie():
    model = LevelModel().train()
    scores = scorer(model).scores("epoch 1")
    expected = 1 / (1 + np.exp(-np.array([[3.0, -1.0], [-2.0, 2.0], [40.0, 40.0]])))
    assert np.allclose(scores, expected, rtol=1e-12)
    assert scores.dtype == np.float64
    assert not model.training


def test_fewer_windows_at_once_give_the_same_scores():
    whole, parts = LevelModel(), LevelModel()
    parts.room = 1
    assert np.array_equal(scorer(whole).scores(""), scorer(parts).scores(""))
    assert whole.sizes == [3, 2] and parts.sizes == [1] * 5


def test_a_window_that_does_not_fit_alone_is_out_of_memory():
    model = LevelModel()
    model.room = 0
    with pytest.raises(torch.OutOfMemoryError):
        scorer(model).scores("")


def test_scores_that_are_no_numbers_end_the_stage(monkeypatch):
    model = LevelModel()
    nothing = torch.full((1, 2), torch.nan)
    monkeypatch.setattr(model, "forward", lambda mel: Output(nothing.expand(len(mel), 2), None, None))
    with pytest.raises(TrainingError, match=r"those of 3 of 3 rows are not after epoch 2 of stage x"):
        scorer(model).scores("epoch 2 of stage x")


def test_a_stop_is_heeded_between_batches():
    model = LevelModel()
    with pytest.raises(StageInterrupted, match="epoch 2 was interrupted while it was scored: enough"):
        scorer(model).scores("epoch 2", stop=lambda: "enough")
    assert model.sizes == [3]
