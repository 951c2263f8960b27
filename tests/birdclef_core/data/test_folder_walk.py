import os
from pathlib import Path

import pytest

from birdclef_core.data.folder_walk import by_extension, list_audio, names_in, shown, suffix_of, walk_audio
from birdclef_core.errors import DataError


def touch(root: Path, *names: str, content: bytes = b"") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def test_audio_of_all_formats_that_are_read(tmp_path: Path) -> None:
    touch(tmp_path, "top/b/2.WAV", "top/a/1.ogg", "top/3.opus", "top/a/4.aiff", "top/a/notes.txt", "top/a/ogg", "other/5.ogg")
    assert list_audio(tmp_path, "top") == ["top/3.opus", "top/a/1.ogg", "top/a/4.aiff", "top/b/2.WAV"]
    assert list_audio(tmp_path, ".") == [f"{name}" for name in ("other/5.ogg", *list_audio(tmp_path, "top"))]
    assert list_audio(tmp_path, "nowhere") == []


def test_formats_that_are_not_read_are_named_unless_their_content_is_another(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.m4a", "a/2.wma", "a/3.m4a", content=b"\0\0\0\x18ftypM4A ")
    touch(tmp_path, "a/4.m4a", content=b"OggS....")
    audio = walk_audio(tmp_path, "a")
    assert audio.other_formats == ("a/1.m4a", "a/2.wma", "a/3.m4a") and audio.paths == ("a/4.m4a",)
    assert list(by_extension(audio.other_formats)) == [("m4a", 2), ("wma", 1)]


def test_what_systems_and_editors_keep_is_no_data(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.ogg", "a/._1.ogg", ".ipynb_checkpoints/1-checkpoint.ogg", "__MACOSX/a/._1.ogg", "@eaDir/1.ogg/x.mp3")
    assert list_audio(tmp_path, ".") == ["a/1.ogg"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    """One link to a folder above itself made every file appear 41 times."""
    touch(tmp_path, "top/a/1.ogg", "elsewhere/2.ogg")
    (tmp_path / "top/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "top/a/loop").symlink_to(tmp_path / "top")
    (tmp_path / "top/a/above").symlink_to(tmp_path.parent)
    audio = walk_audio(tmp_path, "top")
    assert audio.paths == ("top/a/1.ogg", "top/linked/2.ogg")
    assert audio.loops == ("top/a/above", "top/a/loop") and not audio.unreachable


def test_a_link_to_nothing_is_listed_so_that_opening_it_says_why(tmp_path: Path) -> None:
    (tmp_path / "gone.ogg").symlink_to(tmp_path / "nowhere")
    assert list_audio(tmp_path, ".") == ["gone.ogg"]


def test_pipes_and_names_that_are_not_utf_8_are_said(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.ogg")
    os.mkfifo(tmp_path / "a/pipe.ogg")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/a/b\xe9.ogg")).touch()
    audio = walk_audio(tmp_path, "a")
    assert audio.paths == ("a/1.ogg",)
    assert audio.unreachable == {
        "a/b\\xe9.ogg": "its name is not UTF-8: rename it",
        "a/pipe.ogg": "a pipe or a device, not a file",
    }


def test_a_folder_that_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def refuse(path: Path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    touch(tmp_path, "a/closed/1.ogg", "a/open/2.ogg")
    monkeypatch.setattr(os, "scandir", refuse)
    audio = walk_audio(tmp_path, "a")
    assert audio.paths == ("a/open/2.ogg",) and audio.unreachable == {"a/closed": "the folder cannot be read: Permission denied"}


def test_names(tmp_path: Path) -> None:
    assert suffix_of("a.b/XC1.OGG") == "ogg" and suffix_of("a.b/XC1") == "" and suffix_of(".ogg") == ""
    assert shown(os.fsdecode(b"b\xe9")) == "b\\xe9" and shown("bé") == "bé"
    touch(tmp_path, "b", "a")
    assert names_in(tmp_path) == ["a", "b"]
    for path, said in ((tmp_path / "nowhere", "must exist"), (tmp_path / "a", "Not a directory")):
        with pytest.raises(DataError, match=said):
            names_in(path)
