"""Cuts the best windows of each species out of their files, so that a person can listen to them.

Shapes: W windows of one file, C species, T samples.
"""

import heapq
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.errors import DataError
from birdclef_core.inference.procedure import Procedure
from birdclef_core.inference.results.file_logits import FileLogits
from birdclef_core.inference.results.formats import AudioFile, seconds_text, short_name
from birdclef_core.inference.results.selection import Selector
from birdclef_core.inference.sound import SoundFile
from birdclef_core.inference.windows import Tape


@dataclass(frozen=True, order=True)
class _Find:
    """A window of a species; the larger the better."""

    rank: tuple[float, int, int]
    """Score, then the earlier file and the earlier window."""
    file: int = field(compare=False)
    start: int = field(compare=False)
    end: int = field(compare=False)

    @property
    def score(self) -> float:
        return self.rank[0]


class Snippets:
    """The best windows of each species, as WAV files at 32 kHz: `<folder>/<species>/<score>_<file>_<start>-<end>.wav`."""

    def __init__(self, folder: Path, most: int, selector: Selector) -> None:
        """Keep `most` windows of each species among those that become rows."""
        self._folder, self._most, self._selector = folder, most, selector
        self._files: list[AudioFile] = []
        self._best: list[list[_Find]] = [[] for _ in selector.species]

    def add(self, audio: AudioFile, logits: FileLogits) -> None:
        """Look at the windows of a file."""
        self._files.append(audio)
        score_WC = self._selector.scores(logits)
        passes_WC = self._selector.passes(score_WC)
        for column in np.flatnonzero(passes_WC.any(axis=0)):
            rows = np.flatnonzero(passes_WC[:, column])
            rows = rows[np.argsort(-score_WC[rows, column], kind="stable")[: self._most]]
            for row in rows:
                score, number = float(score_WC[row, column]), len(self._files) - 1
                start, end = int(logits.start_W[row]), int(logits.end_W[row])
                self._keep(self._best[column], _Find((score, -number, -start), number, start, end))

    def _keep(self, best: list[_Find], find: _Find) -> None:
        if len(best) < self._most:
            heapq.heappush(best, find)
        else:
            heapq.heappushpop(best, find)

    def write(self, procedure: Procedure) -> int:
        """Cut the windows out of their files, each of which is read once more, and return how many there are.

        Raises DataError when a file can no longer be read.
        """
        wanted: defaultdict[int, list[tuple[str, _Find]]] = defaultdict(list)
        for species, best in zip(self._selector.species, self._best, strict=True):
            for find in best:
                wanted[find.file].append((species, find))
        for number, finds in sorted(wanted.items()):
            self._write_file(self._files[number], finds, procedure)
        return sum(len(finds) for finds in wanted.values())

    def _write_file(self, audio: AudioFile, finds: list[tuple[str, _Find]], procedure: Procedure) -> None:
        tape = Tape(SoundFile(audio.path, procedure).blocks())
        for species, find in sorted(finds, key=lambda item: (item[1].start, item[0])):
            tape.forget(find.start)
            tape.reach(find.end)
            if tape.length < find.end:
                raise DataError(f"{audio.path} must be as long as when it was heard, but ends earlier now: it has changed.")
            times = "-".join(seconds_text(sample / SAMPLE_RATE_HZ) for sample in (find.start, find.end))
            name = f"{find.score:.3f}_{short_name(str(audio.place).replace('/', '_'))}_{times}.wav"
            path = self._folder / _file_name(species) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, tape.read(find.start, find.end), SAMPLE_RATE_HZ, subtype="PCM_16")


def _file_name(species: str) -> str:
    """Return a species code as the name of a folder: those of Xeno-canto can be anything."""
    return species.replace("/", "_").strip(". ") or "_"
