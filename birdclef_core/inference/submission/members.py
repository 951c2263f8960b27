"""Which members of an ensemble scored which file of a submission, and one scale for the scores of all.

When time runs short, later files are heard by fewer members. The mean of fewer logits varies more and lies elsewhere, so such files would rank
too high or too low among the others. The windows that were heard in both ways say by how much: those of the file that was being heard when
members were dropped. Shapes: W windows, C species.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from birdclef_core.inference.results.file_logits import FileLogits
from birdclef_core.json_files import to_json
from birdclef_core.output_place import writing_to

FEWEST = 4
"""Windows that must have been heard in both ways."""
_PRIOR_WINDOWS = 20
"""What a species has of its own counts by the number of windows: as if so many more were as the median of all species."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How logits of fewer members become such as all members would give."""

    factor_C: NDArray[np.float64]
    shift_C: NDArray[np.float64]
    num_windows: int
    """Windows that were heard in both ways."""

    def apply(self, logits: FileLogits) -> FileLogits:
        """Return logits on the scale of all members."""
        return replace(logits, logits_WC=(self.factor_C * logits.logits_WC + self.shift_C).astype(np.float32))

    def then(self, other: "Scale") -> "Scale":
        """Return this change and then another as one."""
        return Scale(
            factor_C=self.factor_C * other.factor_C,
            shift_C=other.factor_C * self.shift_C + other.shift_C,
            num_windows=min(self.num_windows, other.num_windows),
        )


def scale_of(few_WC: NDArray[np.floating], more_WC: NDArray[np.floating]) -> Scale | None:
    """Return what brings logits of fewer members to the mean and the spread of those of more for the same windows.

    Factor and shift of a species are drawn towards those of all species, as what is heard of one in a few windows is no measure. None where there are too few windows, or they do not differ.
    """
    count = len(few_WC)
    if count < FEWEST:
        return None
    spreads = [np.asarray(logits_WC, np.float64).std(axis=0) for logits_WC in (few_WC, more_WC)]
    if not (min(spreads[0].min(), spreads[1].min()) > 0):
        return None
    own_share = count / (count + _PRIOR_WINDOWS)
    factor_C = np.exp(_drawn_together(np.log(spreads[1] / spreads[0]), own_share))
    shift_C = np.asarray(more_WC, np.float64).mean(axis=0) - factor_C * np.asarray(few_WC, np.float64).mean(axis=0)
    return Scale(factor_C=factor_C, shift_C=_drawn_together(shift_C, own_share), num_windows=count)


def _drawn_together(value_C: NDArray[np.float64], own_share: float) -> NDArray[np.float64]:
    return own_share * value_C + (1 - own_share) * np.median(value_C)


def scales(heard: Iterable[Mapping[int, FileLogits]], used: Iterable[int]) -> dict[int, Scale]:
    """Return for numbers of members the scale that brings their logits to those of the largest number that is used.

    `heard`: what numbers of members heard of each file. A number of which no windows were also heard by more members has no scale.
    """
    files = list(heard)
    largest, *others = sorted(set(used), reverse=True)
    known: dict[int, Scale] = {}
    for few in others:
        for more in (largest, *known):
            pairs = [_shared(file[few], file[more]) for file in files if few in file and more in file]
            pairs = [pair for pair in pairs if len(pair[0])]
            scale = scale_of(*(np.concatenate(side) for side in zip(*pairs, strict=True))) if pairs else None
            if scale is not None:
                known[few] = scale.then(known[more]) if more in known else scale
                break
    return known


def _shared(few: FileLogits, more: FileLogits) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the logits of the windows that both have."""
    _, of_few, of_more = np.intersect1d(few.start_W, more.start_W, return_indices=True)
    return few.logits_WC[of_few], more.logits_WC[of_more]


@dataclass(frozen=True, kw_only=True)
class ScoredFile:
    """A file and who scored it."""

    file: str
    num_members: int
    """It was heard by so many of the first members."""
    num_windows: int
    is_whole: bool
    """Whether it was heard to its end."""


@dataclass(frozen=True, kw_only=True)
class OneScale:
    """How the scores of files that fewer members heard were changed."""

    num_members: int
    num_windows: int
    """Windows that were also heard by more members; 0: none, so the scores are as they are."""
    factor: float
    """Of the logits, the median over species; each has a shift too."""

    @classmethod
    def of(cls, num_members: int, scale: Scale | None) -> "OneScale":
        """Return the record of a scale; None: there is none."""
        if scale is None:
            return cls(num_members=num_members, num_windows=0, factor=1.0)
        return cls(num_members=num_members, num_windows=scale.num_windows, factor=float(np.median(scale.factor_C)))


@dataclass(frozen=True, kw_only=True)
class ScoredBy:
    """Beside a submission: which members of the model scored which of its files."""

    version: Literal[1] = 1
    members: tuple[str, ...]
    """Ids of the members' networks, in the order in which they are kept when time is short."""
    files: tuple[ScoredFile, ...]
    scales: tuple[OneScale, ...]
    """For each number of members but the largest."""

    @property
    def counts(self) -> dict[int, int]:
        """Number of files by the number of members, the most members first."""
        numbers = sorted({item.num_members for item in self.files}, reverse=True)
        return {number: sum(item.num_members == number for item in self.files) for number in numbers}


def members_file(submission: Path) -> Path:
    """Return where it is said which members scored which file of a submission."""
    return submission.with_name(f"{submission.stem}.members.json")


def write_scored_by(scored: ScoredBy, submission: Path) -> None:
    """Write it beside a submission. Raises InputError when the place cannot be written."""
    path = members_file(submission)
    with writing_to(path, way_out="give another place with -o"):
        aside = path.with_name(f".{path.name}.tmp")
        aside.write_text(to_json(scored, indent=1), encoding="utf-8")
        aside.replace(path)
