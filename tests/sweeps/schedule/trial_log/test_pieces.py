"""A log of lines in pieces: what was appended comes back in order, whenever the process was killed and whoever reads meanwhile."""

import pytest

from birdclef_core.store.storage import Storage
from sweeps.schedule.trial_log import pieces
from sweeps.schedule.trial_log.pieces import LineLog, MissingPiece, Piece, find_pieces, read_pieces


@pytest.fixture
def storage(tmp_path) -> Storage:
    return Storage.parse(str(tmp_path / "log"))


def text(storage: Storage) -> str:
    return b"".join(content for _, content in read_pieces(storage)).decode()


def lines(*names: str) -> dict[str, bytes]:
    """A line for each name such as `a1`: the value 1 under the key `a`."""
    return {name[0]: f"{name}\n".encode() for name in names}


def reopened(storage: Storage) -> LineLog:
    found = read_pieces(storage)
    latest = {line[:1]: f"{line}\n".encode() for _, content in found for line in content.decode().splitlines()}
    return LineLog(storage, [(piece, len(content)) for piece, content in found], latest)


def test_batches_come_back_in_order_one_file_each(storage):
    log = LineLog(storage, [], {})
    assert text(storage) == ""
    log.append(lines("a1", "b1"))
    log.append(lines("a2"))
    assert storage.names() == ["00000000-00000000.jsonl", "00000001-00000001.jsonl"]
    reopened(storage).append(lines("c1"))
    assert text(storage) == "a1\nb1\na2\nc1\n"


def test_a_missing_piece_is_found_also_the_first(storage):
    log = LineLog(storage, [], {})
    for name in ("a1", "b1", "c1"):
        log.append(lines(name))
    storage.delete("00000001-00000001.jsonl")
    with pytest.raises(MissingPiece, match="00000001-00000001"):
        read_pieces(storage)
    storage.delete("00000000-00000000.jsonl")
    with pytest.raises(MissingPiece, match="00000000-00000001"):
        read_pieces(storage)


def test_old_lines_go_when_pieces_are_joined_and_a_kill_in_between_loses_nothing(storage, monkeypatch):
    monkeypatch.setattr(pieces, "_JOIN_AFTER", 4)
    log = LineLog(storage, [], {})
    for name in ("a1", "b1", "c1", "a2"):
        log.append(lines(name))
    assert len(storage.names()) == 4

    class Killed(Exception):
        pass

    def killed(self, name):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Storage, "delete", killed)
        log.append(lines("a3"))
    assert len(storage.names()) == 6 and find_pieces(storage) == [Piece(0, 4)]
    assert text(storage) == "a3\nb1\nc1\n"
    log = reopened(storage)
    for name in ("b2", "c2", "d1", "d2"):
        log.append(lines(name))
    assert text(storage) == "a3\nb2\nc2\nd2\n"
    assert storage.names() == ["00000000-00000008.jsonl"], "also what the killed process had left"


def test_what_is_written_again_is_at_most_as_much_as_what_was_written(storage, monkeypatch):
    monkeypatch.setattr(pieces, "_JOIN_AFTER", 4)
    written = []
    write = Storage.write_bytes
    monkeypatch.setattr(
        Storage, "write_bytes", lambda self, name, content: (written.append((name, len(content))), write(self, name, content))
    )
    log = LineLog(storage, [], {})
    for number in range(400):
        log.append({str(number): b"x" * 10 + b"\n"})
    once = sum(size for name, size in written if Piece(int(name[:8]), int(name[9:17])).first == int(name[9:17]))
    assert sum(size for _, size in written) <= 3 * once and len(storage.names()) < 250
    assert len(text(storage).splitlines()) == 400


def test_a_reader_goes_on_when_pieces_are_joined_meanwhile(storage, monkeypatch):
    log = LineLog(storage, [], {})
    for name in ("a1", "b1", "a2"):
        log.append(lines(name))
    read, once = Storage.read_bytes, [True]

    def read_late(self, name):
        if once and once.pop():
            log._join()
        return read(self, name)

    monkeypatch.setattr(Storage, "read_bytes", read_late)
    assert text(storage) == "a2\nb1\n"
