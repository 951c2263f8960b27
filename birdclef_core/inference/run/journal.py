"""Keeps what a detector said of each file, as it comes, so that a run that was cut off goes on where it was.

Kept are logits and not rows: other thresholds or formats need no second hearing.
Layout of the folder:
    run.json                          what was run: the model and the procedure
    <key of the file>.safetensors     a file that is done
    <key of the file>.0003.part       the fourth part of a file that is not
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from birdclef_core.errors import FileContentError, InputError
from birdclef_core.identity import canonical, fingerprint
from birdclef_core.inference.procedure import Procedure
from birdclef_core.inference.results.file_logits import FileLogits
from birdclef_core.json_files import from_json, to_json
from birdclef_core.output_place import writing_to

RUN = "run.json"
_ARRAYS = ("start", "end", "logits", "embedding")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the logits of a journal depend on, besides the files."""

    model_id: str
    procedure: Procedure
    embeddings: bool
    batch_size: int
    code: str
    """The code that computes logits."""


class Journal:
    """The journal of one run. One process at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def opened(self, run: Run) -> Iterator[Run]:
        """Make the folder if need be and hold it for this process within the block. Yield the run that it is of.

        That is `run`, or the same with embeddings. Raises InputError when another process holds it, when it is of a run with another model or procedure, or cannot be written.
        """
        with writing_to(self._folder, way_out="give another folder with -o"):
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._folder / "lock", timeout=0)
            try:
                lock.acquire()
            except Timeout:
                raise InputError(
                    f"Another process is writing to {self._folder.parent}: wait for it, or give another with -o."
                ) from None
        try:
            yield self._check(run)
        finally:
            lock.release()

    def _check(self, run: Run) -> Run:
        file = self._folder / RUN
        if not file.exists():
            _write(file, to_json(run, indent=1).encode())
            return run
        was = from_json(Run, file.read_bytes(), file=str(file))
        if was in (run, replace(run, embeddings=True)):
            return was
        before, now = canonical(was), canonical(run)
        before |= before.pop("procedure")
        now |= now.pop("procedure")
        changes = "; ".join(f"{name} was {before[name]}, is {now[name]}" for name in now if before[name] != now[name])
        raise InputError(
            f"{self._folder.parent} holds the predictions of another run ({changes}). Give another folder with -o, or remove this one."
        )

    def key(self, path: Path) -> str:
        """Return under which name a file is kept: another one when it has changed. Raises OSError when it is not there."""
        status = path.stat()
        return fingerprint([os.fsencode(path.absolute()).hex(), status.st_size, status.st_mtime_ns])[:24]

    def read(self, key: str) -> tuple[FileLogits, tuple[str, ...]] | None:
        """Return the logits of a file that is done, and its faults; None when it is not."""
        return _read(self._folder / f"{key}.safetensors")

    def parts(self, key: str) -> list[FileLogits]:
        """Return the parts of a file that is not done, in order, as far as they follow each other."""
        found: list[FileLogits] = []
        while (part := _read(self._part(key, len(found)))) is not None:
            found.append(part[0])
        return found

    def save_part(self, key: str, number: int, part: FileLogits) -> None:
        """Keep a part of a file; parts are numbered from 0."""
        _save(self._part(key, number), part, ())

    def finish(self, key: str, whole: FileLogits, faults: Sequence[str]) -> None:
        """Keep a file that is done, in place of its parts."""
        _save(self._folder / f"{key}.safetensors", whole, faults)
        for path in self._folder.glob(f"{key}.*.part"):
            path.unlink(missing_ok=True)

    def _part(self, key: str, number: int) -> Path:
        return self._folder / f"{key}.{number:04d}.part"


def _save(path: Path, part: FileLogits, faults: Sequence[str]) -> None:
    values = (part.start_W, part.end_W, part.logits_WC, part.embedding_WD)
    arrays = {name: np.ascontiguousarray(value) for name, value in zip(_ARRAYS, values, strict=True)}
    aside = path.with_name(f".{path.name}.tmp")
    with writing_to(path.parent, way_out="give another folder with -o"):
        try:
            save_file(arrays, aside, metadata={"faults": to_json(list(faults))})
            _appear(aside, path)
        except SafetensorError as error:  # it has an error of its own for a full disk
            raise OSError(errno.EIO, str(error)) from error
        finally:
            aside.unlink(missing_ok=True)


def _read(path: Path) -> tuple[FileLogits, tuple[str, ...]] | None:
    """Return what is in a file; None when there is none, or when it is damaged, which removes it."""
    try:
        with safe_open(path, framework="numpy") as file:
            faults = from_json(list[str], (file.metadata() or {}).get("faults", ""), file=str(path))
            return FileLogits(*(file.get_tensor(name) for name in _ARRAYS)), tuple(faults)
    except FileNotFoundError:
        return None
    except (SafetensorError, FileContentError, OSError, ValueError):
        path.unlink(missing_ok=True)
        return None


def _write(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{path.name}.tmp")
    with writing_to(path.parent, way_out="give another folder with -o"):
        aside.write_bytes(content)
        _appear(aside, path)


def _appear(aside: Path, path: Path) -> None:
    """Give a file that has been written its name, when its content is on the disk."""
    with suppress(OSError), aside.open("rb") as file:
        os.fsync(file.fileno())
    aside.replace(path)
