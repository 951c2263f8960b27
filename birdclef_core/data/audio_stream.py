"""Reads the sound of a file from its first sample to its last, whatever its header says about its length.

libsndfile decodes. Where it would stop early by itself (see `containers`), it is given the file in parts.

Shapes: T samples, C channels.
"""

from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from birdclef_core.data.containers.file_bytes import FileBytes
from birdclef_core.data.containers.flac import flac_rest
from birdclef_core.data.containers.layout import MOST_SILENCE_S, TOLERANCE_S, Fault, Layout, Part
from birdclef_core.data.containers.part_file import PartFile
from birdclef_core.data.containers.scan import scan
from birdclef_core.errors import DataError

_FINE_STEP = 1024
"""Samples that are decoded at once where the decoder fails, to get all that comes before."""
_STEP = 2**20
_MUCH_S = 1.0
"""A file whose end is known to be missing has a second fault when it is shorter than expected by more than this."""
_NO_LENGTH = 2**48
"""A length from this number of samples on means that libsndfile does not know it."""

_LOWEST_RATE_HZ, _HIGHEST_RATE_HZ = 1_000, 2_000_000
"""A rate outside of these means a damaged header. To resample from it could take any amount of memory."""
_NO_MP3 = "File does not exist or is not a regular file"
"""Begin of libsndfile's message about a file that is called .mp3 and has no MP3 frame."""


class _Reader(soundfile.SoundFile):
    """A file that is read from its beginning to its end.

    soundfile seeks after each reading in files where it can. That changes the samples of an MP3 file, and fails at damage.
    """

    def seekable(self) -> bool:
        return False


@dataclass
class _Stretch:
    """Sound that can be decoded in one go."""

    part: Part | None
    """None: the whole file, as libsndfile reads it."""
    silence: int = 0
    """Samples that are missing before it."""
    first_sample: int = 0
    """Position of its first sample in the stream, where `flac_rest` says it."""


