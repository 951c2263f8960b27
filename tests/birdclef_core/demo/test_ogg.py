"""OGG files are the same bytes whenever they are written, and decode to what was encoded."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.demo import ogg
from birdclef_core.demo.ogg import with_serial_number, write_ogg


def whistle(duration_s: float) -> np.ndarray:
    time_s_T = np.arange(round(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return (0.5 * np.sin(2 * np.pi * 3000 * time_s_T)).astype(np.float32)


def test_decodes_to_the_waveform_at_its_length(tmp_path: Path) -> None:
    wave_T = whistle(2.3)
    write_ogg(tmp_path / "a.ogg", wave_T)
    decoded_T, rate_hz = soundfile.read(tmp_path / "a.ogg", dtype="float32")
    assert (rate_hz, decoded_T.shape) == (SAMPLE_RATE_HZ, wave_T.shape)
    assert np.corrcoef(wave_T, decoded_T)[0, 1] > 0.99


def test_bytes_do_not_depend_on_the_streams_serial_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ogg(tmp_path / "a.ogg", whistle(2.3))
    written = (tmp_path / "a.ogg").read_bytes()
    monkeypatch.setattr(ogg, "SERIAL_NUMBER", 7)
    write_ogg(tmp_path / "b.ogg", whistle(2.3))
    other = (tmp_path / "b.ogg").read_bytes()
    assert other != written
    assert with_serial_number(other, 0x62697264) == written


def test_checksums_are_those_of_the_encoder() -> None:
    """The encoder's own serial number, put back, gives the encoder's own bytes."""
    buffer = io.BytesIO()
    soundfile.write(buffer, whistle(0.5), SAMPLE_RATE_HZ, format="OGG", subtype="VORBIS")
    encoded = buffer.getvalue()
    serial_number = int.from_bytes(encoded[14:18], "little")
    changed = with_serial_number(encoded, serial_number ^ 1)
    assert changed != encoded
    assert with_serial_number(changed, serial_number) == encoded


def test_a_long_recording_is_written(tmp_path: Path) -> None:
    """One write of many minutes crashes libsndfile's encoder, and the whole process with it."""
    write_ogg(tmp_path / "long.ogg", np.zeros(600 * SAMPLE_RATE_HZ, dtype=np.float32))
    assert soundfile.info(tmp_path / "long.ogg").frames == 600 * SAMPLE_RATE_HZ
