"""All sound of a file is read, damaged or not, and what is missing is said."""

import os
from pathlib import Path

import damaged_audio
import numpy as np
import pytest
import soundfile

from birdclef_core.data.audio_files import read_header
from birdclef_core.data.audio_stream import AudioStream
from birdclef_core.data.containers.layout import TOLERANCE_S
from birdclef_core.errors import DataError

ORIGINALS = Path(__file__).parents[2] / "data" / "originals"
CASES = Path(__file__).parents[2] / "data" / "cases"


def written(folder: Path, suffix: str, content: bytes) -> Path:
    path = folder / f"a.{suffix}"
    path.write_bytes(content)
    return path


def read_all(path: Path, step: int = 2**22) -> tuple[np.ndarray, AudioStream]:
    with AudioStream(path, verify=True) as stream:
        pieces = []
        while len(piece := stream.read(step)):
            pieces.append(piece)
    return np.concatenate(pieces), stream


@pytest.mark.parametrize("name", damaged_audio.SOUND)
def test_a_sound_file_is_read_as_libsndfile_reads_it(tmp_path: Path, name: str) -> None:
    case = damaged_audio.SOUND[name]()
    path = written(tmp_path, case.suffix, case.content)
    wave_TC, stream = read_all(path)
    expected_TC, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    assert np.array_equal(wave_TC, expected_TC) and stream.sample_rate_hz == rate_hz and stream.faults == []
    assert abs(stream.num_frames - len(wave_TC)) <= TOLERANCE_S * rate_hz


@pytest.mark.parametrize(
    "path", sorted(path for path in ORIGINALS.iterdir() if path.suffix != ".csv"), ids=lambda path: path.name
)
@pytest.mark.parametrize("step", [997, 2**22])
def test_real_files_are_read_as_libsndfile_reads_them(path: Path, step: int) -> None:
    """In small steps too: with soundfile alone, each of those ends in a seek, which changes the samples of an MP3 file."""
    wave_TC, stream = read_all(path, step)
    expected_TC, _ = soundfile.read(path, dtype="float32", always_2d=True)
    assert np.array_equal(wave_TC, expected_TC) and stream.faults == []


@pytest.mark.parametrize("name", damaged_audio.DAMAGED)
def test_a_damaged_file_is_read_to_its_end(tmp_path: Path, name: str) -> None:
    case = damaged_audio.DAMAGED[name]()
    path = written(tmp_path, case.suffix, case.content)
    wave_TC, stream = read_all(path)
    assert len(wave_TC) / stream.sample_rate_hz == pytest.approx(case.decoded_s, abs=0.15)
    assert {fault.kind for fault in stream.faults} == case.kinds
    in_steps_TC, _ = read_all(path, 10_007)
    assert np.array_equal(wave_TC, in_steps_TC)


SEEN_BY_DECODING_ONLY = {"ogg with a changed byte", "flac with a hole", "flac with zeros", "mp3 with zeros"}
"""Their structure is whole."""


@pytest.mark.parametrize("name", damaged_audio.DAMAGED)
def test_the_header_gives_the_length_that_is_decoded(tmp_path: Path, name: str) -> None:
    case = damaged_audio.DAMAGED[name]()
    header = read_header(written(tmp_path, case.suffix, case.content))
    assert header.error == "" and header.duration_s == pytest.approx(case.decoded_s, abs=0.2)
    assert bool(header.fault) == bool(case.kinds and name not in SEEN_BY_DECODING_ONLY)


@pytest.mark.parametrize("name", damaged_audio.NO_SOUND)
def test_the_header_of_a_file_without_sound_says_why(tmp_path: Path, name: str) -> None:
    header = read_header(written(tmp_path, *damaged_audio.NO_SOUND[name]))
    assert any(text in header.error for text in ("cannot be opened as audio", "has no samples", "sample rate of 1 Hz"))


