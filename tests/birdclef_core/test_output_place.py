import os
from pathlib import Path

import pytest

from birdclef_core.errors import InputError
from birdclef_core.output_place import first_writable, folder_for_check, place_of_report, require_folder, writing_to


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which no file can be made, as on Kaggle; root may write anywhere, so the refusal is put in."""
    folder = tmp_path / "data"
    folder.mkdir()
    make = os.open

    def refuse(path: str, flags: int, *rest: int, **options: int) -> int:
        if flags & (os.O_CREAT | os.O_TMPFILE) and Path(path).is_relative_to(folder):
            raise OSError(30, "Read-only file system", path)
        return make(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.chdir(tmp_path)
    return folder


def test_results_go_elsewhere_where_the_data_folder_is_read_only(read_only: Path, tmp_path: Path) -> None:
    assert folder_for_check(read_only, None) == tmp_path / "data-check" and (tmp_path / "data-check").is_dir()
    assert place_of_report(read_only, None) == tmp_path / "data-report.html"
    with pytest.raises(InputError, match=r"data must be a place that can be written to, but: Read-only file system.*--out"):
        folder_for_check(read_only, read_only)
    with pytest.raises(InputError, match="Read-only"):
        place_of_report(read_only, read_only / "page.html")


def test_results_go_into_the_data_folder_where_they_can(tmp_path: Path) -> None:
    assert folder_for_check(tmp_path, None) == tmp_path and place_of_report(tmp_path, None) == tmp_path / "report.html"
    assert folder_for_check(tmp_path / "nowhere", None) is None
    assert folder_for_check(tmp_path, tmp_path / "new") == tmp_path / "new"
    assert place_of_report(tmp_path, tmp_path / "pages" / "x.html") == tmp_path / "pages" / "x.html"
    assert first_writable(tmp_path / "nowhere", tmp_path) == tmp_path and first_writable(tmp_path / "nowhere") is None
    assert {path.name for path in tmp_path.iterdir()} == {"new", "pages"}, "trying leaves nothing behind"


def test_places_of_the_wrong_kind(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for wanted in ("file", "file/inside"):
        with pytest.raises(InputError, match="must be"):
            require_folder(tmp_path / wanted)
    with pytest.raises(InputError, match=r"is a folder. Give a name such as .*report\.html"):
        place_of_report(tmp_path, tmp_path)
    with pytest.raises(InputError, match="is a pipe"):
        place_of_report(tmp_path, tmp_path / "pipe")


def test_errors_of_the_disk_name_the_place_and_the_way_out(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"out must be .*No space left on device \(.*part\).*--out"),
        writing_to(tmp_path / "out"),
    ):
        raise OSError(28, "No space left on device", str(tmp_path / "out/part"))
    with pytest.raises(BrokenPipeError), writing_to(tmp_path):
        raise BrokenPipeError
    with pytest.raises(KeyError), writing_to(tmp_path):
        raise KeyError
