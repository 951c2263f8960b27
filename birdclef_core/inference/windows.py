"""Where the windows of a file lie, and what a model hears of each, for sound that is at hand and for sound that streams past.

All places are samples at 32 kHz, so a time is exact however long the file is.
Shapes: T samples.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.inference.procedure import Procedure

SHORTEST_REST = round(0.1 * SAMPLE_RATE_HZ)
"""Samples behind the last whole window that make a window of their own. The length of a file is not known better than to .1 s."""

_PIECE = 2**17
"""Most samples that are taken from a stream at once."""


@dataclass(frozen=True)
class Window:
    """A window of a file, from sample `start` to before sample `end`; the last one of a file may be shorter than the others."""

    start: int
    end: int

    @property
    def start_s(self) -> float:
        """Seconds from the beginning of the file to the window."""
        return self.start / SAMPLE_RATE_HZ

    @property
    def end_s(self) -> float:
        """Seconds from the beginning of the file to the end of the window."""
        return self.end / SAMPLE_RATE_HZ


class Sound(Protocol):
    """Samples of a file that can be read at a place."""

    def read(self, start: int, end: int) -> NDArray[np.float32]:
        """Return the samples from `start` to before `end`, which must be there."""
        ...


def num_whole(num_samples: int, procedure: Procedure) -> int:
    """Return the number of windows that a file of this length fills."""
    return 0 if num_samples < procedure.window else (num_samples - procedure.window) // procedure.step + 1


def num_windows(num_samples: int, procedure: Procedure) -> int:
    """Return the number of windows of a file of this length, with the one for its rest."""
    whole = num_whole(num_samples, procedure)
    return whole + _has_rest(num_samples, whole, procedure)


def window(number: int, num_samples: int, procedure: Procedure) -> Window:
    """Return a window of a file of this length."""
    start = number * procedure.step
    return Window(start, min(start + procedure.window, num_samples))


def heard(sound: Sound, start: int, num_samples: int, procedure: Procedure) -> NDArray[np.float32]:
    """Return what a model hears of the window that begins at sample `start`: its context (T,), silent where nothing is heard."""
    end = heard_until(start, num_samples, procedure)
    first = start - procedure.side
    wave_T = np.zeros(procedure.context, dtype=np.float32)
    from_sample, to_sample = max(0, first), min(first + procedure.context, end)
    if to_sample > from_sample:
        wave_T[from_sample - first : to_sample - first] = sound.read(from_sample, to_sample)
    return wave_T


def heard_until(start: int, num_samples: int, procedure: Procedure) -> int:
    """Return the sample from which on a model hears silence in the window that begins at sample `start`: the end of the file.

    With `tail` silence, what lies behind the last whole window is silent for that window too.
    """
    is_last = start // procedure.step == num_whole(num_samples, procedure) - 1
    return start + procedure.window if procedure.tail == "silence" and is_last else num_samples


def stream_windows(
    blocks: Iterable[NDArray[np.float32]], procedure: Procedure, *, first: int = 0
) -> Iterator[tuple[Window, NDArray[np.float32]]]:
    """Yield each window of a stream of samples from number `first` on, with what a model hears of it.

    Keeps a few windows of the stream in memory, whatever its length. The windows are those of `num_windows` and `heard`.
    """
    tape = Tape(blocks)
    number = first
    # The last whole window is known by the next one not being there.
    ahead = procedure.window + max(procedure.side, procedure.step)
    while True:
        start = number * procedure.step
        tape.forget(start - procedure.side)
        tape.reach(start + ahead)
        if tape.is_over and number >= num_windows(tape.length, procedure):
            return
        yield window(number, tape.length, procedure), heard(tape, start, tape.length, procedure)
        number += 1


def _has_rest(num_samples: int, whole: int, procedure: Procedure) -> bool:
    if not whole:
        return num_samples > 0
    covered = (whole - 1) * procedure.step + procedure.window
    return num_samples - max(covered, whole * procedure.step) >= SHORTEST_REST


class Tape:
    """The part of a stream of samples that is still needed; it is read from its beginning to its end."""

    def __init__(self, blocks: Iterable[NDArray[np.float32]]) -> None:
        self._pieces = _in_pieces(blocks)
        self._held: deque[tuple[int, NDArray[np.float32]]] = deque()
        self._needed_from = 0
        self.length = 0
        """Samples that have come by."""
        self.is_over = False

    def forget(self, before: int) -> None:
        """Let go of what lies before sample `before`."""
        self._needed_from = before
        while self._held and self._held[0][0] + len(self._held[0][1]) <= before:
            self._held.popleft()

    def reach(self, end: int) -> None:
        """Take from the stream until sample `end` has come by, or the stream is over."""
        while self.length < end and not self.is_over:
            piece = next(self._pieces, None)
            if piece is None:
                self.is_over = True
                return
            if self.length + len(piece) > self._needed_from:
                self._held.append((self.length, piece))
            self.length += len(piece)

    def read(self, start: int, end: int) -> NDArray[np.float32]:
        """Return samples that have come by and have not been let go of."""
        wave_T = np.empty(end - start, dtype=np.float32)
        for first, piece in self._held:
            from_sample, to_sample = max(start, first), min(end, first + len(piece))
            if from_sample < to_sample:
                wave_T[from_sample - start : to_sample - start] = piece[from_sample - first : to_sample - first]
        return wave_T


def _in_pieces(blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    for block in blocks:
        for place in range(0, len(block), _PIECE):
            yield block[place : place + _PIECE]
