"""Two sweeps on one store: what one trains the other waits for and takes up, also when the one is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from made_up_stages import publish

from birdclef_core.store.leases import FOLDER, Holder, LeaseEntry, Leases
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from sweeps.cli.tune import tune_main
from sweeps.schedule.records import SweepRecords
from sweeps.schedule.store_view import DriverStoreView

REPOSITORY = Path(__file__).parents[3]
SEARCH = """
from birdclef_core.config import ModelConfig, Recipe, SpectrogramConfig, StageConfig
from sweeps.search.space import Range, Search

MODEL = ModelConfig(
    encoder="mobilenetv3_small_050",
    spectrogram=SpectrogramConfig(num_mels=32, n_fft=1024, hop_length=500, deltas=False),
    drop_path_rate=0.0,
)
COMMON = dict(learning_rate=3e-3, clip_s=1.0, batch_size=4)
STAGES = (
    StageConfig(name="pretrain_ce", label_space="all", loss="ce", seed=1, epochs=40, clips_per_epoch=150, **COMMON),
    StageConfig(name="train_bce", label_space="target", loss="bce", seed=2, epochs=1, clips_per_epoch=8, **COMMON),
)
SEARCH = Search(
    name="tiny",
    recipes=(Recipe(name="tiny", model=MODEL, stages=STAGES),),
    space={"train_bce.learning_rate": Range(1e-3, 1e-2, log=True)},
)
"""


class Place:
    """A folder in which sweeps run side by side."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data = folder, data
        (folder / "tiny.py").write_text(SEARCH)

    def arguments(self, name: str, *more: str) -> list[str]:
        common = ["--data", str(self.data), "--budget", "full", "--tracking-uri", "off", "--pretrained", "off"]
        return ["--search", "tiny.py", "--name", name, "--cache-dir", str(self.folder / "cache"), *common, *more]

    def start(self, name: str, *more: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, str(REPOSITORY / "tune_main.py"), *self.arguments(name, *more)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=(self.folder / f"{name}.txt").open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.txt").read_text()

    def trials(self, name: str) -> list[dict]:
        return [asdict(record) for record in SweepRecords(Storage.parse(str(self.folder / "sweeps-output" / name))).load_trials()]

    def wait_until(self, name: str, condition: Callable[[], bool], limit_s: float = 120) -> None:
        end = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < end, self.said(name)
            time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.ray
def test_a_sweep_waits_for_anothers_prefix_and_goes_on_from_its_last_epoch_when_that_is_killed(
    tmp_path, tone_data, monkeypatch, capsys
):
    """Beside it, the first sweep does not get a second driver."""
    place = Place(tmp_path, tone_data.dataset.root)
    first = place.start("first", "--samples", "1")
    place.wait_until("first", lambda: "pretrain_ce epoch 1/40" in place.said("first"))
    monkeypatch.chdir(tmp_path)
    assert tune_main(["--resume", "first"]) == 2
    assert "A sweep must have one driver" in capsys.readouterr().err
    second = place.start("second", "--samples", "2", "--max-concurrent", "2", "--seed", "1")
    place.wait_until("second", lambda: "Sweep second: 2 trials" in place.said("second"))
    time.sleep(3)
    assert place.trials("second") == [], "its draws wait for the prefix, so none has become a trial"
    assert first.poll() is None, "the first one ended too early for this test"
    os.killpg(first.pid, signal.SIGKILL)
    assert second.wait(timeout=240) == 0, place.said("second")
    by_first = max(
        int(line.split("epoch ")[1].split("/")[0]) for line in place.said("first").splitlines() if "pretrain_ce epoch" in line
    )
    by_second = sum(trial["epochs_trained"] for trial in place.trials("second"))
    assert by_second <= 40 - by_first + 2, "the prefix from the last epoch of the other on, and an epoch for each trial"
    assert [trial["status"] for trial in place.trials("second")] == ["finished"] * 2


@pytest.mark.slow
@pytest.mark.ray
def test_a_plan_says_what_a_sweep_would_do_and_the_sweep_says_what_it_took(tmp_path, tone_data, monkeypatch, capsys):
    place = Place(tmp_path, tone_data.dataset.root)
    monkeypatch.chdir(tmp_path)
    short = ("--samples", "2", "--set", "pretrain_ce.epochs=2", "--max-concurrent", "1")
    assert tune_main(place.arguments("planned", *short, "--plan")) == 0
    said = capsys.readouterr().out
    assert "Plan: 2 trials on 1 worker" in said and "4 stages asked for, 3 unique, 0 of them in the store" in said
    assert [path.name for path in (tmp_path / "sweeps-output").iterdir()] == ["plans"]
    assert (tmp_path / "sweeps-output" / "plans" / "planned.html").is_file()
    assert place.start("first", *short).wait(timeout=120) == 0, place.said("first")
    said = place.said("first")
    assert "not known" in said, "nothing was measured before the first sweep"
    assert [line.split()[-1] for line in said.splitlines() if line.startswith("  epochs trained")] == ["4"]
    assert tune_main(place.arguments("again", *short, "--plan")) == 0
    assert "3 unique, 3 of them in the store" in capsys.readouterr().out


def entry(leases: Leases, stage_id: str, sweep: str) -> None:
    name = LeaseEntry(stage_id=stage_id, holder=Holder(sweep=sweep, run="1", trial="t"), token="x", beat_at_s=0.0).name
    leases.storage.write_text(f"{FOLDER}/{name}", "{}")


def test_a_driver_sees_what_other_sweeps_train_until_their_leases_end(tmp_path, monkeypatch):
    monkeypatch.setattr("sweeps.schedule.store_view.REFRESH_S", 0.05)
    store = StageStore(Storage.parse(str(tmp_path)))
    leases = Leases(store.storage, duration_s=0.5)
    entry(leases, "theirs", "other")
    entry(leases, "ours", "mine")
    view = DriverStoreView(store, leases, sweep="mine")
    assert view.is_leased("theirs")
    assert not view.is_leased("ours"), "an earlier run's lease is taken over"
    assert not view.is_published("theirs")
    publish(store, "theirs")
    time.sleep(0.7)
    assert not view.is_leased("theirs")
    assert view.is_published("theirs"), "looked up because its lease has ended"


def test_a_driver_lists_the_store_once_and_believes_what_it_is_told(tmp_path):
    store = StageStore(Storage.parse(str(tmp_path)))
    publish(store, "old")
    store.storage.write_text("stages/begun/x/weights", "")
    view = DriverStoreView(store, Leases(store.storage), sweep="mine")
    assert view.is_published("old") and not view.is_published("begun") and not view.is_published("new")
    view.mark_published("new")
    view.mark_missing("old")
    assert view.is_published("new") and not view.is_published("old")
    view.mark_leased("new")
    assert view.is_leased("new")
