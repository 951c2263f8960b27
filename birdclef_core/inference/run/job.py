"""One run of `birdclef predict`: every file is heard, what is heard is kept in a journal, and tables are written at the end.

Shapes: W windows of one file, C species, D features.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.errors import DataError
from birdclef_core.inference.logits import inference_code
from birdclef_core.inference.results.file_logits import FileLogits
from birdclef_core.inference.results.formats import WRITERS, AudioFile
from birdclef_core.inference.results.selection import Selection, Selector
from birdclef_core.inference.results.snippets import Snippets
from birdclef_core.inference.run.files import FoundAudio, Unreadable, read_durations
from birdclef_core.inference.run.journal import Journal, Run
from birdclef_core.inference.run.predictor import Predictor
from birdclef_core.output_place import writing_to

JOURNAL = "journal"
FILES = "files.csv"
WAY_OUT = "give another folder with -o"

Progress = Callable[[int, int, float, float], None]
"""Gets (files done, files in all, seconds of audio done, seconds in all)."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be predicted, and what is to be written."""

    predictor: Predictor
    audio: FoundAudio
    selection: Selection
    out: Path
    formats: tuple[str, ...]
    segments: int = 0
    """Number of windows of each species to be cut out."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a run."""

    num_files: int
    """Files that were predicted."""
    num_known: int
    """Those of them that an earlier run had predicted."""
    heard_s: float
    """Seconds of audio of the files that were predicted."""
    num_rows: int
    unreadable: tuple[Unreadable, ...]
    damaged: tuple[Unreadable, ...]
    """Files that were predicted although something is wrong with them."""
    highest: float
    """The highest score of all, whether it became a row or not; NaN when there is none."""
    num_segments: int


def predict_files(task: Task, progress: Progress | None = None) -> Outcome:
    """Predict files that no earlier run into the same folder has predicted, and write the tables of all.

    Raises InputError when the folder is of another model or procedure, is in use or cannot be written, or a species is unknown.
    """
    selector = task.selection.for_detector(task.predictor.detector)
    with writing_to(task.out, way_out=WAY_OUT):
        task.out.mkdir(parents=True, exist_ok=True)
    journal = Journal(task.out / JOURNAL)
    with journal.opened(run_of(task.predictor)) as run:
        heard = hear_all(replace(task.predictor, embeddings=run.embeddings), task.audio, journal, progress)
        with writing_to(task.out, way_out=WAY_OUT):
            return _write_all(task, selector, journal, heard)


def run_of(predictor: Predictor) -> Run:
    """Return what a journal of a predictor's logits depends on."""
    detector = predictor.detector
    return Run(
        model_id=detector.model_id,
        procedure=detector.procedure,
        embeddings=predictor.embeddings,
        batch_size=predictor.batch_size,
        code=inference_code(),
    )


@dataclass
class Heard:
    """What is known of the files after all have been heard."""

    keys: list[tuple[AudioFile, str]]
    """Files whose logits are in the journal, and their keys."""
    unreadable: list[Unreadable]
    num_known: int


def hear_all(predictor: Predictor, found: FoundAudio, journal: Journal, progress: Progress | None) -> Heard:
    """Hear all files that are not in the journal yet, and keep them there."""
    files = found.files
    durations_s = [header.duration_s for header in read_durations(files)]
    total_s, before_s = sum(durations_s), 0.0
    heard = Heard([], list(found.unreadable), 0)
    for number, (audio, duration_s) in enumerate(zip(files, durations_s, strict=True)):

        def advance(samples: float, number: int = number, before_s: float = before_s, most_s: float = duration_s) -> None:
            if progress:
                progress(number, len(files), before_s + min(samples / SAMPLE_RATE_HZ, most_s), total_s)

        advance(0.0)
        try:
            key = key_of(journal, audio)
            if journal.read(key) is not None:
                heard.num_known += 1
            else:
                hear_file(predictor, journal, audio, key, advance)
            heard.keys.append((audio, key))
        except DataError as error:
            heard.unreadable.append(Unreadable(audio.label, str(error)))
        before_s += duration_s
    if progress:
        progress(len(files), len(files), total_s, total_s)
    return heard


def key_of(journal: Journal, audio: AudioFile) -> str:
    """Return under which name a file is kept in a journal. Raises DataError when it is not there."""
    try:
        return journal.key(audio.path)
    except OSError as error:
        raise DataError(f"{audio.label} cannot be read: {error.strerror}") from error


def hear_file(predictor: Predictor, journal: Journal, audio: AudioFile, key: str, advance: Callable[[float], None]) -> None:
    """Hear a file, or what an earlier run has not heard of it, and keep it in the journal. Raises DataError when it cannot be read.

    What has been heard is also kept when `advance` raises an error.
    """
    known = journal.parts(key)
    number = len(known)

    def keep(part: FileLogits) -> None:
        nonlocal number
        journal.save_part(key, number, part)
        number += 1

    whole, faults = predictor.hear(audio, known=known, keep=keep, advance=advance)
    journal.finish(key, whole, faults)


