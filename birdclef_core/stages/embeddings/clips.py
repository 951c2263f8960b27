"""By which clips an encoder that takes clips of one length hears a window of sound. Training and deployed detectors share it."""


def clips_of(window: int, clip: int) -> tuple[int, ...]:
    """Return the first sample of each clip by which a window is heard, from the first sample that is heard. Lengths are in samples.

    A window that is not longer than a clip lies in the middle of one clip. A longer one is covered by as few clips as possible, evenly from its
    beginning to its end; what counts is the largest logit of them.
    """
    count = -(-window // clip)
    return tuple(round(number * (window - clip) / (count - 1)) for number in range(count)) if count > 1 else (0,)