class AudioStream:
    """The sound of one file, read in order. A context manager. One thread at a time.

    Where something inside is missing and the file says how long it was (OGG, FLAC, MP3 with a tag), silence stands for it, so
    that what follows keeps its place in time. Otherwise the rest follows at once.
    """

    def __init__(self, path: Path, *, verify: bool) -> None:
        """Open `path`. `verify` looks for damage within the file, which means reading all of its bytes once.

        Raises DataError, whose text does not have the file's name, when it is no audio or cannot be read.
        """
        self._path = path
        try:
            self._file = FileBytes(path)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}") from error
        self._reader: _Reader | None = None
        self._source: PartFile | None = None
        try:
            self._open(verify)
        except OSError as error:
            self.close()
            raise DataError(f"cannot be read: {error.strerror}") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. May be called twice."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None
        self._file.close()

    @property
    def size_bytes(self) -> int:
        """Size of the file when it was opened."""
        return self._file.size

    def read(self, count: int) -> NDArray[np.float32]:
        """Return the next `count` samples, float32 (T, C); fewer only at the end. Raises DataError when bytes cannot be read."""
        pieces: list[NDArray[np.float32]] = []
        missing = count
        while missing > 0:
            piece = self._read_some(missing)
            if piece is None:
                break
            if len(piece):
                pieces.append(piece)
                missing -= len(piece)
                self._position += len(piece)
        if missing > 0:
            self._say_what_is_short()
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate([np.empty((0, self.channels), dtype=np.float32), *pieces])

    def check_unchanged(self) -> None:
        """Raise DataError when the file has been written to, or has been replaced, since it was opened."""
        if self._file.has_changed():
            raise DataError("changed while it was read: something is still writing it")

    def _open(self, verify: bool) -> None:
        """Choose how to read the file, and work out how long it is."""
        if not self._file.size:
            raise DataError("cannot be opened as audio: it is empty (0 bytes)")
        layout, self._start = scan(self._file, verify=verify)
        self.faults: list[Fault] = list(layout.faults)
        """What is wrong with the file's structure; reading may add to it."""
        self._stretches: deque[_Stretch] = deque()
        self._kept: NDArray[np.float32] | None = None
        self._part: Part | None = None
        self._silence = self._position = self._in_stretch = self._first_sample = 0
        refusal = "" if layout.needs_parts else self._open_whole(layout)
        if self._reader is None:
            self._open_parts(layout, refusal)

    def _open_whole(self, layout: Layout) -> str:
        """Open the file as libsndfile reads it, if that is all of it. Returns why libsndfile refuses it, or ""."""
        try:
            reader = _Reader(str(self._path))
        except soundfile.LibsndfileError as error:
            return _reason(error)
        said = self._describe(reader)
        there = said if layout.num_frames is None else layout.num_frames
        tolerance = TOLERANCE_S * self.sample_rate_hz
        if layout.parts and said < there - tolerance:
            reader.close()
        else:
            self._reader = reader
            self.num_frames = there if abs(said - there) > tolerance else said
            """Samples of each channel that are there by the file's structure. `read` gives as many, to .1 s, or adds a fault."""
            if self.num_frames >= _NO_LENGTH:
                self.num_frames = there = self._count()
        self.stated_frames = said if layout.stated_frames is None else layout.stated_frames
        """Samples of each channel that the file states, or that libsndfile guesses from its size."""
        if abs(said - there) > tolerance and not self.faults:
            guess = "" if said >= _NO_LENGTH else f" and suggests {said / self.sample_rate_hz:.1f} s by its size"
            self.faults.append(Fault("length", f"states no length{guess}, but {there / self.sample_rate_hz:.1f} s are there"))
        return ""

    def _open_parts(self, layout: Layout, refusal: str) -> None:
        """Plan to read the file in the parts of its layout."""
        total = place = lost_parts = 0
        for part in layout.parts:
            try:
                with self._open_part(part) as reader:
                    frames = self._describe(reader) if not self._stretches else reader.frames
                    rate_hz = reader.samplerate
            except soundfile.LibsndfileError as error:
                refusal = refusal or _reason(error)
                lost_parts += 1
                continue
            silence = part.silence_frames
            if part.starts_stream:
                place = 0
            if part.end_frame is not None:
                end = part.end_frame if part.ticks_per_s is None else round(part.end_frame * rate_hz / part.ticks_per_s)
                silence = end - frames - place if part.follows_gap else 0
                place = end
            silence = silence if 0 < silence <= MOST_SILENCE_S * rate_hz else 0
            self._stretches.append(_Stretch(part, silence))
            total += round((silence + frames) * self.sample_rate_hz / rate_hz)
        if not self._stretches:
            raise DataError(f"cannot be opened as audio: {refusal or 'it holds no sound'}")
        self.num_frames = total if layout.num_frames is None else layout.num_frames
        if layout.stated_frames is not None or layout.needs_parts:
            self.stated_frames = self.num_frames if layout.stated_frames is None else layout.stated_frames
        elif refusal:
            self.stated_frames = self.num_frames
        gaps = [stretch for stretch in self._stretches if stretch.part and stretch.part.follows_gap]
        if (gaps or lost_parts) and not self._has("gap"):
            missing_s = sum(stretch.silence for stretch in gaps) / self.sample_rate_hz
            what = f"{missing_s:.1f} s inside are" if missing_s else "something inside is"
            places = f"{len(gaps) + lost_parts} places" if len(gaps) + lost_parts > 1 else "one place"
            self.faults.append(Fault("gap", f"{what} missing or damaged, at {places}"))

    def _describe(self, reader: soundfile.SoundFile) -> int:
        """Take the format from the first reader. Returns the length that it gives."""
        self.sample_rate_hz: int = reader.samplerate
        self.channels: int = reader.channels
        self.format: str = reader.format
        """libsndfile's name of the content, such as OGG, whatever the file is called."""
        if not _LOWEST_RATE_HZ <= self.sample_rate_hz <= _HIGHEST_RATE_HZ:
            raise DataError(
                f"states a sample rate of {self.sample_rate_hz:,} Hz; {_LOWEST_RATE_HZ:,} to {_HIGHEST_RATE_HZ:,} Hz are possible"
            )
        return reader.frames

    def _open_part(self, part: Part) -> _Reader:
        self._source = PartFile(self._file, part.pieces, is_open_ended=part.is_open_ended)
        return _Reader(self._source)

    def _count(self) -> int:
        """Return the length of a file that does not say it, by decoding it."""
        with _Reader(str(self._path)) as reader:
            total = 0
            try:
                while count := len(reader.read(_STEP, dtype="float32", always_2d=True)):
                    total += count
            except soundfile.LibsndfileError:
                pass  # Reading says where it breaks off.
        return total

    def _read_some(self, count: int) -> NDArray[np.float32] | None:
        """Return some samples, perhaps none, at most `count`; None at the end."""
        if self._silence:
            given = min(count, self._silence)
            self._silence -= given
            return np.zeros((given, self.channels), dtype=np.float32)
        if self._kept is not None:
            piece, self._kept = self._kept[:count], self._kept[count:] if count < len(self._kept) else None
            return piece
        if self._reader is None:
            return np.empty((0, self.channels), dtype=np.float32) if self._begin() else None
        try:
            piece = self._reader.read(count, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            piece = self._before_damage(_reason(error))
            if len(piece) > count:
                piece, self._kept = piece[:count], piece[count:]
        if self._source and self._source.error:
            raise DataError(f"cannot be read: {self._source.error.strerror}")
        self._in_stretch += len(piece)
        if not len(piece):
            self._end()
        return piece

    def _begin(self) -> bool:
        """Begin the next stretch. Returns False when there is none."""
        if not self._stretches:
            return False
        stretch = self._stretches.popleft()
        self._part, self._silence, self._in_stretch = stretch.part, stretch.silence, 0
        self._first_sample = stretch.first_sample
        self._reader = self._again()
        if (self._reader.samplerate, self._reader.channels) != (self.sample_rate_hz, self.channels):
            self._kept = self._converted(self._reader)
            self._end()
        return True

    def _again(self) -> _Reader:
        """Open the current stretch at its beginning."""
        if self._part is not None:
            return self._open_part(self._part)
        self._source = None
        return _Reader(str(self._path))

    def _end(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    def _converted(self, reader: _Reader) -> NDArray[np.float32]:
        """Return a whole stretch of another rate or another number of channels than the first, as the first has them."""
        pieces = []
        with suppress(soundfile.LibsndfileError):
            while len(piece := reader.read(_STEP, dtype="float32", always_2d=True)):
                pieces.append(piece.mean(axis=1))
        mono_T = np.concatenate([np.empty(0, dtype=np.float32), *pieces])
        if reader.samplerate != self.sample_rate_hz:
            mono_T = soxr.resample(mono_T, reader.samplerate, self.sample_rate_hz, quality="HQ")
        return np.repeat(mono_T[:, None], self.channels, axis=1)

    def _before_damage(self, reason: str) -> NDArray[np.float32]:
        """Return what the decoder gives before it fails, and plan to go on behind that where the format allows it."""
        self._end()
        pieces = [np.empty((0, self.channels), dtype=np.float32)]
        with self._again() as reader, suppress(soundfile.LibsndfileError):
            skip = self._in_stretch
            while skip > 0 and (got := len(reader.read(min(skip, _STEP), dtype="float32", always_2d=True))):
                skip -= got
            # Steps from the beginning of the stretch, so that where it breaks off does not depend on the caller's steps.
            step = _FINE_STEP - self._in_stretch % _FINE_STEP
            while len(piece := reader.read(step, dtype="float32", always_2d=True)):
                pieces.append(piece)
                step = _FINE_STEP
        before = np.concatenate(pieces)
        sample = self._first_sample + self._in_stretch + len(before)
        rest = flac_rest(self._file, self._start, sample) if self.format == "FLAC" else None
        at_s = (self._position + len(before)) / self.sample_rate_hz
        if rest is not None:
            part, first_sample = rest
            self._stretches.appendleft(_Stretch(part, first_sample - sample, first_sample))
            missing_s = (first_sample - sample) / self.sample_rate_hz
            self.faults.append(Fault("gap", f"{missing_s:.1f} s at {at_s:.1f} s cannot be decoded: {reason}"))
        elif not self._has("cut"):
            self.faults.append(Fault("cut", f"breaks off after {at_s:.1f} s: {reason}"))
        return before

    def _say_what_is_short(self) -> None:
        """Add a fault where the end came at another place than expected, unless a known fault explains it."""
        difference = self._position - self.num_frames
        tolerance = TOLERANCE_S * self.sample_rate_hz
        there = f"{self._position / self.sample_rate_hz:.1f} s are there"
        said = f"{self.num_frames / self.sample_rate_hz:.1f} s"
        if difference < -tolerance and not self._has("cut") and not self._has("gap"):
            self.faults.append(Fault("cut", f"{there} of {said}"))
        elif difference < -_MUCH_S * self.sample_rate_hz and not self._has("gap"):
            self.faults.append(Fault("gap", f"only {self._position / self.sample_rate_hz:.1f} s of {said} can be decoded"))
        elif difference > tolerance and not self._has("length"):
            self.faults.append(Fault("length", f"states {said}, but {there}"))

    def _has(self, kind: str) -> bool:
        return any(fault.kind == kind for fault in self.faults)


def _reason(error: soundfile.LibsndfileError) -> str:
    text = str(error.error_string).rstrip(".")
    return "Format not recognised" if text.startswith(_NO_MP3) else text
