"""Precision of a stage: bfloat16 or TF32 in the encoder if the config says so, float32 for everything else."""

import torch

from birdclef_core.config import Precision
from birdclef_core.errors import InputError


class Arithmetic:
    """The arithmetic of a stage on its device."""

    def __init__(self, precision: Precision, device: torch.device) -> None:
        """Set the TF32 switches of the process, in which one stage runs at a time.

        Raises InputError for bfloat16 on a GPU that does not have it.
        """
        if precision == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise InputError(
                f"precision='bfloat16' needs a GPU that has it (compute capability 8.0 or more), but this one is a "
                f"{torch.cuda.get_device_name(device)}: use --set precision=float32."
            )
        self._precision, self._device = precision, device
        # By default torch rounds convolutions to TF32, so float32 must be set too.
        allowed = "tf32" if precision == "tf32" else "ieee"
        torch.backends.cuda.matmul.fp32_precision = allowed
        torch.backends.cudnn.conv.fp32_precision = allowed  # type: ignore[attr-defined]

    def autocast(self) -> torch.autocast:
        """Return the context for the model's forward pass. Heads and losses leave it by themselves."""
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bfloat16")
