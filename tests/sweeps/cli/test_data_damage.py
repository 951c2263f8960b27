"""Every file of a data folder that comes from outside, damaged in every way that is likely: `birdclef data` must never end in a
traceback or wait for ever, and what is lost must be said.

The rule: exit code 2, or 1 with a finding that names the file; 0 only where `_HARMLESS` says why nothing is lost.
"""

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from birdclef_core.inventory.check import _MEASURES
from birdclef_core.inventory.collect import _PROBES
from sweeps.cli.birdclef import birdclef

pytestmark = pytest.mark.slow

_RATE_HZ = 8_000


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _cut(path: Path) -> None:
    """A download that broke off, in the middle of a row where there are rows."""
    content = path.read_bytes()
    in_row = content.rstrip().rfind(b",") if path.suffix == ".csv" else -1
    path.write_bytes(content[: in_row if in_row > 0 else len(content) * 2 // 3])


def _latin_1(path: Path) -> None:
    """One byte that is not UTF-8: in text, an accent; in a table of pages, somewhere in a page."""
    content = path.read_bytes()
    if path.suffix == ".parquet":
        path.write_bytes(content[:60] + bytes([content[60] ^ 0xE9]) + content[61:])
    else:
        path.write_bytes(content.replace(b"Zoe", b"Zo\xe9").replace(b"a", b"\xe4", 1))


def _utf_16(path: Path) -> None:
    path.write_bytes(path.read_bytes().decode("latin-1").encode("utf-16"))


def _noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(2_000))


def _zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _web_page(path: Path) -> None:
    path.write_text("<!DOCTYPE html>\n<html><body>Please log in.</body></html>\n")


def _open_quote(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'"never closed\n')


def _ragged(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"one,two,three,four,five,six,seven,eight,nine\n")


def _first_line_only(path: Path) -> None:
    path.write_bytes(path.read_bytes().split(b"\n")[0] + b"\n")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


_DAMAGES = (
    *(_empty, _cut, _latin_1, _utf_16, _noise, _zeros, _web_page, _open_quote, _ragged, _first_line_only),
    *(_folder, _pipe, _link_to_nothing),
)
_TEXTS = ("train.csv", "taxonomy.csv", "train_soundscapes_labels.csv", "target_species.txt")
_AUDIO = ("train_audio/a/XC0.wav", "background_noise/rain.wav", "train_soundscapes/S1.wav")
_COLLECTED = ("manifest.parquet", "split.parquet")
_CACHED = (f"{_PROBES}/seen.parquet", f"{_MEASURES}/seen.parquet")

_HARMLESS = {
    **dict.fromkeys([(name, _utf_16) for name in (*_TEXTS, "overrides.csv")], "UTF-16 with a byte order mark is read"),
    **dict.fromkeys(
        [(name, damage) for name in _AUDIO for damage in (_open_quote, _ragged)], "what follows the samples does not count"
    ),
    **dict.fromkeys([(name, damage) for name in _CACHED for damage in _DAMAGES], "what was seen is looked at again"),
    **dict.fromkeys([(name, damage) for name in _AUDIO[1:2] for damage in (_folder,)], "a folder without audio is no noise"),
    ("target_species.txt", _first_line_only): "one target is a list",
    ("target_species.txt", _cut): "one target is a list",
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean data folder, what was collected from it, and overrides, in one place to be copied."""
    place = tmp_path_factory.mktemp("original")
    root = place / "data"
    generator = np.random.default_rng(0)
    rows = []
    names = [
        f"train_audio/{species}/XC{number}.wav" for species, first in (("a", 0), ("b", 30)) for number in range(first, first + 4)
    ]
    for name in (*names, *_AUDIO[1:]):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * generator.standard_normal(5 * _RATE_HZ if "S1" in name else 4_100), _RATE_HZ)
    for name in names:
        species = name.split("/")[1]
        rows.append((species, "[]", f"{species}/{Path(name).name}", f"Zoe {Path(name).stem}", 4.0, f"Avis {species}"))
    columns = ["primary_label", "secondary_labels", "filename", "author", "rating", "scientific_name"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "train.csv", index=False)
    taxonomy = [("a", "Avis a", "Great Zoe"), ("b", "Avis b", "Small Zoe")]
    pd.DataFrame(taxonomy, columns=["primary_label", "scientific_name", "common_name"]).to_csv(root / "taxonomy.csv", index=False)
    (root / "train_soundscapes_labels.csv").write_text("row_id,labels\nS1_5,a\n")
    (root / "target_species.txt").write_text("a\nb\n")
    (place / "overrides.csv").write_text("recording_id,primary_label\nXC1,a\nXC2,a\n")
    assert birdclef(["data", "collect", str(root), "--out", str(place / "collected")]) == 0
    assert birdclef(["data", "check", str(root)]) == 0
    return place


@contextmanager
def at_most(seconds: int):
    """A pipe that is read would wait for ever."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def commands_for(name: str, place: Path) -> list[list[str]]:
    """The commands that read a file."""
    data, collected = str(place / "data"), str(place / "collected")
    collect = ["data", "collect", data, "--out", collected]
    if name == "overrides.csv":
        return [[*collect, "--overrides", str(place / name)]]
    if name == "manifest.parquet":
        return [["data", "check", collected]]
    if name == _CACHED[0]:
        return [collect]
    if name == _CACHED[1]:
        return [["data", "check", data]]
    if name in _AUDIO:
        return [["data", "check", data]]  # Collecting opens audio and does not decode it.
    if name in _COLLECTED:
        return [["data", "check", collected], collect]
    return [["data", "check", data], collect]


def place_of(name: str, place: Path) -> Path:
    inside = {"overrides.csv": place, **dict.fromkeys((*_COLLECTED, _CACHED[0]), place / "collected")}
    return inside.get(name, place / "data") / name


@pytest.mark.parametrize("name", [*_TEXTS, *_AUDIO, *_COLLECTED, *_CACHED, "overrides.csv"])
def test_damage_is_said(original: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = []
    for damage in _DAMAGES:
        place = tmp_path / damage.__name__
        shutil.copytree(original, place, copy_function=shutil.copy2)
        damage(place_of(name, place))
        for command in commands_for(name, place):
            wrong += [f"{damage.__name__}, {command[1]}: {fault}" for fault in [_fault(command, name, damage, capsys)] if fault]
        shutil.rmtree(place)
    assert not wrong, "\n".join(wrong)


def _fault(command: list[str], name: str, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]) -> str:
    try:
        with at_most(20):
            code = birdclef(command)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    said = "".join(capsys.readouterr())
    if (name, damage) in _HARMLESS:
        return "" if code == 0 else f"exit code {code} where {_HARMLESS[name, damage]}: {said}"
    if code == 2 or (code == 1 and Path(name).stem in said):
        return ""
    return f"exit code {code}: {said}"
