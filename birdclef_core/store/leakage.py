"""Finds leaks: recordings that score a stage although they trained a stage that it starts from."""

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from birdclef_core.errors import StoreError
from birdclef_core.findings import inflect
from birdclef_core.store.recordings_table import SOUNDSCAPE, read_recordings
from birdclef_core.store.storage import Storage
from birdclef_core.store.summary import IMPORTED

NO_TABLE = "the store has no table of its recordings, because an older version of the code trained it or the file was removed"

AUTHOR_OR_PLACE = "an author (or place and day, where it is unknown)"

_COLLECTION_NUMBER = re.compile(r"(XC|iNat|CSA|ML)\d+")
"""Recording ids that Xeno-canto, iNaturalist, the CSA and the Macaulay Library give out: the same recording whatever its bytes."""


@dataclass(frozen=True, kw_only=True)
class Leak:
    """The part of a validation set that trained the start stage or a teacher, or a stage that these were trained from."""

    num_validation: int
    """Number of validation recordings; 0 when nothing had to be compared."""
    num_trained: int
    """Number of these that trained one of the stages."""
    num_by_author: int
    """Number of others whose authors (where these are unknown: their place and day) have recordings that trained one of the stages."""
    unknown: tuple[str, ...] = ()
    """The stages of which it is not known what trained them, each with the reason; the two numbers are minima then."""
    num_soundscapes: int = 0
    """Number of labelled soundscapes that score and trained one of the stages."""
    source: str = "the start stage"
    """What trials start from or learn from."""

    @property
    def is_found(self) -> bool:
        """Whether a leak was found; otherwise there is none, or it is not known."""
        return bool(self.num_trained or self.num_by_author or self.num_soundscapes)

    @property
    def mark(self) -> str:
        """The leak in a few words, to mark a score with: `56 of 62`, `30 of 62 by author`, `unknown`; empty when there is none."""
        if not self.is_found:
            return "unknown" if self.unknown else ""
        least = "at least " if self.unknown else ""
        found = self.num_trained or self.num_by_author
        if not found:
            return f"{self.num_soundscapes} {inflect('[soundscape|soundscapes]', self.num_soundscapes)}"
        return f"{least}{found} of {self.num_validation}{'' if self.num_trained else ' by author'}"

    @property
    def sentence(self) -> str:
        """The leak as a sentence without its full stop; empty when there is none."""
        least = "at least " if self.unknown else ""
        if self.num_trained:
            more = (
                f", and {self.num_by_author} more have {AUTHOR_OR_PLACE} in common with recordings that did"
                if self.num_by_author
                else ""
            )
            return f"leaked: {least}{self.num_trained} of {self.num_validation} validation recordings trained {self.source}{more}"
        if self.num_by_author:
            return (
                f"leaked: {least}{self.num_by_author} of {self.num_validation} validation recordings have "
                f"{AUTHOR_OR_PLACE} in common with recordings that trained {self.source}"
            )
        if self.num_soundscapes:
            what = inflect("labelled [soundscape that scores|soundscapes that score]", self.num_soundscapes)
            return f"leaked: {self.num_soundscapes} {what} trained {self.source}"
        return f"leaked: unknown, because it is not known which recordings trained {self.source}" if self.unknown else ""


NO_LEAK = Leak(num_validation=0, num_trained=0, num_by_author=0)
"""For stages that had the recordings and the split of the dataset."""


@dataclass(frozen=True, kw_only=True)
class TrainedStage:
    """A stage, with what its record says of its recordings."""

    title: str
    """What to call it in a message."""
    data: str | None
    """Fingerprint of its recordings; None when the stage is no longer in the store."""
    learns_soundscapes: bool = False
    """Whether labelled soundscapes trained it."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The recordings that stages were trained and scored on, as far as they are known."""

    tables: tuple[pd.DataFrame, ...]
    """Tables of recordings, each once."""
    unknown: tuple[str, ...]
    """The stages whose recordings are not known, each with the reason."""


