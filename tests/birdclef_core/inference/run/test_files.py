"""Files and folders that a user names become files to predict, each once, and a list of what cannot be read."""

import os
from pathlib import Path, PurePosixPath

import pytest
from made_up_detector import write_sound

from birdclef_core.errors import InputError
from birdclef_core.inference.run.files import find_audio, read_durations


def labels(found) -> list[str]:
    return [audio.label for audio in found.files]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("site/b.wav", "site/day 2/a.FLAC", "other/b.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def test_a_folder_stands_for_the_audio_in_it_in_sorted_order(here):
    (here / "site" / "notes.txt").touch()
    found = find_audio([Path("site")])
    assert labels(found) == ["site/b.wav", "site/day 2/a.FLAC"]
    assert [audio.place for audio in found.files] == [PurePosixPath("b"), PurePosixPath("day 2/a")]
    assert [audio.folder for audio in found.files] == [Path("site")] * 2
    assert found.unreadable == ()


def test_a_file_that_is_named_twice_is_predicted_once(here):
    (here / "link.wav").symlink_to(here / "site" / "b.wav")
    found = find_audio([Path("site/b.wav"), Path("site"), here / "site" / "b.wav", Path("link.wav")])
    assert labels(found) == ["site/b.wav", "site/day 2/a.FLAC"]


def test_tables_of_files_with_the_same_name_lie_apart(here):
    (here / "site" / "b.ogg").touch()
    found = find_audio([Path("site/b.wav"), Path("other/b.wav"), Path("site/b.ogg")])
    assert labels(found) == ["other/b.wav", "site/b.ogg", "site/b.wav"]
    assert [str(audio.place) for audio in found.files] == ["b", "b-2", "b-3"]


def test_tables_of_files_with_long_names_can_be_written_and_lie_apart(here):
    """A recorder's name of 250 bytes with `.selections.txt` behind it was too long for the file system, and no table was written."""
    for end in "ab":
        (here / "site" / f"{'鳥' * 80}{end}.wav").touch()
    places = [audio.place for audio in find_audio([Path("site")]).files if "鳥" in audio.label]
    assert len(set(places)) == 2 and all(len(place.name.encode()) <= 200 and place.name.startswith("鳥") for place in places)


def test_what_cannot_be_read_is_listed(here):
    (here / "site" / "video.mp4").write_bytes(b"....ftyp")
    os.mkfifo(here / "site" / "pipe.wav")
    found = find_audio([Path("site"), Path("gone.wav")])
    assert [(item.label, item.reason) for item in found.unreadable] == [
        ("gone.wav", "does not exist"),
        ("site/pipe.wav", "a pipe or a device, not a file"),
        ("site/video.mp4", "MP4 is not read here: convert it to FLAC or OGG"),
    ]


def test_a_pipe_that_is_named_is_not_opened(here):
    """Reading it would wait for ever."""
    os.mkfifo(here / "pipe.wav")
    found = find_audio([Path("pipe.wav")])
    assert [(item.label, item.reason) for item in found.unreadable] == [("pipe.wav", "a pipe or a device, not a file")]
    assert found.files == ()


def test_a_file_that_is_named_and_has_no_name_in_text_is_listed(here):
    """libsndfile cannot open it."""
    path = here / os.fsdecode(b"caf\xe9.wav")
    path.touch()
    found = find_audio([path])
    assert [item.reason for item in found.unreadable] == ["its name is not UTF-8: rename it"] and found.files == ()


def test_no_file_at_all_is_wrong_input(here):
    (here / "empty").mkdir()
    with pytest.raises(InputError, match="there is none in empty"):
        find_audio([Path("empty")])


def test_what_an_earlier_run_wrote_is_no_recording(here):
    (here / "site" / "found" / "segments").mkdir(parents=True)
    (here / "site" / "found" / "segments" / "0.9_b.wav").touch()
    assert labels(find_audio([Path("site")], out=Path("site/found"))) == ["site/b.wav", "site/day 2/a.FLAC"]
    assert len(find_audio([Path("site")]).files) == 3


def test_durations_are_those_of_the_headers(here):
    write_sound(here / "site" / "b.wav", 1.5)
    found = find_audio([Path("site/b.wav"), Path("other/b.wav")])
    assert [header.duration_s for header in read_durations(found.files)] == [0.0, 1.5]
