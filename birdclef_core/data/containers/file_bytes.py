"""Reads the bytes of a file by position, in large pieces."""

import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

_FIRST_CHUNK, _CHUNK = 2**14, 2**20


class FileBytes:
    """The bytes of a regular file, by position. A context manager. One thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open `path`. Raises OSError when it cannot be read; a folder, a pipe or a device is such a case."""
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # A pipe would wait for its writer.
        self._path = path
        self._start, self._chunk, self._ahead = 0, b"", _FIRST_CHUNK
        status = os.fstat(self._file)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._file)
            raise OSError(0, "it is not a regular file", str(path))
        self.size = status.st_size
        """Length in bytes when it was opened."""
        self._state = _state(status)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. May be called twice."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def read(self, position: int, count: int) -> bytes:
        """Return up to `count` bytes from `position`; fewer at the end of the file."""
        offset = position - self._start
        if offset < 0 or offset + count > len(self._chunk):
            if count > _CHUNK:
                return self.read_once(position, count)
            self._ahead = min(4 * self._ahead, _CHUNK) if 0 <= offset <= len(self._chunk) else _FIRST_CHUNK
            self._start, self._chunk, offset = position, self.read_once(position, max(count, self._ahead)), 0
        return self._chunk[offset : offset + count]

    def read_once(self, position: int, count: int) -> bytes:
        """Return the same as `read`, without keeping anything for the next call."""
        return os.pread(self._file, count, position)

    def find(self, pattern: bytes, start: int, end: int) -> int:
        """Return the first place of `pattern` that lies within [start, end), or -1."""
        while start < end:
            chunk = self.read_once(start, min(_CHUNK, end - start))
            found = chunk.find(pattern)
            if found >= 0:
                return start + found
            if start + len(chunk) >= end or len(chunk) < len(pattern):
                return -1
            start += len(chunk) - len(pattern) + 1
        return -1

    def has_changed(self) -> bool:
        """Return whether the path now names another file, or this one in another state."""
        try:
            return _state(os.fstat(self._file)) != self._state or _state(self._path.stat()) != self._state
        except OSError:
            return True


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
