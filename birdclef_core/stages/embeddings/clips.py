"""By which clips an encoder that takes clips of one length hears a window of sound. Training and deployed detectors share it."""


def clips_of(window: int, clip: int) -> tuple[int, ...]:
    """Return the first sample of each clip by which a window is heard, from the first sample that is heard. Lengths are in samples.

    A window that is not longer than a clip lies in the middle of one clip. A longer one is covered by as few clips as possible, evenly from its
    beginning to its end; what counts is the largest logit of them.
    """
    count = -(-window // clip)
    return tuple(round(number * (window - clip) / (count - 1)) for number in range(count)) if count > 1 else (0,)


def side_of(window: int, clip: int) -> int:
    """Return how many samples must be heard on each side of a window, so that a clip has it in its middle."""
    return -(-max(0, clip - window) // 2)


def clips_around(window: int, side: int, clip: int) -> tuple[int, ...]:
    """Return what `clips_of` does, from the first sample of a window with `side` samples on each side."""
    first = (window + 2 * side - max(window, clip)) // 2
    return tuple(first + start for start in clips_of(window, clip))
