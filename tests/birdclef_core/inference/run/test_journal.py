"""What was heard of a file is kept whole, in order, and only for the run that it is of."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from made_up_detector import write_sound
from safetensors import SafetensorError

from birdclef_core.errors import InputError
from birdclef_core.inference.procedure import DEFAULT, SOLUTION_2023
from birdclef_core.inference.results.file_logits import FileLogits, joined
from birdclef_core.inference.run import journal as journal_module
from birdclef_core.inference.run.journal import Journal, Run

RUN = Run(model_id="m" * 64, procedure=DEFAULT, embeddings=False, batch_size=16, code="c")


def part(first: int, count: int) -> FileLogits:
    start_W = np.arange(first, first + count) * 160_000
    return FileLogits(start_W, start_W + 160_000, np.float32(start_W)[:, None] / 7, np.zeros((count, 0), np.float32))


def same(one: FileLogits, other: FileLogits) -> bool:
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(vars(one).values(), vars(other).values(), strict=True))


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "out" / "journal")
    with journal.opened(RUN):
        yield journal


def test_a_file_that_is_done_reads_back_with_its_faults(journal):
    assert journal.read("k") is None
    journal.finish("k", part(0, 3), ["breaks off", 'a "quote"'])
    logits, faults = journal.read("k")
    assert same(logits, part(0, 3)) and faults == ("breaks off", 'a "quote"')


def test_parts_are_read_in_order_and_go_when_the_file_is_done(journal, tmp_path):
    for number, first in enumerate((0, 4, 8)):
        journal.save_part("k", number, part(first, 4))
    journal.save_part("k", 4, part(16, 4))
    found = journal.parts("k")
    assert same(joined(found), part(0, 12)), "the fifth part is of no use without the fourth"
    journal.finish("k", part(0, 20), [])
    assert journal.parts("k") == []
    assert sorted(path.name for path in (tmp_path / "out" / "journal").iterdir()) == ["k.safetensors", "lock", "run.json"]


@pytest.mark.parametrize("content", [b"", b"rubbish", "cut"])
def test_damage_is_as_if_nothing_had_been_kept(journal, tmp_path, content):
    journal.finish("k", part(0, 3), [])
    journal.save_part("p", 0, part(0, 3))
    for name in ("k.safetensors", "p.0000.part"):
        file = tmp_path / "out" / "journal" / name
        file.write_bytes(file.read_bytes()[:-5] if content == "cut" else content)
    assert journal.read("k") is None and journal.parts("p") == []
    journal.finish("k", part(0, 2), [])
    assert journal.read("k") is not None


def test_a_file_that_changes_has_another_key(journal, tmp_path):
    path = write_sound(tmp_path / "a.wav", 1.0)
    key = journal.key(path)
    assert journal.key(path) == key == journal.key(Path(path.parent, ".", "a.wav"))
    write_sound(path, 1.1)
    assert journal.key(path) != key
    with pytest.raises(OSError):
        journal.key(tmp_path / "gone.wav")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_id": "n" * 64}, "model_id was mmm"),
        ({"procedure": SOLUTION_2023}, "tail was audio, is silence; remove_mean was True, is False"),
        ({"procedure": replace(DEFAULT, step_s=1.0)}, "step_s was 5.0, is 1.0"),
        ({"embeddings": True}, "embeddings was False, is True"),
    ],
)
def test_another_run_is_refused_and_its_predictions_stay(tmp_path, changes, said):
    journal = Journal(tmp_path / "out" / "journal")
    with journal.opened(RUN):
        journal.finish("k", part(0, 3), [])
    with (
        pytest.raises(InputError, match=rf"out holds the predictions of another run .*{said}"),
        journal.opened(replace(RUN, **changes)),
    ):
        pass
    with journal.opened(RUN) as run:
        assert run == RUN and journal.read("k") is not None


def test_a_run_without_embeddings_goes_on_in_one_with_them(tmp_path):
    journal = Journal(tmp_path / "out" / "journal")
    with journal.opened(replace(RUN, embeddings=True)):
        pass
    with journal.opened(RUN) as run:
        assert run.embeddings


def test_one_process_at_a_time_has_a_journal(tmp_path):
    journal = Journal(tmp_path / "out" / "journal")
    with journal.opened(RUN):
        pass
    with (
        FileLock(tmp_path / "out" / "journal" / "lock"),
        pytest.raises(InputError, match="Another process is writing to"),
        journal.opened(RUN),
    ):
        pass
    with journal.opened(RUN):
        pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="give another folder with -o"), Journal(tmp_path / "file" / "journal").opened(RUN):
        pass


def test_a_full_disk_is_named_and_leaves_nothing_half_written(journal, tmp_path, monkeypatch):
    """safetensors has an error of its own for it."""

    def full(arrays, path, metadata):
        path.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(journal_module, "save_file", full)
    with pytest.raises(InputError, match=r"No space left on device.*give another folder with -o"):
        journal.save_part("key", 0, part(0, 4))
    assert sorted(path.name for path in (tmp_path / "out" / "journal").iterdir()) == ["lock", "run.json"]


def test_a_disk_that_is_full_from_the_beginning_is_named(tmp_path, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"No space left on device\. Free some"), Journal(tmp_path / "journal").opened(RUN):
        pass