@pytest.mark.parametrize(
    ("name", "start_s", "end_s"),
    [
        ("ogg without a page", 1.0, 5.0),
        ("ogg with a hole", 2.0, 5.0),
        ("flac with zeros", 2.0, 5.0),
        ("flac with a hole", 2.0, 5.0),
    ],
)
def test_sound_behind_a_gap_keeps_its_place(tmp_path: Path, name: str, start_s: float, end_s: float) -> None:
    case = damaged_audio.DAMAGED[name]()
    right = damaged_audio.ogg() if case.suffix == "ogg" else damaged_audio.flac()
    right_TC, _ = soundfile.read(written(tmp_path, f"right.{case.suffix}", right), dtype="float32", always_2d=True)
    wave_TC, _ = read_all(written(tmp_path, case.suffix, case.content))
    place = slice(round(end_s * damaged_audio.RATE_HZ), len(wave_TC))
    assert np.abs(wave_TC[place] - right_TC[place]).max() < 1e-3
    middle_T = wave_TC[round(start_s * damaged_audio.RATE_HZ) : place.start, 0]
    longest = max(len(run) for run in np.split(middle_T, np.flatnonzero(middle_T)))
    assert longest > 0.1 * damaged_audio.RATE_HZ


def test_streams_in_a_row_are_the_streams(tmp_path: Path) -> None:
    wave_TC, _ = read_all(CASES / "72_chained_ogg" / "XC1001.ogg")
    content = (CASES / "72_chained_ogg" / "XC1001.ogg").read_bytes()
    second = content.find(b"OggS\0\2", 1)
    parts = [soundfile.read(written(tmp_path, "ogg", part), dtype="float32")[0] for part in (content[:second], content[second:])]
    assert len(wave_TC) == 8 * 32_000 and np.array_equal(wave_TC[:, 0], np.concatenate(parts))


def test_a_variable_rate_without_a_tag_is_read_to_its_end() -> None:
    """libsndfile reads .9 s of these 3 s, since the first frame is larger than most."""
    wave_TC, stream = read_all(CASES / "62d_mp3_no_xing" / "XC1001.mp3")
    assert len(wave_TC) == stream.num_frames == 133_632
    assert [fault.kind for fault in stream.faults] == ["length"] and "suggests 0.9 s" in stream.faults[0].text


def test_cover_art_does_not_make_a_file_longer(tmp_path: Path) -> None:
    content = (CASES / "62d_mp3_no_xing" / "XC1001.mp3").read_bytes()
    wave_TC, stream = read_all(written(tmp_path, "mp3", damaged_audio.id3(300_000) + content))
    assert len(wave_TC) == stream.num_frames == 133_632 and {fault.kind for fault in stream.faults} == {"length"}


def test_a_guess_that_is_right_to_a_tenth_of_a_second_stays() -> None:
    """The length of MP3 files without a tag is part of the identity of data that were trained on."""
    header = read_header(ORIGINALS / "rooster.mp3")
    info = soundfile.info(ORIGINALS / "rooster.mp3")
    assert header.duration_s == info.frames / info.samplerate and header.fault == ""


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path, "wav", damaged_audio.wav())
    with AudioStream(path, verify=True) as stream:
        stream.read(100)
        stream.check_unchanged()
        path.write_bytes(damaged_audio.wav() + bytes(1000))
        with pytest.raises(DataError, match="changed while"):
            stream.check_unchanged()
    with AudioStream(path, verify=True) as stream:
        path.unlink()
        with pytest.raises(DataError, match="changed while"):
            stream.check_unchanged()


def test_bytes_that_cannot_be_read_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the end of the file, as libsndfile takes it."""
    case = damaged_audio.DAMAGED["wav without sizes"]()
    with AudioStream(written(tmp_path, "wav", case.content), verify=True) as stream:
        stream.read(10)

        def fail(*_: object) -> bytes:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr("birdclef_core.data.containers.file_bytes.os.pread", fail)
        with pytest.raises(DataError, match="Input/output error"):
            while len(stream.read(10_000)):
                pass


@pytest.mark.parametrize("kind", ["fifo", "folder", "missing"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.wav"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        AudioStream(path, verify=False)
    assert "cannot be read" in read_header(path).error
