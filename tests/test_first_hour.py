"""A new user's first hour, by the commands of its page and the cells of the notebooks: in one folder, and with a smaller budget."""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import nbformat
import numpy as np
import pandas as pd
import pytest
import soundfile
from documents import ROOT, commands_in, text_of
from nbclient import NotebookClient

from sweeps import load_sweep
from sweeps.cli.birdclef import birdclef
from sweeps.cli.tune import tune_main

pytestmark = [pytest.mark.slow, pytest.mark.ray]

PAGE = text_of("docs/first_hour.md")
SETTINGS = {"encoder": "mobilenetv3_small_050", "spectrogram.num_mels": 32, "epochs": 1, "clips_per_epoch": 16}
"""Smaller than the small budget: what is learnt does not matter here."""
SAMPLES = 2
LIMIT_S = 15 * 60
"""From a checkout to one's own recording, without the installation."""


@dataclass
class Hour:
    """What the commands of the page have made."""

    folder: Path
    said: dict[str, str]
    """What a command of `tune_main.py` has printed, by its arguments."""
    took_s: float


@pytest.fixture(scope="module")
def hour(tmp_path_factory) -> Hour:
    """All commands of the page, one after the other, in a folder with a recording of the user's own."""
    folder = tmp_path_factory.mktemp("hour")
    noise = 0.1 * np.random.default_rng(0).standard_normal((7 * 44_100, 2))
    soundfile.write(folder / "my.wav", noise, 44_100)
    mine = ["--tracking-uri", str(folder / "mlflow")]  # the default is in the checkout
    settings = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    smaller = [
        "--samples",
        str(SAMPLES),
        *settings,
        "--cache-dir",
        str(folder / "cache"),
        *mine,
    ]
    said, started = {}, time.monotonic()
    with contextlib.chdir(folder):
        for program, arguments in commands_in(PAGE):
            if program == "python tune_main.py":
                run = plan if "--plan" in arguments else sweep
                said[" ".join(arguments)] = run(*arguments, *smaller)
            elif arguments[0] == "ui":
                look_at_mlflow([*arguments, *mine])
            elif arguments == ["--version"]:
                with pytest.raises(SystemExit, match="0"):
                    birdclef(arguments)
            else:
                assert birdclef(arguments) == 0, arguments
    return Hour(folder, said, time.monotonic() - started)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def plan(*arguments: str) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert tune_main(arguments) == 0
    return said.getvalue()


def sweep(*arguments: str) -> str:
    command = [sys.executable, str(ROOT / "tune_main.py"), *arguments]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def look_at_mlflow(arguments: list[str]) -> None:
    """Open the page that the command names, and end the command by Ctrl-C."""
    code = "import sys; from sweeps.cli.birdclef import birdclef; sys.exit(birdclef())"
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as shown:
        assert shown.stdout is not None
        address = shown.stdout.readline().removeprefix("Open ").strip()
        try:
            assert urlopen(address.partition("#")[0], timeout=20).status == 200
        finally:
            shown.send_signal(signal.SIGINT)
        assert shown.wait(timeout=60) == 130


def test_the_commands_of_the_page_lead_to_species_in_an_own_recording(hour):
    planned, swept = hour.said.values()
    assert "trains nothing" in PAGE and "asked for" in planned
    assert "Find birds in a recording: birdclef predict my.wav --model first" in swept
    for name, windows in (("found", 2), ("found-demo", 1)):
        table = pd.read_csv(hour.folder / name / "detections.csv")
        assert set(table.columns) >= {"file", "start_s", "species", "score"} and (
            name == "found-demo" or len(table) == 3 * windows
        )
    assert hour.took_s < LIMIT_S


def test_what_the_page_names_is_there(hour):
    for path in re.findall(r"`((?:sweeps-output|demo-data|found)/[\w./-]+)`", PAGE):
        assert (hour.folder / path).exists(), path
    card = re.search(r"^Look at the best model: (.+)$", list(hour.said.values())[1], re.MULTILINE)
    assert card is not None and (hour.folder / card[1]).is_file()
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    with contextlib.chdir(hour.folder):
        exec(code)


def test_the_notebooks_run_one_after_the_other(hour, monkeypatch):
    """The sweep of the first has the settings of the first hour here: its stages are reused, so that nothing is trained again."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    options = {"samples": SAMPLES, "settings": SETTINGS}
    options |= {"tracking_uri": "off", "cache_dir": str(hour.folder / "cache")}
    for name in ("first_sweep", "own_recordings"):
        notebook = nbformat.read(ROOT / "docs" / "notebooks" / f"{name}.ipynb", as_version=4)
        for cell in notebook.cells:
            if "parameters" in cell.metadata.get("tags", ()):
                cell.source = f"options = {options!r}"
        place = {"metadata": {"path": str(hour.folder)}}
        NotebookClient(notebook, timeout=200, kernel_name="python3", resources=place).execute()
    assert load_sweep("notebook", storage=str(hour.folder / "sweeps-output")).trials()["epochs_trained"].sum() == 0
    assert len(pd.read_csv(hour.folder / "detections.csv")) == 3 * 2
