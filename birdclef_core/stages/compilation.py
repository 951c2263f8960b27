"""Compiles the encoder where that pays: tried on a real batch when a stage starts, and kept if it is faster."""

import time
from collections.abc import Callable

from birdclef_core.data.feed import TrainBatch
from birdclef_core.models.detector import Detector
from birdclef_core.stages.training_step import TrainingStep

_WORTHWHILE = 0.97
"""A compiled step must take less than this share of the time of a plain one."""


def compile_if_faster(model: Detector, step: TrainingStep, batch: TrainBatch, on_note: Callable[[str], None]) -> bool:
    """Try torch.compile, keep it if it is faster, and return whether the encoder now runs compiled.

    The try changes no weights, statistics or gradients. `on_note` is called with one line on the result. An error of the compiler is
    reported in the same way, and the stage continues without it.
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
