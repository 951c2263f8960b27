"""torch.compile where it pays: tried on a real batch when a stage starts, kept when it was faster, said in one line."""

import time
from collections.abc import Callable

from birdclef_core.data.feed import TrainBatch
from birdclef_core.models.detector import Detector
from birdclef_core.stages.training_step import TrainingStep

_WORTHWHILE = 0.97
"""A step must take less than this share of the time that it took before."""


def compile_if_faster(model: Detector, step: TrainingStep, batch: TrainBatch, on_note: Callable[[str], None]) -> bool:
    """Whether the encoder now runs compiled. The trial leaves weights, statistics and gradients as they were.

    What went wrong in the compiler is said and the stage goes on without it: it is there to save time, not to be needed.
    """
    step.rehearse(batch)
    plain_s = min(step.rehearse(batch) for _ in range(2))
    started = time.perf_counter()
    try:
        model.compile_encoder(True)
        step.rehearse(batch)
        compile_s = time.perf_counter() - started
        compiled_s = min(step.rehearse(batch) for _ in range(2))
    except Exception as error:
        model.compile_encoder(False)
        on_note(f"torch.compile: not used, because it failed here ({type(error).__name__}: {str(error).splitlines()[0]:.200}).")
        return False
    pays = compiled_s < _WORTHWHILE * plain_s
    model.compile_encoder(pays)
    on_note(
        f"torch.compile: {'used' if pays else 'not used'}; a step takes {compiled_s:.3g} s with it and {plain_s:.3g} s without, "
        f"and it took {compile_s:.0f} s to compile."
    )
    return pays
