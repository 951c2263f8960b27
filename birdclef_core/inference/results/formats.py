"""Writes detections for other programs: CSV, Parquet, Raven, Audacity, Kaleidoscope.

Every writer gets the files one after the other and their rows in parts, so that memory does not grow with a recording. What it
writes appears when it is closed, complete.
"""

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from birdclef_core.data.folder_walk import shown
from birdclef_core.errors import InputError
from birdclef_core.identity import fingerprint
from birdclef_core.inference.results.columns import COLUMNS
from birdclef_core.inference.results.selection import no_rows

RAVEN_COLUMNS = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Begin Path",
    "File Offset (s)",
    "Species",
    "Common Name",
    "Score",
)
KALEIDOSCOPE_COLUMNS = (
    "INDIR",
    "FOLDER",
    "IN FILE",
    "OFFSET",
    "DURATION",
    "TOP1MATCH",
    "TOP1DIST",
    "SPECIES",
    "SCORE",
    "MANUAL ID",
)

_LONGEST_NAME = 200
"""Bytes of a name: file systems allow 255, and tables put something before and behind it."""


def short_name(name: str) -> str:
    """Return a name for a file that every file system allows: a long one is cut, and ends in a hash of itself so that two stay different."""
    encoded = name.encode()
    if len(encoded) <= _LONGEST_NAME:
        return name
    end = f"~{fingerprint(name)[:16]}"
    return encoded[: _LONGEST_NAME - len(end)].decode(errors="ignore") + end


@dataclass(frozen=True)
class AudioFile:
    """A file to predict."""

    path: Path
    label: str
    """What tables call it."""
    folder: Path
    """The folder that was asked for, in which it lies at some depth."""
    place: PurePosixPath
    """Where its own tables go in their folder, without the suffix of a table; no two files have the same."""


class Writer(Protocol):
    """Writes the rows of a run in one format."""

    def begin(self, audio: AudioFile) -> None:
        """Begin a file whose rows come next; it may have none."""
        ...

    def add(self, rows: pd.DataFrame) -> None:
        """Add rows of the file that was begun last."""
        ...

    def close(self) -> None:
        """Let what was written appear."""
        ...


def seconds_text(seconds: float) -> str:
    """Return a time as an exact decimal: a sample at 32 kHz has at most eight digits behind the point."""
    text = f"{seconds:.8f}".rstrip("0")
    return text + "0" if text.endswith(".") else text


class CsvWriter:
    """`detections.csv`: one table of all files with the fixed columns."""

    def __init__(self, out: Path, frequencies_hz: tuple[float, float]) -> None:
        self._table = _AppearingFile(out / "detections.csv")
        self._write(no_rows(), header=True)

    def begin(self, audio: AudioFile) -> None:
        return None

    def add(self, rows: pd.DataFrame) -> None:
        self._write(rows.assign(start_s=rows["start_s"].map(seconds_text), end_s=rows["end_s"].map(seconds_text)), header=False)

    def _write(self, rows: pd.DataFrame, *, header: bool) -> None:
        rows.to_csv(self._table.file, index=False, header=header, lineterminator="\n")

    def close(self) -> None:
        self._table.close()


class ParquetWriter:
    """`detections.parquet`: one table of all files with the fixed columns and their types."""

    def __init__(self, out: Path, frequencies_hz: tuple[float, float]) -> None:
        self._path, self._aside = out / "detections.parquet", out / ".detections.parquet.tmp"
        kinds = {"str": pa.string(), "float64": pa.float64()}
        self._schema = pa.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
        self._writer = pq.ParquetWriter(self._aside, self._schema, compression="zstd")

    def begin(self, audio: AudioFile) -> None:
        return None

    def add(self, rows: pd.DataFrame) -> None:
        self._writer.write_table(pa.Table.from_pandas(rows, schema=self._schema, preserve_index=False))

    def close(self) -> None:
        self._writer.close()
        self._aside.replace(self._path)


