"""Makes a submission: hears the soundscapes within the time that there is, and writes every row, whatever could be heard."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.errors import DataError, InputError
from birdclef_core.identity import fingerprint
from birdclef_core.inference.results.file_logits import FileLogits, joined
from birdclef_core.inference.results.formats import AudioFile
from birdclef_core.inference.results.postprocess import NO_POSTPROCESSING
from birdclef_core.inference.run.files import FoundAudio, Unreadable, find_audio, read_durations
from birdclef_core.inference.run.job import Progress, hear_file, key_of, run_of
from birdclef_core.inference.run.journal import Journal
from birdclef_core.inference.run.predictor import Predictor
from birdclef_core.inference.submission.members import OneScale, Scale, ScoredBy, ScoredFile, scales, write_scored_by
from birdclef_core.inference.submission.pace import Clock, FewerMembersError, OutOfTimeError, Pace, Say, Stopwatch, deadline
from birdclef_core.inference.submission.rows import (
    WINDOW_S,
    Rows,
    by_stem,
    read_sample,
    require_audio,
    rows_of_audio,
    stem_of,
    stem_of_name,
)
from birdclef_core.inference.submission.table import Scores, write_submission
from birdclef_core.output_place import writing_to

WAY_OUT = "give another place with -o"
_HEADER_ERROR_S = 0.05
"""Seconds by which a file may be longer than its structure says."""


@dataclass(frozen=True, kw_only=True)
class SubmissionTask:
    """What a submission is made of."""

    predictor: Predictor
    soundscapes: Path
    sample: Path | None
    """A submission with the rows and columns that are wanted; None: a row for every whole window, and the model's species."""
    rows_of_audio: bool = False
    """Whether only columns are taken from the sample, and rows from the audio."""
    out: Path
    limit_s: float | None = None
    """Seconds from `started` in which all must be done."""
    clock: Clock = time.monotonic
    started: float = field(default_factory=time.monotonic)
    """The clock's time at which the run began."""
    say: Say = print


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What came of a run."""

    num_rows: int
    num_files: int
    """Files that have rows and could be read."""
    num_known: int
    """Those of them that an earlier run had heard."""
    heard_s: float
    unheard: tuple[str, ...]
    """Ids of the rows that were not heard, in their order: each has the mean of a species' other rows."""
    unheard_score: float | None
    """The score of those rows, where no row at all was heard and there is no mean."""
    unreadable: tuple[Unreadable, ...]
    damaged: tuple[Unreadable, ...]
    unknown_species: tuple[str, ...]
    """Columns that the model does not know."""
    constant: float
    """Their score."""
    is_out_of_time: bool
    scored: ScoredBy
    """Which members scored which file."""
    ignored: tuple[str, ...]
    """Files that no row is of."""


def make_submission(task: SubmissionTask, progress: Progress | None = None) -> Submission:
    """Hear the soundscapes and write the submission.

    Raises InputError when the procedure has no windows of 5 s, the folder or the sample cannot be used, rows are of other files, or
    there is neither audio nor a sample; nothing has been heard then.
    """
    procedure = task.predictor.detector.procedure
    if procedure.window_s != WINDOW_S or procedure.step_s != WINDOW_S:
        raise InputError(
            f"A row is a window of {WINDOW_S} s, so window_s == step_s == {WINDOW_S} must hold, but got {procedure.window_s} and "
            f"{procedure.step_s}."
        )
    if not task.soundscapes.is_dir():
        raise InputError(f"--soundscapes must be a folder, but {task.soundscapes} is none.")
    if task.out.is_dir():
        raise InputError(f"-o must be a file such as submission.csv, but {task.out} is a folder.")
    found = find_audio([task.soundscapes], out=_journal_folder(task.out), may_be_empty=True)
    wanted, columns = _wanted(task, found)
    files = {stem: audio for stem, audio in by_stem(found.files).items() if wanted is None or stem in wanted.by_stem}
    hearing = _Hearing(task, files, wanted, len(columns), progress)
    with writing_to(task.out, way_out=WAY_OUT):
        task.out.parent.mkdir(parents=True, exist_ok=True)
    with hearing.journals():
        hearing.hear_all()
        return _written(task, found, wanted or hearing.rows(columns), hearing)


def _journal_folder(out: Path) -> Path:
    return out.with_name(f"{out.name}.journal")