class RecordingsReader:
    """Reads the tables of recordings of a storage, each once."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._tables: dict[str, pd.DataFrame | StoreError] = {}

    def recordings(self, data: str) -> pd.DataFrame:
        """Return the recordings of a data fingerprint. Raises StoreError, which says why, when they are not known."""
        if data not in self._tables:
            self._tables[data] = self._read(data)
        found = self._tables[data]
        if isinstance(found, StoreError):
            raise found
        return found

    def _read(self, data: str) -> pd.DataFrame | StoreError:
        if data == IMPORTED:
            return StoreError("it was imported")
        try:
            found = read_recordings(self._storage, data)
        except StoreError as error:
            return StoreError(f"the table of its recordings is damaged: {str(error).rstrip('.')}")
        return StoreError(NO_TABLE) if found is None else found

    def trained(self, stages: Iterable[TrainedStage]) -> Trained:
        """Return what is known of the recordings of several stages."""
        tables: dict[str, pd.DataFrame] = {}
        unknown: list[str] = []
        for stage in stages:
            try:
                if stage.data is None:
                    raise StoreError("it is no longer in the store")
                tables[stage.data] = self.recordings(stage.data)
            except StoreError as error:
                unknown.append(f"{stage.title}: {error}")
        return Trained(tables=tuple(tables.values()), unknown=tuple(unknown))

    def leak(self, read_table: Callable[[], pd.DataFrame], data: str, stages: Iterable[TrainedStage]) -> Leak:
        """Return the leak from `stages` into the validation recordings of a dataset with the fingerprint `data`.

        Stages of the same fingerprint had the same split and leak nothing. `read_table` returns the table of the dataset; it is called
        only where there are others, because making a table means reading from every file.
        """
        others = [stage for stage in stages if stage.data != data]
        return find_leak(read_table(), self.trained(others)) if others else NO_LEAK

    def trained_soundscapes(
        self, read_table: Callable[[], pd.DataFrame], data: str, stages: Iterable[TrainedStage]
    ) -> NDArray[np.bool_]:
        """Return for each labelled soundscape whether it trained one of `stages`; none where no stage with other recordings than `data` has
        learned from any. `read_table` returns them as rows of a table, and is called only if it must be. Of stages whose table is not known,
        `leak` says that it is not."""
        tables = []
        for stage in stages:
            if stage.learns_soundscapes and stage.data not in (None, data):
                with suppress(StoreError):
                    tables.append(self.recordings(str(stage.data)))
        if not tables:
            return np.zeros(0, bool)
        earlier = pd.concat(tables)
        return _is_among(read_table(), earlier[earlier["recording_id"].str.startswith(SOUNDSCAPE)]).to_numpy(dtype=bool)

    def describe(self, stage: TrainedStage, before: Iterable[TrainedStage]) -> str:
        """Return how many recordings trained and scored a stage, and whether the stages before it leak into its scores."""
        try:
            if stage.data is None:
                return ""
            table = self.recordings(stage.data)
        except StoreError as error:
            return f"unknown recordings: {error}"
        leak = self.leak(lambda: table, stage.data, before)
        num_validation = int(table["is_validation"].sum())
        num_training = len(table) - num_validation - int(table["recording_id"].str.startswith(SOUNDSCAPE).sum())
        leaked = f"; scores leaked: {leak.mark}" if leak.mark else ""
        return f"{num_training} {inflect('[recording|recordings]', num_training)}, validated on {num_validation}{leaked}"


def find_leak(recordings: pd.DataFrame, trained: Trained) -> Leak:
    """Return the leak from the training recordings in `trained` into the validation recordings of a dataset, given as its table.

    A validation recording has leaked if the same recording trained, and its author has if another recording of the author, or of the
    same group, did. What the split of `recordings` itself has on both sides does not count, as training on it without any start
    stage would be no better: copies of a recording, parts of a group, and recordings that always train.
    """
    is_validation = recordings["is_validation"].to_numpy(dtype=bool)
    validation, rest = recordings[is_validation], recordings[~is_validation]
    earlier = pd.concat([rest[:0], *(table[~table["is_validation"].to_numpy(dtype=bool)] for table in trained.tables)])
    is_trained = _is_among(validation, earlier) & ~_is_among(validation, rest)
    always_trains = rest["always_trains"].to_numpy(dtype=bool)
    others = earlier[~_is_among(earlier, rest[always_trains])]
    by_author = _is_alike(validation, others) & ~_is_alike(validation, rest[~always_trains]) & ~is_trained
    return Leak(
        num_validation=len(validation),
        num_trained=int(is_trained.sum()),
        num_by_author=int(by_author.sum()),
        unknown=trained.unknown,
    )


def _is_among(recordings: pd.DataFrame, others: pd.DataFrame) -> pd.Series:
    """Return for each recording whether it is one of the others: by content, else by id where that is all that is known.

    An id alone proves nothing, as files of two collections may have the same name, unless it is the number of a large collection.
    """
    ids, content = recordings["recording_id"], recordings["content"]
    same_content = (content != "") & content.isin(others["content"])
    is_number = ids.str.fullmatch(_COLLECTION_NUMBER)
    same_id = ids.isin(others["recording_id"]) & ((content == "") | is_number)
    return same_content | same_id | ids.isin(others["recording_id"][others["content"] == ""])


def _is_alike(recordings: pd.DataFrame, others: pd.DataFrame) -> pd.Series:
    """Return for each recording whether another one has its author or is in its group."""
    same = [(recordings[name] != "") & recordings[name].isin(others[name]) for name in ("author", "group")]
    return same[0] | same[1]