class RavenWriter:
    """`raven/<file>.selections.txt`: a selection table of each file, for Raven Lite and Raven Pro."""

    def __init__(self, out: Path, frequencies_hz: tuple[float, float]) -> None:
        self._folder, self._frequencies_hz = out / "raven", frequencies_hz
        self._table: _AppearingFile | None = None

    def begin(self, audio: AudioFile) -> None:
        self.close()
        self._table = _AppearingFile(self._folder / f"{audio.place}.selections.txt")
        self._audio, self._count = audio, 0
        self._table.file.write("\t".join(RAVEN_COLUMNS) + "\n")

    def add(self, rows: pd.DataFrame) -> None:
        assert self._table is not None
        low, high = (f"{value:.1f}" for value in self._frequencies_hz)
        path = _one_line(shown(str(self._audio.path.absolute())))
        for row in rows.itertuples(index=False):
            self._count += 1
            start, end = seconds_text(row.start_s), seconds_text(row.end_s)
            texts = (_one_line(row.species), _one_line(row.name), f"{row.score:g}")
            values = (str(self._count), "Spectrogram 1", "1", start, end, low, high, path, start, *texts)
            self._table.file.write("\t".join(values) + "\n")

    def close(self) -> None:
        if self._table is not None:
            self._table.close()
        self._table = None


class AudacityWriter:
    """`audacity/<file>.txt`: a label track of each file: start, end and label, without a header, as Audacity wants it."""

    def __init__(self, out: Path, frequencies_hz: tuple[float, float]) -> None:
        self._folder = out / "audacity"
        self._table: _AppearingFile | None = None

    def begin(self, audio: AudioFile) -> None:
        self.close()
        self._table = _AppearingFile(self._folder / f"{audio.place}.txt")

    def add(self, rows: pd.DataFrame) -> None:
        assert self._table is not None
        for row in rows.itertuples(index=False):
            label = f"{_one_line(row.name)} {row.score:.3f}"
            self._table.file.write(f"{seconds_text(row.start_s)}\t{seconds_text(row.end_s)}\t{label}\n")

    def close(self) -> None:
        if self._table is not None:
            self._table.close()
        self._table = None


class KaleidoscopeWriter:
    """`kaleidoscope.csv`: one table of all files for Kaleidoscope Pro. TOP1DIST is 1 - score; MANUAL ID is left to people."""

    def __init__(self, out: Path, frequencies_hz: tuple[float, float]) -> None:
        self._table = _AppearingFile(out / "kaleidoscope.csv")
        self._csv = csv.writer(self._table.file, lineterminator="\n")
        self._csv.writerow(KALEIDOSCOPE_COLUMNS)

    def begin(self, audio: AudioFile) -> None:
        folder = audio.folder.absolute()
        inside = audio.path.absolute().parent.relative_to(folder)
        place = (str(folder), "" if inside == Path() else inside.as_posix(), audio.path.name)
        self._place = tuple(map(shown, place))

    def add(self, rows: pd.DataFrame) -> None:
        for row in rows.itertuples(index=False):
            offset, duration = seconds_text(row.start_s), seconds_text(row.end_s - row.start_s)
            self._csv.writerow(
                (*self._place, offset, duration, row.name, f"{1 - row.score:g}", row.species, f"{row.score:g}", "")
            )

    def close(self) -> None:
        self._table.close()


WRITERS: dict[str, Callable[[Path, tuple[float, float]], Writer]] = {
    "csv": CsvWriter,
    "parquet": ParquetWriter,
    "raven": RavenWriter,
    "audacity": AudacityWriter,
    "kaleidoscope": KaleidoscopeWriter,
}
"""Writers by the name of their format."""


def parse_formats(text: str) -> tuple[str, ...]:
    """Return the formats that a text such as `csv,raven` names. Raises InputError for one that does not exist."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    unknown = [name for name in names if name not in WRITERS]
    if unknown:
        raise InputError(f"--format takes {', '.join(WRITERS)}, with commas between them, but got {unknown[0]!r}.")
    return names


class _AppearingFile:
    """A text file that appears under its name when it is closed."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._aside = path, path.with_name(f".{path.name}.tmp")
        self.file: IO[str] = self._aside.open("w", encoding="utf-8", newline="")

    def close(self) -> None:
        self.file.close()
        self._aside.replace(self._path)


def _one_line(text: str) -> str:
    """Return a text with a blank for each tab and each end of a line. Blanks stay: a path would be another one."""
    return re.sub(r"[^\S ]", " ", text)