def _wanted(task: SubmissionTask, found: FoundAudio) -> tuple[Rows | None, tuple[str, ...]]:
    """Return the rows where a sample says which, and the columns."""
    known = task.predictor.detector.species
    if task.sample is None:
        if not found.files and not found.unreadable:
            raise InputError(
                f"There must be audio in {task.soundscapes}, but there is none. With --sample, an empty folder gives a file with its rows."
            )
        return None, known
    rows = read_sample(task.sample, known)
    if not found.files and not found.unreadable:
        return rows, rows.species
    if task.rows_of_audio:
        return None, rows.species
    stems = [*map(stem_of, found.files), *(stem_of_name(item.label) for item in found.unreadable)]
    require_audio(rows, stems, task.soundscapes, task.sample)
    return rows, rows.species


class _Hearing:
    """The files of a run, as they are heard."""

    def __init__(
        self,
        task: SubmissionTask,
        files: dict[str, AudioFile],
        wanted: Rows | None,
        num_columns: int,
        progress: Progress | None,
    ) -> None:
        self._task, self._files, self._progress = task, files, progress
        self.durations_s = {
            stem: header.duration_s for stem, header in zip(files, read_durations(list(files.values())), strict=True)
        }
        num_rows = sum(map(self._num_windows, files)) if wanted is None else len(wanted.row_ids)
        detector = task.predictor.detector
        self._watch = Stopwatch(task.clock, [0.0] * len(detector.members))
        self._deadline = deadline(task.limit_s, task.started, num_rows * num_columns)
        self._predictors = [
            replace(task.predictor, embeddings=False, detector=self._watch.timed(detector.first(count)))
            for count in range(1, len(detector.members) + 1)
        ]
        """The predictor of the first member, of the first two, and so on."""
        self._journals: list[Journal] = []
        self.unreadable: list[Unreadable] = []
        self.num_known = 0
        self.num_members = len(detector.members)
        self.is_out_of_time = False

    @contextmanager
    def journals(self) -> Iterator[None]:
        """Hold the journals within the block: one for each number of members."""
        folder = _journal_folder(self._task.out)
        with ExitStack() as stack:
            for predictor in self._predictors:
                run = run_of(predictor)
                self._journals.append(Journal(folder / f"{len(self._journals) + 1}-{fingerprint(run)[:16]}"))
                stack.enter_context(self._journals[-1].opened(run))
            yield

    def hear_all(self) -> None:
        """Hear each file that no earlier run has heard, until there is no time left."""
        left: dict[str, AudioFile] = {}
        for stem, audio in self._files.items():
            try:
                if self.whole(audio) is None:
                    left[stem] = audio
                else:
                    self.num_known += 1
            except DataError as error:
                self.unreadable.append(Unreadable(audio.label, str(error)))
        pace = Pace(
            self._watch,
            self._deadline,
            sum(self.durations_s[stem] for stem in left),
            self.num_members,
            self._task.say,
            torch.get_num_threads() if self._task.predictor.detector.device.type == "cpu" else 1,
        )
        before_s = 0.0
        try:
            for number, (stem, audio) in enumerate(left.items()):

                def note(file_s: float, number: int = number, before_s: float = before_s) -> None:
                    if self._progress:
                        self._progress(number, len(left), before_s + file_s, pace.total_s)

                try:
                    self._hear(pace, stem, audio, note)
                except DataError as error:
                    self.unreadable.append(Unreadable(audio.label, str(error)))
                before_s += self.durations_s[stem]
        except OutOfTimeError:
            self.is_out_of_time = True

    def _hear(self, pace: Pace, stem: str, audio: AudioFile, note: Callable[[float], None]) -> None:
        duration_s = self.durations_s[stem]

        def advance(samples: float) -> None:
            note(min(samples / SAMPLE_RATE_HZ, duration_s))
            pace.advance(samples)

        while True:
            self.num_members = pace.num_members
            journal = self._journals[self.num_members - 1]
            try:
                key = key_of(journal, audio)
                known = journal.parts(key)
                pace.begin(duration_s, float(known[-1].end_W[-1] / SAMPLE_RATE_HZ) if known else 0.0)
                hear_file(self._predictors[self.num_members - 1], journal, audio, key, advance)
                return
            except FewerMembersError:
                continue

    def whole(self, audio: AudioFile) -> FileLogits | None:
        """Return what was heard of a file by as many members as possible; None where it was not heard to its end. Raises DataError when it
        is not there."""
        for journal in reversed(self._journals):
            if (whole := journal.read(key_of(journal, audio))) is not None:
                return whole[0]
        return None

    def heard(self) -> "list[_HeardFile]":
        """Return what was heard of each file: to its end where it was, and else by as many members as possible."""
        found = ((stem, audio, self._by_members(audio)) for stem, audio in self._files.items())
        return [
            replace(max(by_members.values(), key=lambda item: (item.is_whole, item.num_members)), stem=stem, audio=audio)
            for stem, audio, by_members in found
            if by_members
        ]

    def scales(self, used: Sequence[int]) -> dict[int, Scale]:
        """Return what brings the logits of fewer members to the scale of the most of those that are used."""
        by_members = map(self._by_members, self._files.values())
        return scales(({count: item.logits for count, item in found.items()} for found in by_members), used)

    def _by_members(self, audio: AudioFile) -> "dict[int, _HeardFile]":
        """Return what was heard of a file by each number of members that heard it, or a part of it."""
        found = {}
        for count, journal in enumerate(self._journals, start=1):
            try:
                key = key_of(journal, audio)
            except DataError:  # it is gone
                break
            if (whole := journal.read(key)) is not None:
                found[count] = _HeardFile("", audio, *whole, count, True)
            elif parts := journal.parts(key):
                found[count] = _HeardFile("", audio, joined(parts), (), count, False)
        return found

    def rows(self, columns: Sequence[str]) -> Rows:
        """Return a row for every whole window: as they were heard, and by the file's structure where it was not heard to its end."""
        counts = {}
        for stem, audio in self._files.items():
            try:
                whole = self.whole(audio)
            except DataError:
                continue
            is_whole_W = None if whole is None else whole.end_W - whole.start_W == WINDOW_S * SAMPLE_RATE_HZ
            counts[stem] = self._num_windows(stem) if is_whole_W is None else int(is_whole_W.sum())
        return rows_of_audio(counts, columns)

    def _num_windows(self, stem: str) -> int:
        return int((self.durations_s[stem] + _HEADER_ERROR_S) // WINDOW_S)


@dataclass(frozen=True)
class _HeardFile:
    """What was heard of a file."""

    stem: str
    audio: AudioFile
    logits: FileLogits
    faults: tuple[str, ...]
    num_members: int
    is_whole: bool

    @property
    def heard_s(self) -> float:
        return float(self.logits.end_W[-1] / SAMPLE_RATE_HZ) if len(self.logits.end_W) else 0.0

    def scored(self) -> ScoredFile:
        num_windows = len(self.logits.start_W)
        return ScoredFile(file=self.audio.label, num_members=self.num_members, num_windows=num_windows, is_whole=self.is_whole)


def _written(task: SubmissionTask, found: FoundAudio, rows: Rows, hearing: _Hearing) -> Submission:
    detector = task.predictor.detector
    postprocessing = NO_POSTPROCESSING if detector.calibration is None else detector.calibration.postprocessing
    scores = Scores(rows, detector.species)
    heard = hearing.heard()
    most, *fewer = sorted({item.num_members for item in heard}, reverse=True) or [0]
    one_scale = hearing.scales([most, *fewer]) if fewer else {}
    for item in heard:
        scale = one_scale.get(item.num_members)
        scores.add(item.stem, scale.apply(item.logits) if scale else item.logits, postprocessing)
    scored = ScoredBy(
        members=tuple(member.model_id for member in detector.members),
        files=tuple(item.scored() for item in heard),
        scales=tuple(OneScale.of(count, one_scale.get(count)) for count in fewer),
    )
    write_submission(rows, scores.completed(), task.out)
    write_scored_by(scored, task.out)
    is_heard_R = scores.is_heard_R
    stems = set(rows.by_stem)
    of_rows = [item for item in found.unreadable if stem_of_name(item.label) in stems or task.sample is None]
    return Submission(
        num_rows=len(rows.row_ids),
        num_files=len(heard),
        num_known=hearing.num_known,
        heard_s=sum(item.heard_s for item in heard),
        unheard=tuple(rows.row_ids[row] for row in np.flatnonzero(~is_heard_R)),
        unheard_score=None if is_heard_R.any() else scores.constant,
        unreadable=(*of_rows, *hearing.unreadable),
        damaged=tuple(Unreadable(item.audio.label, "; ".join(item.faults)) for item in heard if item.faults),
        unknown_species=scores.unknown,
        constant=scores.constant,
        is_out_of_time=hearing.is_out_of_time,
        scored=scored,
        ignored=tuple(audio.label for audio in found.files if stem_of(audio) not in stems),
    )
