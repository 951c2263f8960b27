import unicodedata

import pandas as pd
import pytest

from birdclef_core.data.row_audio import AudioIndex, locate, why_missing


@pytest.mark.parametrize(
    ("filename", "species", "path", "said"),
    [
        ("a/XC1.ogg", "a", "train_audio/a/XC1.ogg", "the path under the audio folder"),
        ("XC1.ogg", "a", "train_short_audio/a/XC1.ogg", "a name in the species' folder"),
        ("XC1", "a", "train_audios/XC1.ogg", "no extension"),
        ("a/XC1.mp3", "a", "train_audio/a/XC1.ogg", "converted"),
        ("a/XC1.m4a", "a", "train_audio/a/XC1.flac", "converted from a format that is not read"),
        ("b/XC1.ogg", "b", "train_audio/a/XC1.ogg", "a Xeno-canto number in another folder"),
        ("a\\1.ogg", "a", "train_audio/a/1.ogg", "backslashes"),
        ("C:\\data\\train_audio\\a\\1.ogg", "a", "train_audio/a/1.ogg", "a path of Windows"),
        ("/kaggle/input/x/train_audio/a/1.ogg", "a", "train_audio/a/1.ogg", "an absolute path"),
        ("./a/1.ogg", "a", "train_audio/a/1.ogg", "a path that begins at the folder itself"),
        ("x/y/a/1.ogg", "a", "train_audio/a/1.ogg", "folders above the species"),
        ("A/1.OGG", "a", "train_audio/a/1.ogg", "other letters' case"),
        ("mönch/1.ogg", "mönch", unicodedata.normalize("NFD", "train_audio/mönch/1.ogg"), "composed accents"),
        ("XC1", "x", "train_audio/a/XC1 - Great Tit - Parus major.mp3", "Xeno-canto's own name"),
    ],
)
def test_ways_to_name_a_file(filename: str, species: str, path: str, said: str) -> None:
    assert AudioIndex([path, "train_audio/z/other.ogg"]).find(filename, species) == path, said


@pytest.mark.parametrize(("filename", "species"), [("b/1.ogg", "b"), ("2.ogg", "a"), ("a/1.5 s", "a"), ("XC1_part2.ogg", "a")])
def test_another_recording_is_not_taken(filename: str, species: str) -> None:
    assert AudioIndex(["train_audio/a/1.ogg", "train_audio/a/XC1.ogg"]).find(filename, species) is None


def test_names_that_differ_in_case_alone_are_two_files() -> None:
    index = AudioIndex(["train_audio/a/x.ogg", "train_audio/a/X.ogg"])
    assert index.find("a/X.ogg", "a") == "train_audio/a/X.ogg" and index.find("A/x.ogg", "A") is None


def test_formats_that_were_always_read_count_first() -> None:
    assert AudioIndex(["train_audio/a/1.aiff", "train_audio/a/1.ogg"]).find("a/1.mp3", "a") == "train_audio/a/1.ogg"


def test_rows_without_audio_say_what_is_there() -> None:
    names, species = pd.Series(["a/1.ogg", "a/2.ogg"]), pd.Series(["a", "a"])
    assert list(locate(names, species, ["train_audio/a/3.ogg"])) == [None, None]
    assert why_missing(names, species, []) == ["missing", "missing"]
    assert why_missing(names, species, ["train_audio/a/2.m4a"]) == [
        "missing",
        "there only as train_audio/a/2.m4a, a format that is not read",
    ]
