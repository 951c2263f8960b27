"""A log of lines on a storage, each under a key: what changed is appended as one file, and of each key the last line counts.

A file of an object store cannot be appended to, so the log is in pieces, which are named by the numbers of the first and the last batch
of lines in them: `00000007-00000007.jsonl` is one batch. Now and then the last line of every key is written as one piece, which is named by all
the batches that it replaces (`00000000-00000064.jsonl`), and these are removed. Whenever a process is killed, the pieces say what was
written until then, in order: a piece is there completely or not at all, and none is without those before it.
"""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from birdclef_core.store.storage import Storage

_NAME = re.compile(r"(\d{8})-(\d{8})\.jsonl")
_JOIN_AFTER = 64
"""Pieces are joined when there are more than this many, and they have as many bytes as what was joined last: so all that is written
again is at most as much as what is written first."""
_JOIN_AT = 512
"""They are joined at this number in any case, because each takes a request to be read."""
_THREADS = 16
_READ_ATTEMPTS = 20


@dataclass(frozen=True, order=True)
class Piece:
    """A file of a log."""

    first: int
    last: int
    """Numbers of the first and the last batch in it."""

    @property
    def name(self) -> str:
        return f"{self.first:08d}-{self.last:08d}.jsonl"


class MissingPiece(Exception):
    """A log lacks a piece, whose name this is, but has later ones."""


def find_pieces(storage: Storage) -> list[Piece]:
    """Return the pieces of a log that count, in order. Those that a joined one replaces are left out. Raises MissingPiece."""
    found = [Piece(*map(int, match.groups())) for name in storage.names() if (match := _NAME.fullmatch(name))]
    pieces: list[Piece] = []
    for piece in sorted(found, key=lambda piece: (piece.first, -piece.last)):
        following = pieces[-1].last + 1 if pieces else 0
        if piece.first > following:
            raise MissingPiece(Piece(following, piece.first - 1).name)
        if piece.last >= following:
            pieces.append(piece)
    return pieces


def read_pieces(storage: Storage) -> list[tuple[Piece, bytes]]:
    """Return the pieces that count, in order, with their content. A driver may be joining some meanwhile. Raises MissingPiece."""
    for _ in range(_READ_ATTEMPTS):
        pieces = find_pieces(storage)
        with ThreadPoolExecutor(_THREADS) as pool:
            contents = list(pool.map(lambda piece: storage.read_bytes(piece.name), pieces))
        gone = [piece for piece, content in zip(pieces, contents, strict=True) if content is None]
        if not gone:
            return [(piece, content or b"") for piece, content in zip(pieces, contents, strict=True)]
    raise MissingPiece(gone[0].name)


class LineLog:
    """Appends to a log. One process at a time may do so."""

    def __init__(self, storage: Storage, pieces: Sequence[tuple[Piece, int]], lines: Mapping[str, bytes]) -> None:
        """`pieces`: those that there are, with their sizes in bytes. `lines`: the last line of each key in them."""
        self._storage, self._pieces, self._lines = storage, list(pieces), dict(lines)

    def append(self, lines: Mapping[str, bytes]) -> None:
        """Write lines, which end with a line break, as one piece. When this returns, they outlive the process."""
        number = self._pieces[-1][0].last + 1 if self._pieces else 0
        piece, content = Piece(number, number), b"".join(lines.values())
        self._storage.write_bytes(piece.name, content)
        self._pieces.append((piece, len(content)))
        self._lines |= lines
        num_new, new_bytes = len(self._pieces) - 1, sum(size for _, size in self._pieces[1:])
        if num_new >= _JOIN_AT or (num_new >= _JOIN_AFTER and new_bytes >= self._pieces[0][1]):
            self._join()

    def _join(self) -> None:
        joined, content = Piece(0, self._pieces[-1][0].last), b"".join(self._lines.values())
        self._storage.write_bytes(joined.name, content)
        self._pieces = [(joined, len(content))]
        replaced = [name for name in self._storage.names() if _NAME.fullmatch(name) and name != joined.name]
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(self._storage.delete, replaced))
