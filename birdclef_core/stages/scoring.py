"""Scores a model on the validation recordings or on soundscapes: each window once, with the maximum over a recording's windows.

Shapes: B windows, T samples, K channels, F mel bins, N frames, C species, R rows that are scored.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from birdclef_core.data.windows import Windows
from birdclef_core.errors import TrainingError
from birdclef_core.models.detector import Detector
from birdclef_core.stages.interruption import StageInterrupted, Stop, never
from birdclef_core.stages.precision import Arithmetic
from birdclef_core.stages.training_step import to_float


class Scorer:
    """Scores recordings in the precision of training. If memory is too small, it takes fewer windows at once."""

    def __init__(self, model: Detector, windows: Windows, arithmetic: Arithmetic, device: torch.device) -> None:
        self._model, self._windows, self._arithmetic, self._device = model, windows, arithmetic, device
        self._at_once: int | None = None

    @torch.inference_mode()
    def scores(self, where: str, stop: Stop = never) -> NDArray[np.float64]:
        """Return probabilities (R, C). `where` names stage and epoch in errors.

        Raises TrainingError when a score is NaN, and StageInterrupted when `stop` gives a reason.
        """
        # In float64 a sigmoid keeps the order of logits up to 36; in float32 they tie from 17 on.
        scores_RC = self.logits(where, stop).double().sigmoid().cpu().numpy()
        bad = int(np.isnan(scores_RC).any(axis=1).sum())
        if bad:
            raise TrainingError(
                f"Scores must be numbers, but those of {bad} of {len(scores_RC)} rows are not after {where}: the "
                "weights have become infinite. A lower learning rate or --set clip_gradient_norm=1 may help."
            )
        return scores_RC

    @torch.inference_mode()
    def logits(self, where: str, stop: Stop = never) -> Tensor:
        """Return the largest logits over the windows of each row, logits_RC in float32 on the device. Raises as `scores` does."""
        self._model.eval()
        logits_RC = torch.full(self._windows.truth_RC.shape, -torch.inf, device=self._device)
        for batch in self._windows:
            logits_BC = self._logits(batch.wave_BT)
            index_BC = batch.recording_B.to(self._device, non_blocking=True)[:, None].expand_as(logits_BC)
            logits_RC.scatter_reduce_(0, index_BC, logits_BC, "amax")
            if reason := stop():
                raise StageInterrupted(f"{where} was interrupted while it was scored: {reason}")
        return logits_RC

    def _logits(self, wave_BT: Tensor) -> Tensor:
        """logits_BC of windows, computed in parts that fit into memory; the parts do not change the result."""
        while True:
            try:
                return torch.cat([self._forward(part) for part in wave_BT.split(self._at_once or len(wave_BT))])
            except torch.OutOfMemoryError:
                if self._at_once == 1:
                    raise
            self._at_once = -(-(self._at_once or len(wave_BT)) // 2)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _forward(self, wave_BT: Tensor) -> Tensor:
        mel_BKFN = self._model.spectrograms(to_float(wave_BT, self._device))
        with self._arithmetic.autocast():
            return self._model(mel_BKFN).logits_BC.float()
