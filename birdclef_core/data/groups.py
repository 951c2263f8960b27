"""Groups of recordings that must be on one side of a split, because they are alike in more than the species: those of an author.

Where the author is not known, what is known stands in for it. Copies and pieces of one recording are always in one group.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from birdclef_core.data.authors import plain_names
from birdclef_core.store.recordings_table import content_hashes

BY_AUTHOR, BY_PLACE, BY_ITSELF = "author", "place", "itself"
UNNAMED = "unknown "
"""How the name of a group begins that means nothing in other data: a file of which nothing is known."""

_NUMBER = re.compile(r"^((?:XC|iNat|CSA|ML)\d+)(?!\d)")
"""A recording id that begins with a number that Xeno-canto, iNaturalist, the CSA or the Macaulay Library gave out."""
_PART = re.compile(r"^(.+?)[ _-]?part[ _-]?\d+$", re.IGNORECASE)
_MAX_AUTHORS_OF_A_COPY = 3
_DIGITS = 2
"""Digits of a degree that count for a place: about a kilometre."""


@dataclass(frozen=True)
class Groups:
    """The group of each recording. All series have the recordings' index."""

    name: pd.Series
    """The name of the group: the same on every machine, whatever other recordings there are, unless copies join two authors."""
    known_by: pd.Series
    """What makes the group: `BY_AUTHOR`, `BY_PLACE`, or `BY_ITSELF` where only copies and pieces of the recording are known."""
    recording: pd.Series
    """A number for each recording, the same for its copies and pieces."""
    is_everywhere: pd.Series
    """Whether copies of the recording are by so many authors that they cannot be on one side."""

    def with_copies(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return `chosen`, with all copies and pieces of the recordings in it."""
        return self.recording.isin(self.recording[chosen]).to_numpy()


def group_recordings(recordings: pd.DataFrame, content: Sequence[str]) -> Groups:
    """Return the groups of recordings.

    `recordings` has recording_id and author ("" when unknown), and perhaps latitude, longitude and date (text, "" when unknown).
    `content` has a hash of each file's content, "" where no other file can have the same.

    Recordings of one author are a group; letters' case, blanks and punctuation of the name do not count. Recordings without an author
    are grouped by place and day: coordinates to .01 degree, and the date where it is known. A place of more than half of all
    recordings does not count, as it is more likely the middle of a country or the only site. Copies (equal content) and pieces
    (`XC123_part2` of `XC123`) of a recording are in one group, so two authors with a recording in common are one group. Only where
    copies are by more than three authors (a placeholder, most likely) do they join nobody.
    """
    index = recordings.index
    ids, authors = recordings["recording_id"], plain_names(recordings["author"])
    collected = ids.str.extract(_NUMBER)[0]
    numbers = ("recording " + collected).fillna(UNNAMED + ids.str.extract(_PART)[0].fillna(ids))
    copies = pd.Series(content, index=index, dtype=object)
    recording = _joined(numbers, ("content " + copies).where(copies != ""))
    is_everywhere = authors.where(authors != "").groupby(recording).transform("nunique") > _MAX_AUTHORS_OF_A_COPY
    places = _places(recordings).where(authors == "", "")
    own = ("place " + places).where(places != "", numbers).where(authors == "", "author " + authors)
    joined = _joined(own, recording.astype(str).where(~is_everywhere))
    names = own.groupby(joined).transform("min")
    known_by = pd.Series(BY_ITSELF, index=index).mask(places != "", BY_PLACE).mask(names.str.startswith("author "), BY_AUTHOR)
    return Groups(names, known_by, recording, is_everywhere)


def equal_contents(root: Path, recordings: pd.DataFrame) -> list[str]:
    """Return what `group_recordings` needs of contents. Only files of equal size and length are read, and of those three blocks."""
    alike = recordings.duplicated(["size_bytes", "duration_s"], keep=False).to_numpy()
    hashes = iter(content_hashes([root / path for path in recordings["path"][alike]]))
    return [next(hashes) if is_alike else "" for is_alike in alike]


def copies_among(root: Path, paths: Sequence[str], of: Collection[str]) -> dict[str, str]:
    """Return those of `paths` that have the content of a file in `of`, each with that file. Only files of equal size are read, and of those
    three blocks."""
    size_of = {path: _size(root / path) for path in (*paths, *of)}
    sizes = {size_of[path] for path in paths} & {size_of[path] for path in of}
    alike = [path for path in dict.fromkeys((*paths, *of)) if size_of[path] in sizes]
    content = dict(zip(alike, content_hashes([root / path for path in alike]), strict=True))
    known = {content[path]: path for path in of if content.get(path)}
    return {path: known[content[path]] for path in paths if path not in of and content.get(path) in known}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # read_headers says what is wrong with it
        return -1


def _places(recordings: pd.DataFrame) -> pd.Series:
    """Return place and day of each recording as text, "" where the place is not known or tells nothing."""
    if "latitude" not in recordings or "longitude" not in recordings:
        return pd.Series("", index=recordings.index)
    latitude, longitude = recordings["latitude"], recordings["longitude"]
    known = latitude.between(-90, 90) & longitude.between(-180, 180) & ((latitude != 0) | (longitude != 0))
    texts = pd.Series("", index=recordings.index)
    rounded = recordings.loc[known, ["latitude", "longitude"]].round(_DIGITS) + 0.0  # without a minus before zero
    days = recordings["date"][known] if "date" in recordings else pd.Series("", index=rounded.index)
    rows = zip(rounded["latitude"], rounded["longitude"], days, strict=True)
    texts[known] = [f"{north:.{_DIGITS}f} {east:.{_DIGITS}f} {day}".rstrip() for north, east, day in rows]
    counts = texts.value_counts()
    return texts.where(~texts.isin(counts.index[2 * counts > len(texts)]), "")


def _joined(*keys: pd.Series) -> pd.Series:
    """Return a number for each row; rows that have a key in common, directly or through others, have the same."""
    index = keys[0].index
    named = pd.concat([key.reset_index(drop=True) for key in keys]).dropna()
    codes = pd.factorize(named)[0] + len(index)
    size = int(codes.max()) + 1 if len(codes) else len(index)
    edges = coo_array((np.ones(len(codes), dtype=np.int8), (named.index.to_numpy(), codes)), shape=(size, size))
    return pd.Series(connected_components(edges, directed=False)[1][: len(index)], index=index)
