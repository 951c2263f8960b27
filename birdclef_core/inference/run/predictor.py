"""Predicts files in bounded memory: `Predictor` is what a notebook uses, and what `birdclef predict` is made of.

Shapes: W windows of one file, C species, D features.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from birdclef_core.errors import DataError
from birdclef_core.inference.deployed import DeployedDetector
from birdclef_core.inference.results.file_logits import FileLogits, joined
from birdclef_core.inference.results.formats import AudioFile
from birdclef_core.inference.results.postprocess import PostProcessing
from birdclef_core.inference.results.selection import DEFAULT_THRESHOLD, Selection, no_rows
from birdclef_core.inference.run.files import find_audio
from birdclef_core.inference.runtime import BATCH_SIZE
from birdclef_core.inference.sound import SoundFile

SAVE_S = 20.0
"""Seconds of work on a file after which what was heard is handed over, to be kept."""

Keep = Callable[[FileLogits], None]
"""Gets the next part of a file."""
Advance = Callable[[float], None]
"""Gets how many seconds of a file have been heard."""


@dataclass(frozen=True)
class Predictor:
    """Predicts files with a detector."""

    detector: DeployedDetector
    batch_size: int = BATCH_SIZE
    """Windows that are heard at once. Results depend on it by rounding only."""
    embeddings: bool = False
    """Whether the embeddings of windows are kept."""

    def predict(
        self,
        paths: str | Path | Sequence[str | Path],
        *,
        threshold: float = DEFAULT_THRESHOLD,
        top: int | None = None,
        species: Sequence[str] | None = None,
        merge: bool = False,
        postprocessing: PostProcessing | None = None,
    ) -> pd.DataFrame:
        """Return the detections in files as a table with the columns of `selection.COLUMNS`, sorted by file, time and species.

        A folder stands for all audio in it. `threshold`: the least score of a row; `top`: instead, so many species of each window;
        `species`: only these codes; `merge`: windows that touch become one row. A file that cannot be read is left out with a
        warning, and is in `attrs["unreadable"]` with the reason. Raises InputError when there is no file, or no species that it knows.
        """
        named = [paths] if isinstance(paths, str | Path) else paths
        selection = Selection(
            threshold=threshold,
            top=top,
            species=None if species is None else tuple(species),
            merge=merge,
            postprocessing=postprocessing,
        )
        selector = selection.for_detector(self.detector)
        found = find_audio([Path(path) for path in named])
        unreadable = {item.label: item.reason for item in found.unreadable}
        tables = [no_rows()]
        for audio in found.files:
            try:
                logits, _ = self.hear(audio)
            except DataError as error:
                unreadable[audio.label] = str(error)
            else:
                tables += selector.rows(audio.label, logits)
        if unreadable:
            first = next(iter(unreadable.items()))
            warnings.warn(f"{len(unreadable)} files could not be read, such as {first[0]}: {first[1]}", stacklevel=2)
        rows = pd.concat(tables[1:] or tables, ignore_index=True)
        rows.attrs["unreadable"] = unreadable
        return rows

    def hear(
        self, audio: AudioFile, *, known: Sequence[FileLogits] = (), keep: Keep | None = None, advance: Advance | None = None
    ) -> tuple[FileLogits, tuple[str, ...]]:
        """Return the logits of all windows of a file, and what is wrong with the file although it can be used.

        `known` are the first parts of it, from an earlier call that was cut off: only the windows after them are heard. `keep` is
        called with each further part. Raises DataError when the file cannot be read.
        """
        sound = SoundFile(audio.path, self.detector.procedure)
        parts = list(known)
        fresh: list[FileLogits] = []
        saved_at = time.monotonic()
        try:
            for batch in self._batches(sound, sum(len(part.start_W) for part in parts)):
                fresh.append(batch)
                if advance:
                    advance(float(batch.end_W[-1]))
                if keep and time.monotonic() - saved_at > SAVE_S:
                    parts.append(joined(fresh))
                    fresh = []
                    keep(parts[-1])
                    saved_at = time.monotonic()
        finally:
            if keep and fresh:
                keep(joined(fresh))
        return joined([*parts, *fresh]), sound.faults

    def _batches(self, sound: SoundFile, first: int) -> Iterator[FileLogits]:
        """Yield what is heard in each batch of windows from window `first` on."""
        for windows, heard in self.detector.hear_stream(sound.blocks(), first=first, batch_size=self.batch_size):
            yield FileLogits(
                np.array([window.start for window in windows], dtype=np.int64),
                np.array([window.end for window in windows], dtype=np.int64),
                heard.logits_BC,
                heard.embedding_BD if self.embeddings else heard.embedding_BD[:, :0],
            )
