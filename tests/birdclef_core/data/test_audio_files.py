from pathlib import Path

import damaged_audio

from birdclef_core.data.audio_files import read_header, read_headers, stat_files


def test_headers_of_many_files_are_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(damaged_audio.wav())
    (tmp_path / "b.wav").write_bytes(damaged_audio.wav()[:44])
    (tmp_path / "c.ogg").write_bytes(damaged_audio.ogg(3.0))
    table = read_headers(tmp_path, ["c.ogg", "missing.wav", "b.wav", "a.wav"])
    assert table["duration_s"].tolist() == [3.0, 0.0, 0.0, 6.0]
    assert table["size_bytes"].tolist() == [len(damaged_audio.ogg(3.0)), 0, 44, len(damaged_audio.wav())]
    assert table["error"].tolist() == ["", "cannot be read: No such file or directory", "has no samples", ""]


def test_a_header_says_what_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(damaged_audio.encoded(damaged_audio.sound(1.0, 2, 44_100), 44_100, format="FLAC"))
    header = read_header(path)
    assert (header.sample_rate_hz, header.channels, header.format, header.duration_s) == (44_100, 2, "FLAC", 1.0)


def test_sizes_and_times(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(5))
    table = stat_files(tmp_path, ["a", "missing"])
    assert table["size_bytes"].tolist() == [5, -1]
    assert table["mtime_ns"].tolist() == [(tmp_path / "a").stat().st_mtime_ns, -1]
