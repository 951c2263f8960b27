"""Joins pieces of a file, and other bytes, to one file that libsndfile can open."""

import io
import os
from collections.abc import Sequence

from birdclef_core.data.containers.file_bytes import FileBytes

_ENDLESS = 2**40
_ID3V1_BYTES = 128


class PartFile(io.RawIOBase):
    """A read-only file made of pieces: bytes, or (start, end) in another file.

    An open-ended one claims to be a tebibyte longer than it is. The MP3 decoder guesses a length from that, which it then does
    not reach; it looks for a tag in the last 128 bytes, so these are zeros.
    """

    def __init__(self, file: FileBytes, pieces: Sequence[bytes | tuple[int, int]], *, is_open_ended: bool = False) -> None:
        """Refer to `file`, which must stay open."""
        super().__init__()
        self._file, self._pieces = file, pieces
        self._ends = [0]
        for piece in pieces:
            self._ends.append(self._ends[-1] + (len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]))
        self._size = self._ends[-1] + (_ENDLESS if is_open_ended else 0)
        self._position = 0
        self.error: OSError | None = None
        """Why bytes could not be read. An exception would be lost in libsndfile, which sees the end of the file."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        view = memoryview(buffer)
        done = 0
        while done < len(view):
            try:
                data = self._next(len(view) - done)
            except OSError as error:
                self.error = error
                return done
            if not data:
                break
            view[done : done + len(data)] = data
            done += len(data)
            self._position += len(data)
        return done

    def _next(self, count: int) -> bytes:
        """Return some of the bytes at the position, at most `count`."""
        if self._position >= self._size - _ID3V1_BYTES and self._size > self._ends[-1]:
            return bytes(min(count, self._size - self._position))
        for piece, start, end in zip(self._pieces, self._ends, self._ends[1:], strict=False):
            if start <= self._position < end:
                offset, wanted = self._position - start, min(count, end - self._position)
                if isinstance(piece, bytes):
                    return piece[offset : offset + wanted]
                return self._file.read(piece[0] + offset, wanted)
        return b""
