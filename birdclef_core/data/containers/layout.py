"""Describes the sound in a file by the file's structure: how long it is, what is damaged, and how to read past the damage."""

from dataclasses import dataclass
from typing import Literal

TOLERANCE_S = 0.1
"""Lengths that differ by less are the same: an encoder's padding, not a loss."""

MOST_SILENCE_S = 600.0
"""A gap that is said to be longer is not filled with silence: what the file says is likely wrong."""


@dataclass(frozen=True)
class Fault:
    """Something about a file's structure that is not as it should be."""

    kind: Literal["cut", "gap", "length"]
    """cut: the end is missing. gap: something before the end is missing or damaged. length: all sound is there, but the file
    states another length, or none."""
    text: str
    """What is wrong, in words, without the file's name."""


@dataclass(frozen=True)
class Part:
    """A stretch of the file that libsndfile decodes as a file of its own."""

    pieces: tuple[bytes | tuple[int, int], ...]
    """What it consists of, in order: bytes, or (start, end) in the file."""
    is_open_ended: bool = False
    """The decoder would guess its length from its size and stop there, so it is given a size without end (MP3 without a tag)."""
    end_frame: int | None = None
    """Position after its last sample in the stream it belongs to, in `ticks_per_s`, where the structure says so."""
    ticks_per_s: int | None = None
    """Unit of `end_frame`; None: samples."""
    starts_stream: bool = True
    """Positions begin again here."""
    follows_gap: bool = False
    """Something before it is missing, which silence stands for."""
    silence_frames: int = 0
    """Length of that silence, where the structure says it and not `end_frame`."""


@dataclass(frozen=True)
class Layout:
    """What the structure of one file says."""

    num_frames: int | None = None
    """Samples of each channel that are there; None: as many as libsndfile says."""
    stated_frames: int | None = None
    """Samples of each channel that the file states; None: as many as libsndfile says."""
    parts: tuple[Part, ...] = ()
    """How to read the file where libsndfile alone does not read all of it."""
    needs_parts: bool = False
    """libsndfile alone certainly does not. Otherwise the parts are taken where it refuses the file or says a smaller length."""
    faults: tuple[Fault, ...] = ()
