"""A bundle predicts by itself, with nothing of this project and with no library that it does not name."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from made_up_detector import made_up_calibration, write_sound

from birdclef_core.errors import InputError
from birdclef_core.inference.bundle.reading import open_bundle, set_calibration
from birdclef_core.inference.bundle.record import BundleRecord
from birdclef_core.inference.results.calibration import Calibration
from birdclef_core.inference.run.predictor import Predictor
from birdclef_core.inference.standalone.main import _read, main

GUARD = """
import importlib.abc, importlib.machinery, runpy, sys
class Guard(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name not in BANNED:
            return None
        stand_ins = [place for place in sys.path if "stand_ins" in place]
        found = importlib.machinery.PathFinder.find_spec(name, stand_ins)
        if found is None:
            raise ImportError("not on a bare machine: " + name)
        return found
BANNED = {"sweeps", "timm", "pandas", "torchaudio", "soxr", "pydantic", "pydantic_core", "pyarrow", "scipy", "safetensors", "filelock"}
sys.meta_path.insert(0, Guard())
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    assert "/lib/birdclef_core/" in sys.modules["birdclef_core"].__file__
"""
"""Runs a file in a Python that lacks what a bare machine lacks."""


@pytest.fixture
def bundle(bundle_copy):
    """A bundle with a calibration."""
    return set_calibration(bundle_copy, made_up_calibration(bundle_copy.detector()))


def run_bare(bundle, *arguments: str) -> subprocess.CompletedProcess:
    """Run `runtime.py` with nothing of this project but its own copies."""
    guard = bundle.folder.parent / "guard.py"
    guard.write_text(GUARD)
    command = [sys.executable, "-I", str(guard), str(bundle.folder / "runtime.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=bundle.folder.parent)


def test_it_writes_what_the_project_predicts(bundle, tmp_path):
    """Also of a file at 44.1 kHz, which it resamples by itself."""
    write_sound(tmp_path / "in" / "a.wav", 12.0)
    write_sound(tmp_path / "in" / "b.wav", 7.0, rate_hz=44_100)
    (tmp_path / "in" / "c.wav").write_bytes(b"no audio")
    result = run_bare(bundle, str(tmp_path / "in"), "-o", str(tmp_path / "found.csv"), "--threshold", "0", "--threads", "1")
    assert result.returncode == 1, result.stderr
    assert "c.wav must be audio" in result.stderr
    found = pd.read_csv(tmp_path / "found.csv")
    with pytest.warns(UserWarning, match="could not be read"):
        expected = Predictor(bundle.detector()).predict(tmp_path / "in", threshold=0.0)
    assert list(found) == list(expected) and len(found) == 5 * 3
    for name in ("file", "start_s", "end_s", "species", "name", "threshold", "model_id"):
        assert found[name].tolist() == expected[name].tolist(), name
    for name in ("score", "calibrated"):
        np.testing.assert_allclose(found[name], expected[name], atol=2e-4)
    assert np.abs(found["score"] - expected["score"])[found["file"].str.endswith("a.wav")].max() < 1e-5


def test_the_highest_scores_and_wrong_input(bundle, tmp_path, capsys):
    write_sound(tmp_path / "a.wav", 5.0)
    assert main(bundle.folder, [str(tmp_path / "a.wav"), "-o", str(tmp_path / "found.csv"), "--top", "2"]) == 0
    found = pd.read_csv(tmp_path / "found.csv")
    assert len(found) == 2 and found["threshold"].isna().all()
    for flag, value in (("--threads", "0"), ("--top", "0"), ("--threshold", "nan"), ("--threshold", "-1")):
        assert main(bundle.folder, [str(tmp_path / "a.wav"), "-o", str(tmp_path / "other.csv"), flag, value]) == 2
        assert f"Error: {flag} " in capsys.readouterr().err and not (tmp_path / "other.csv").exists()
    assert main(bundle.folder, [str(tmp_path / "a.wav"), "-o", str(tmp_path / "no" / "found.csv")]) == 2
    assert "must be a place that can be written to" in capsys.readouterr().err


def test_a_file_with_a_name_that_is_no_text_and_a_pipe_are_listed(bundle, tmp_path, capsys):
    write_sound(tmp_path / "in" / "a.wav", 5.0)
    write_sound(tmp_path / "in" / "b.wav", 5.0).rename(os.fsdecode(os.fsencode(tmp_path / "in") + b"/caf\xe9.wav"))
    os.mkfifo(tmp_path / "pipe.wav")
    command = [str(tmp_path / "in"), str(tmp_path / "pipe.wav"), "-o", str(tmp_path / "found.csv"), "--top", "1"]
    assert main(bundle.folder, command) == 1
    said = capsys.readouterr().err
    assert r"caf\xe9.wav must have a name in UTF-8" in said and "pipe.wav must be a file" in said
    assert pd.read_csv(tmp_path / "found.csv")["file"].tolist() == [str(tmp_path / "in" / "a.wav")]


def test_a_damaged_bundle_is_refused(bundle, tmp_path, capsys):
    network = bundle.folder / open_bundle(bundle.folder).record.members[0].network
    before = network.read_bytes()
    network.write_bytes(before[:-1])
    assert main(bundle.folder, ["a.wav", "-o", str(tmp_path / "found.csv")]) == 2
    network.write_bytes(before)
    newer = (bundle.folder / "bundle.json").read_text().replace('"version": 1', '"version": 2')
    (bundle.folder / "bundle.json").write_text(newer)
    assert '"version": 2' in newer and main(bundle.folder, ["a.wav", "-o", str(tmp_path / "found.csv")]) == 2
    said = capsys.readouterr().err
    assert "must be of version 1, but is of version 2" in said
    assert "has another content" in said and not (tmp_path / "found.csv").exists()


def test_records_are_read_without_a_library(bundle):
    """They are what the strict reading of the project gives."""
    assert _read(BundleRecord, bundle.folder / "bundle.json") == bundle.record
    assert _read(Calibration, bundle.folder / "calibration.json") == bundle.detector().calibration
    with pytest.raises(InputError, match="must be a record of this version"):
        _read(Calibration, bundle.folder / "bundle.json")
