"""What held the training of an epoch up, and which flag helps, in one line."""

from birdclef_core.config import Precision

_BUSY_SHARE = 0.9
"""From this share of the time on, a GPU or a reading thread has no pause worth filling."""


def bottleneck_line(
    *, waited_share: float, waits_for_data: bool, gpu_share: float | None, reader_share: float, precision: Precision
) -> str:
    """Return what limited the speed of training and what would help.

    Shares are of the training time: `waited_share` that training stood still for clips, `gpu_share` that the GPU worked (None
    without a GPU), `reader_share` that a thread that reads clips worked, on average.
    """
    if waits_for_data:
        return f"Waited {waited_share:.0%} of the time for clips: {_faster_reading(reader_share)} would help."
    if gpu_share is None:
        return f"The processor is the limit ({waited_share:.0%} of the time waiting for clips): --cpus-per-trial, or a GPU, would help."
    if gpu_share < _BUSY_SHARE:
        return (
            f"The GPU was busy {gpu_share:.0%} of the time while clips were ready: several trials on one GPU (--gpus-per-trial 0.5) "
            "or a larger batch (--set batch_size=...) would fill it."
        )
    faster = "a smaller encoder" if precision == "bfloat16" else "--set precision=bfloat16"
    return f"The GPU is the limit (busy {gpu_share:.0%} of the time): {faster} would help."


def _faster_reading(reader_share: float) -> str:
    if reader_share > _BUSY_SHARE:
        return "the reading threads had no pause, so fewer trials on this machine (--max-concurrent) or --cpus-per-trial"
    return "reading is slow, so a cache on a faster disk (--cache-dir) or fewer trials at once (--max-concurrent)"
