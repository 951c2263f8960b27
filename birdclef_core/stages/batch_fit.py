"""Finds out how many clips fit into a device's memory at once."""

from collections.abc import Callable

from birdclef_core.errors import TrainingError


def largest_batch(fits: Callable[[int], bool], limit: int) -> int:
    """Return the largest number of clips up to `limit` that fits, to within an eighth, by doubling and then bisecting.

    `fits(n)` says whether n clips fit; if they do, every smaller number must fit too. Raises TrainingError when one clip does not fit.
    """
    if not fits(1):
        raise TrainingError(
            "A single clip must fit into the device's memory, but does not: use shorter clips or a smaller encoder."
        )
    low, high = 1, 2
    while high <= limit and fits(high):
        low, high = high, 2 * high
    high = min(high, limit + 1)
    while high - low > max(1, low // 8):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
