"""Procedures: how long the windows of a file are, how much a model hears around each, and how its outputs become one logit a species.

One code path runs all of them. A procedure is its settings, so its fingerprint says whether two logits are comparable.
Shapes: N frames of a spectrogram, S segments of time (the width of a SED's feature map).
"""

from dataclasses import dataclass
from typing import Literal, get_args

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.errors import InputError
from birdclef_core.identity import fingerprint
from birdclef_core.stages.embeddings.clips import clips_around

Pool = Literal["frames", "clip"]
Tail = Literal["audio", "silence"]


@dataclass(frozen=True, kw_only=True)
class Procedure:
    """The settings of a procedure."""

    window_s: float = 5.0
    """Length of a window in seconds: each gets one score a species."""
    context_s: float = 10.0
    """Seconds that a model hears of each window: the window lies in the middle."""
    step_s: float = 5.0
    """Seconds from the start of a window to the start of the next."""
    pool: Pool = "frames"
    """`frames`: a SED's largest logit over the segments of the window; `clip`: its attention over everything that it hears.

    A CNN always pools the frames of the window."""
    shift_share: float = 0.125
    """Shift of the window to either side for two more readings of a SED, as a share of the context (in segments, rounded up)."""
    side_weight: float = 0.0
    """Weight of the probabilities of each of the two shifted readings; the unshifted one has what is left to 1."""
    tail: Tail = "audio"
    """What a model hears behind the last whole window of a file: the audio that is there, or silence."""
    remove_mean: bool = True
    """Whether the mean of a recording is subtracted from its samples, as in training."""

    def __post_init__(self) -> None:
        if self.pool not in get_args(Pool) or self.tail not in get_args(Tail):
            raise InputError(f"pool must be one of {get_args(Pool)} and tail one of {get_args(Tail)}, but got {self}.")
        for name in ("window_s", "context_s", "step_s"):
            if not 0.1 <= getattr(self, name) <= 600:
                raise InputError(f"0.1 <= {name} <= 600 must hold, but got {name}={getattr(self, name)}.")
        if self.context_s < self.window_s:
            raise InputError(f"context_s >= window_s must hold, but got context_s={self.context_s}, window_s={self.window_s}.")
        if not (0 <= self.shift_share <= 0.25 and 0 <= self.side_weight < 0.5):
            raise InputError(
                "0 <= shift_share <= 0.25 and 0 <= side_weight < 0.5 must hold, but got "
                f"shift_share={self.shift_share}, side_weight={self.side_weight}."
            )

    @property
    def window(self) -> int:
        """Samples of a window."""
        return round(self.window_s * SAMPLE_RATE_HZ)

    @property
    def side(self) -> int:
        """Samples that a model hears on each side of a window."""
        return round((self.context_s - self.window_s) / 2 * SAMPLE_RATE_HZ)

    @property
    def context(self) -> int:
        """Samples that a model hears of a window."""
        return self.window + 2 * self.side

    @property
    def step(self) -> int:
        """Samples from the start of a window to the start of the next."""
        return round(self.step_s * SAMPLE_RATE_HZ)

    @property
    def fingerprint(self) -> str:
        """Hash of the settings."""
        return fingerprint(self)

    def frames(self, num_frames: int, hop_length: int) -> tuple[int, int]:
        """Return the first frame of the window in a spectrogram of the context, and the frame behind its last.

        These are ceil(window / hop) frames from the first one at or after the window's start; all where nothing is heard around
        the window.
        """
        if not self.side:
            return 0, num_frames
        first = -(-self.side // hop_length)
        return first, min(num_frames, first - (-self.window // hop_length))

    def clips(self, clip: int) -> tuple[int, ...]:
        """Return the first sample, in the context, of each clip of so many samples by which a head on embeddings hears the window."""
        return clips_around(self.window, self.side, clip)

    def segments(self, num_segments: int) -> tuple[int, int]:
        """Return the first segment of the window in a feature map of the context, and the segment behind its last; at least one."""
        first = num_segments * self.side // self.context
        last = num_segments * (self.side + self.window) // self.context
        return first, max(last, first + 1)

    def shift(self, num_segments: int) -> int:
        """Return by how many segments the window is shifted for the two more readings."""
        return int(-(-num_segments * self.shift_share // 1))


SOLUTION_2023 = Procedure(side_weight=0.25, tail="silence", remove_mean=False)
"""The procedure of the 2023 solution. Its shifts are 3, 3 and 2 segments of 24, 19 and 16; silence follows the last whole window."""
DEFAULT = Procedure(side_weight=0.25)
"""The procedure of this project, chosen by a measurement on labelled soundscapes: docs/benchmarks/inference.md."""
PROCEDURES = {"default": DEFAULT, "2023": SOLUTION_2023}


def get_procedure(name: str) -> Procedure:
    """Return the procedure of that name. Raises InputError, with the known names, when there is none."""
    if name not in PROCEDURES:
        raise InputError(f"There is no procedure {name!r}; those that exist: {', '.join(PROCEDURES)}.")
    return PROCEDURES[name]
