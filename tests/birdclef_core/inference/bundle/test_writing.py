"""A bundle appears complete or not at all, and says what it was made of."""

from types import SimpleNamespace

import pytest
from made_up_bundles import contents, examples, random_part

from birdclef_core.errors import InputError
from birdclef_core.identity import file_sha256
from birdclef_core.inference.bundle import program, writing
from birdclef_core.inference.bundle.examples import no_examples
from birdclef_core.inference.bundle.writing import write_bundle
from birdclef_core.inference.procedure import SOLUTION_2023


@pytest.fixture(scope="module")
def part():
    return random_part("cnn")


def test_it_says_what_it_was_made_of(part, tmp_path):
    (tmp_path / "bundle").mkdir()
    bundle = write_bundle(contents(part), tmp_path / "bundle")
    record, (member,) = bundle.record, bundle.record.members
    assert (member.stage_id, member.recipe, member.stage) == (part.stage_id, "tiny", "train_bce")
    assert (member.model, member.species, member.num_frames) == (part.model.config, part.species, 160)
    assert 0 < member.network_ms < 10_000 and 0 < member.spectrogram_ms < 10_000
    assert record.source == "made up" and record.names == {"alpha": "Alpha bird"}
    written = {path.relative_to(bundle.folder).as_posix() for path in bundle.folder.rglob("*") if path.is_file()}
    assert written == {*record.files, "bundle.json"}
    assert all(file_sha256(bundle.folder / name) == sha256 for name, sha256 in record.files.items())


def test_a_folder_that_is_in_use_is_left_alone(part, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(InputError, match="is not empty"):
        write_bundle(contents(part), tmp_path / "full")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        write_bundle(contents(part), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_what_fails_leaves_nothing(part, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "write_record", lambda record, folder: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(InputError, match=r"No space left.*--to"):
        write_bundle(contents(part, examples=examples(0)), tmp_path / "bundle", force=True)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_is_named_although_torch_does_not(part, tmp_path, monkeypatch):
    def fail(*_) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(program.torch, "save", fail)
    with pytest.raises(RuntimeError, match="PytorchStreamWriter"):
        write_bundle(contents(part), tmp_path / "bundle")
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda place: SimpleNamespace(free=0))
    with pytest.raises(InputError, match=r"No space left on device.*--to"):
        write_bundle(contents(part), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_without_sound_it_is_written_by_force_only(part, tmp_path):
    silent = contents(part, examples=no_examples(SOLUTION_2023, "the recordings are gone"))
    with pytest.raises(InputError, match=r"there are none \(the recordings are gone\).*--data.*--force"):
        write_bundle(silent, tmp_path / "bundle")
    bundle = write_bundle(silent, tmp_path / "bundle", force=True)
    parity, text = bundle.parity(), (bundle.folder / "card.md").read_text()
    assert parity.num_windows == 0 and "the recordings are gone" in parity.broken_rules[0]
    assert "written by force and was compared with nothing: the recordings are gone" in text


def test_a_precision_that_the_format_lacks_is_refused(part, tmp_path):
    with pytest.raises(InputError, match=r"format torch has \(float32\), but got int8"):
        write_bundle(contents(part, precision="int8"), tmp_path / "bundle")
