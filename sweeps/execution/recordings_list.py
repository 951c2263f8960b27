"""The table of a dataset's recordings that the store keeps, so that a later sweep knows what trained a stage."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import pandas as pd

from birdclef_core.data.authors import plain_names
from birdclef_core.data.dataset import Dataset
from birdclef_core.data.groups import UNNAMED
from birdclef_core.data.recording_folds import is_validation
from birdclef_core.data.soundscapes import Soundscapes
from birdclef_core.data.splits import NUM_FOLDS
from birdclef_core.errors import StoreError
from birdclef_core.store.recordings_table import SOUNDSCAPE, content_hashes, read_recordings, write_recordings
from birdclef_core.store.storage import Storage


class RecordingsList:
    """The recordings of a dataset as a table (see `recordings_table`), made when they are first asked for."""

    def __init__(
        self, storage: Storage, dataset: Dataset, data_fingerprint: str, *, same: "RecordingsList | None" = None
    ) -> None:
        """`storage` is that of the stage store. `same`: a list of the same recordings with another split, whose files are not read again."""
        self.storage, self.data_fingerprint = storage, data_fingerprint
        self._dataset, self._same = dataset, same

    @cached_property
    def table(self) -> pd.DataFrame:
        """The table. Content hashes are those that the store has; otherwise parts of every file are read, about 2,000 files a second."""
        recordings, training = self._dataset.recordings, self._dataset.training_soundscapes
        table = recordings[["recording_id", "is_validation", "always_trains"]].assign(
            author=plain_names(recordings["author"]),
            group=recordings["group"].mask(recordings["group"].str.startswith(UNNAMED), ""),
        )
        if training is not None:
            table = pd.concat([table, _rows_of(training)], ignore_index=True)
        if self._kept is not None:
            table["content"] = table["recording_id"].map(self._kept.set_index("recording_id")["content"]).fillna("")
        elif self._same is not None:
            table["content"] = self._same.table["content"]
        else:
            paths = [*recordings["path"], *([] if training is None else training.files["path"])]
            table["content"] = content_hashes([self._dataset.root / path for path in paths])
        return table

    @cached_property
    def scored_soundscapes(self) -> pd.DataFrame:
        """The labelled soundscapes that score, as rows of the table. Parts of every file are read."""
        soundscapes = self._dataset.soundscapes
        return self.table[:0] if soundscapes is None else list_soundscapes(soundscapes)

    @cached_property
    def _kept(self) -> pd.DataFrame | None:
        """The table in the store; None when there is none that can be read."""
        try:
            return read_recordings(self.storage, self.data_fingerprint)
        except StoreError:  # it is written again from the same recordings
            return None

    def keep(self) -> None:
        """Write the table into the store, if it is not there or cannot be read."""
        if self._kept is None:
            write_recordings(self.storage, self.data_fingerprint, self.table)

    def folds(self) -> Iterator[tuple[int, pd.DataFrame]]:
        """Yield the number of every fold of the recordings, and the table as it would be with that fold."""
        for fold in range(NUM_FOLDS):
            validates = np.zeros(len(self.table), bool)
            validates[: len(self._dataset.recordings)] = is_validation(self._dataset.recordings, fold)
            yield fold, self.table.assign(is_validation=validates)


def list_soundscapes(soundscapes: Soundscapes) -> pd.DataFrame:
    """Return labelled soundscapes as rows of a table of recordings. Parts of every file are read."""
    return _rows_of(soundscapes).assign(content=content_hashes([soundscapes.root / path for path in soundscapes.files["path"]]))


def _rows_of(soundscapes: Soundscapes) -> pd.DataFrame:
    names = soundscapes.files["path"].str.rsplit("/", n=1).str[-1]
    return pd.DataFrame(
        {"recording_id": SOUNDSCAPE + names, "is_validation": False, "always_trains": False, "author": "", "group": ""}
    )