def _write_all(task: Task, selector: Selector, journal: Journal, heard: Heard) -> Outcome:
    detector = task.predictor.detector
    writers = [WRITERS[name](task.out, detector.frequencies_hz) for name in task.formats]
    snippets = Snippets(task.out / "segments", task.segments, selector) if task.segments else None
    embeddings = _EmbeddingTable(task.out / "embeddings.parquet") if task.predictor.embeddings else None
    facts: list[dict[str, object]] = []
    damaged, highest = [], [np.nan]
    for audio, key in heard.keys:
        found = journal.read(key)
        if found is None:
            heard.unreadable.append(
                Unreadable(audio.label, "what was heard of it cannot be read any more: run the command again")
            )
            continue
        logits, faults = found
        count = 0
        for writer in writers:
            writer.begin(audio)
        for rows in selector.rows(audio.label, logits):
            count += len(rows)
            for writer in writers:
                writer.add(rows)
        if snippets:
            snippets.add(audio, logits)
        if embeddings:
            embeddings.add(audio, logits)
        if len(logits.start_W):
            highest.append(float(selector.scores(logits).max()))
        if faults:
            damaged.append(Unreadable(audio.label, "; ".join(faults)))
        facts.append(_facts(audio, logits, count, "; ".join(faults)))
    for writer in writers:
        writer.close()
    if embeddings:
        embeddings.close()
    _write_facts(task.out / FILES, facts, heard.unreadable)
    num_segments = snippets.write(detector.procedure) if snippets else 0
    return Outcome(
        num_files=len(facts),
        num_known=heard.num_known,
        heard_s=float(sum(fact["duration_s"] for fact in facts)),  # type: ignore[misc]
        num_rows=int(sum(fact["detections"] for fact in facts)),  # type: ignore[misc]
        unreadable=tuple(heard.unreadable),
        damaged=tuple(damaged),
        highest=float(np.nanmax(highest)) if len(highest) > 1 else float("nan"),
        num_segments=num_segments,
    )


def _facts(audio: AudioFile, logits: FileLogits, count: int, fault: str) -> dict[str, object]:
    duration_s = float(logits.end_W[-1] / SAMPLE_RATE_HZ) if len(logits.end_W) else 0.0
    return {"file": audio.label, "duration_s": duration_s, "windows": len(logits.end_W), "detections": count, "problem": fault}


def _write_facts(path: Path, facts: Sequence[dict[str, object]], unreadable: Sequence[Unreadable]) -> None:
    """Write what came of each file; a file that cannot be read has no number of windows or detections."""
    rows = [*facts, *({"file": item.label, "problem": f"unreadable: {item.reason}"} for item in unreadable)]
    columns = ["file", "duration_s", "windows", "detections", "problem"]
    table = pd.DataFrame(rows, columns=columns).astype({"windows": "Int64", "detections": "Int64"})
    table.sort_values("file", kind="stable").to_csv(path, index=False, lineterminator="\n")


class _EmbeddingTable:
    """`embeddings.parquet`: one row a window, with the embedding as a list of float32."""

    def __init__(self, path: Path) -> None:
        self._path, self._aside = path, path.with_name(f".{path.name}.tmp")
        fields = [
            ("file", pa.string()),
            ("start_s", pa.float64()),
            ("end_s", pa.float64()),
            ("embedding", pa.list_(pa.float32())),
        ]
        self._schema = pa.schema(fields)
        self._writer = pq.ParquetWriter(self._aside, self._schema, compression="zstd")

    def add(self, audio: AudioFile, logits: FileLogits) -> None:
        for first in range(0, len(logits.start_W), 1024):
            part = slice(first, first + 1024)
            embedding_WD = logits.embedding_WD[part]
            offsets = np.arange(len(embedding_WD) + 1, dtype=np.int32) * embedding_WD.shape[1]
            values = {
                "file": [audio.label] * len(embedding_WD),
                "start_s": logits.start_W[part] / SAMPLE_RATE_HZ,
                "end_s": logits.end_W[part] / SAMPLE_RATE_HZ,
                "embedding": pa.ListArray.from_arrays(pa.array(offsets), pa.array(embedding_WD.ravel())),
            }
            self._writer.write_table(pa.table(values, schema=self._schema))

    def close(self) -> None:
        self._writer.close()
        self._aside.replace(self._path)


def unreadable_lines(items: Sequence[Unreadable], most: int = 10) -> Iterator[str]:
    """Yield a line for each of the first files of a list, and one for the others."""
    for item in items[:most]:
        yield f"  {item.label}: {item.reason}"
    if len(items) > most:
        yield f"  and {len(items) - most} more: see {FILES}"
