"""Pairs of real sweeps on the demo set with equal device time: the stage-aware sampler against TPE without reuse.

python benchmarks/search_real.py --seeds 4 --minutes 4

The two sweeps of a pair have the same random seed and run at the same time, with one worker of one thread each, so that both see the same
load of the machine. TPE's trials train every stage themselves: all parameters are ranges, so no two trials have a stage in common, and none
is stopped. The best trial of a sweep is chosen by its score on validation recordings. Because the best of more trials looks better by
chance, it is also scored by what it was not chosen by, the labelled soundscapes; what is compared is the mean of the two.
"""

import argparse
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from scipy.stats import t as student

from birdclef_core.demo.demo_set import make_demo
from birdclef_core.store.storage import Storage
from sweeps.schedule.records import SweepRecords, TrialRecord

CHOSEN_BY, CHECKED_BY = "val/cmap", "val_soundscapes/auroc"
SEARCH = """
from birdclef_core.config import ModelConfig, Recipe, SpectrogramConfig, StageConfig
from sweeps.search import Range, Search

COMMON = dict(learning_rate=1e-3, clip_s=5.0, batch_size=16, clips_per_epoch=32, evaluation_batch_size=16)
STAGES = (
    StageConfig(name="pretrain_ce", label_space="all", loss="ce", seed=1, epochs=2, **COMMON),
    StageConfig(name="pretrain_bce", label_space="all", loss="bce", seed=2, epochs=1, **COMMON),
    StageConfig(name="train_ce", label_space="target", loss="ce", seed=3, epochs=1, **COMMON),
    StageConfig(name="train_bce", label_space="target", loss="bce", seed=4, epochs=1, **COMMON),
    StageConfig(name="finetune", label_space="target", loss="bce", seed=5, epochs=1, **COMMON),
)
MODEL = ModelConfig(
    encoder="mobilenetv3_small_050", spectrogram=SpectrogramConfig(num_mels=48, n_fft=2048, hop_length=1250), drop_path_rate=0.0
)
RATE = Range(1e-4, 1e-2, log=True)
SEARCH = Search(
    name="real",
    recipes=(Recipe(name="small", model=MODEL, stages=STAGES),),
    space={
        "pretrain_ce.learning_rate": RATE,
        "pretrain_bce.learning_rate": RATE,
        "train_ce.learning_rate": RATE,
        "train_bce.learning_rate": RATE,
        "finetune.learning_rate": RATE,
        "train.mixing.wave_prob": Range(0.0, 1.0),
        "train.mixing.spectrogram_prob": Range(0.0, 1.0),
    },
)
"""
METHODS = {
    "tpe": ("--sampler", "tpe", "--pruning", "off"),
    "stage": ("--sampler", "stage", "--pruning", "worth"),
}


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one sweep found."""

    trials: int
    finished: int
    device_s: float
    reused_s: float
    chosen: float
    """Score by which the best trial was chosen."""
    checked: float
    """Its score by what it was not chosen by."""

    @property
    def mean(self) -> float:
        return (self.chosen + self.checked) / 2

    @classmethod
    def of(cls, records: Sequence[TrialRecord]) -> "Found":
        """Take the trials of a sweep."""
        finished = [record for record in records if record.status == "finished"]
        best = max(finished, key=lambda record: record.score or 0.0)
        return cls(
            trials=len(records),
            finished=len(finished),
            device_s=sum(record.cost_s for record in records),
            reused_s=sum(record.saved_s for record in records),
            chosen=best.metrics[CHOSEN_BY],
            checked=best.metrics[CHECKED_BY],
        )


def start(folder: Path, name: str, seed: int, hours: float) -> subprocess.Popen[bytes]:
    """Start a sweep with one worker of one thread."""
    command = [
        *(sys.executable, str(Path(__file__).parents[1] / "tune_main.py"), "--search", "real.py", "--data", "demo-data"),
        *("--budget", "full", "--objective", CHOSEN_BY, "--pretrained", "off", "--tracking-uri", "off", "--cache-dir", "cache"),
        *("--max-concurrent", "1", "--cpus-per-trial", "1", "--gpus-per-trial", "0", "--seed", str(seed)),
        *("--max-gpu-hours", f"{hours:.5f}", "--name", name, "--storage", f"{name}-{seed}", *METHODS[name]),
    ]
    threads = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    with (folder / f"{name}-{seed}.txt").open("w") as said:
        return subprocess.Popen(command, cwd=folder, stdout=said, stderr=said, env={**os.environ, **threads})


def pair(folder: Path, seed: int, hours: float) -> dict[str, Found]:
    """Run both sweeps of a pair at the same time, but for what the folder has from an earlier run."""
    running = {name: start(folder, name, seed, hours) for name in METHODS if not (folder / f"{name}-{seed}").exists()}
    for name, process in running.items():
        if process.wait():
            raise RuntimeError(f"{name} failed:\n{(folder / f'{name}-{seed}.txt').read_text()[-3000:]}")
    return {name: Found.of(SweepRecords(Storage.parse(str(folder / f"{name}-{seed}" / name))).load_trials()) for name in METHODS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=4.0, help="device time of each sweep")
    parser.add_argument("--folder", type=Path, help="where to keep everything (default: a temporary folder)")
    options = parser.parse_args()
    print(
        f"Python {platform.python_version()}, torch {version('torch')}, {platform.machine()}, {os.cpu_count()} cores", flush=True
    )
    with tempfile.TemporaryDirectory(prefix="search-real-") as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "demo-data").exists():
            make_demo(folder / "demo-data")
        (folder / "real.py").write_text(SEARCH)
        pairs = []
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            started, load = time.monotonic(), os.getloadavg()[0]
            pairs.append(pair(folder, seed, options.minutes / 60))
            print(f"seed {seed}: {time.monotonic() - started:.0f} s, load {load:.1f} before")
            for name, found in pairs[-1].items():
                print(
                    f"  {name:6} {found.finished:3} finished of {found.trials:3}, {found.device_s:5.0f} s of device time, reused {found.reused_s:5.0f} s; "
                    f"best {CHOSEN_BY} {found.chosen:.4f}, {CHECKED_BY} {found.checked:.4f}, mean {found.mean:.4f}",
                    flush=True,
                )
            report(pairs)


def report(pairs: Sequence[dict[str, Found]]) -> None:
    """Print the means of both, and their paired difference with its interval."""
    count = {name: statistics.mean(item[name].finished for item in pairs) for name in METHODS}
    print(f"finished: stage {count['stage']:.1f}, tpe {count['tpe']:.1f}, {count['stage'] / count['tpe']:.2f} times as many")
    for title in ("chosen", "checked", "mean"):
        means = {name: statistics.mean(getattr(item[name], title) for item in pairs) for name in METHODS}
        differences = [getattr(item["stage"], title) - getattr(item["tpe"], title) for item in pairs]
        interval = ""
        if len(differences) > 1:
            half = student.ppf(0.975, len(differences) - 1) * statistics.stdev(differences) / math.sqrt(len(differences))
            interval = f" (95 %: {statistics.mean(differences) - half:+.4f} to {statistics.mean(differences) + half:+.4f})"
        print(
            f"{title:8} stage {means['stage']:.4f}, tpe {means['tpe']:.4f}, difference {statistics.mean(differences):+.4f}{interval}",
            flush=True,
        )


if __name__ == "__main__":
    main()
