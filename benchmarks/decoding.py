"""Time decoding against an earlier version of it: `python benchmarks/decoding.py throughput --before CHECKOUT --audio DIR...`, and
measure the memory that a long recording takes: `python benchmarks/decoding.py memory [--before CHECKOUT] [--hours 3]`.

`CHECKOUT` is a working tree of the earlier version (`git worktree add CHECKOUT COMMIT`). Times are CPU seconds of one thread, of both
versions alternately in one process; figures are medians with their range. Memory is that of a process which builds a cache of one
recording in stereo at 48 kHz, without what it shares with others.
"""

import argparse
import importlib.util
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import soundfile

REPEATS = 7
RATE_HZ = 48_000
SUFFIXES = (".ogg", ".mp3", ".wav", ".flac")


def throughput(before: Path, folders: Sequence[Path]) -> None:
    """Print what a file costs to decode to int16, and to read its header, before and after."""
    import birdclef_core.data.audio_files as headers_now
    import birdclef_core.data.decode as decode_now

    data = before / "birdclef_core" / "data"
    decode_then, headers_then = (module_of(data / f"{name}.py") for name in ("decode", "audio_files"))
    for folder in folders:
        files = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES)
        for name, then, now in (
            (
                "decode",
                lambda path: decode_then.to_int16(decode_then.decode(path)),
                lambda path: decode_now.to_int16(decode_now.decode(path)),
            ),
            ("header", headers_then.read_header, headers_now.read_header),
        ):
            compare(f"{folder.name}, {len(files)} files: {name}", files, then, now)


def compare(name: str, files: Sequence[Path], then: Callable[[Path], object], now: Callable[[Path], object]) -> None:
    """Print the time of a file in both versions, which run alternately, and the ratio."""
    spent_ms: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS):
        for work, spent in zip((then, now), spent_ms, strict=True):
            started = time.thread_time()
            for path in files:
                work(path)
            spent.append(1e3 * (time.thread_time() - started) / len(files))
    ratios = [after / first for first, after in zip(*spent_ms, strict=True)]
    print(f"{name:<40} before {spread(spent_ms[0])} ms, now {spread(spent_ms[1])} ms, ratio {spread(ratios)}", flush=True)


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} - {max(values):.2f})"


def module_of(path: Path) -> ModuleType:
    """A module of another version; what it imports from the project is of this one, so it must be a module that needs little."""
    spec = importlib.util.spec_from_file_location(f"before_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def memory(checkouts: Sequence[Path], hours: float) -> None:
    """Print the memory and time that a cache of a long recording takes, in a process of its own for each version."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "data"
        write_long_recording(root, hours)
        for checkout in checkouts:
            environment = {**os.environ, "PYTHONPATH": str(checkout)}
            arguments = [sys.executable, str(Path(__file__).resolve()), "build", str(root), str(Path(scratch) / checkout.name)]
            subprocess.run(arguments, check=True, cwd=checkout, env=environment)


def write_long_recording(root: Path, hours: float) -> None:
    """A folder with a long recording in stereo, and a few short ones of other authors, so that it can be split."""
    rng = np.random.default_rng(0)
    noise_TC = rng.normal(0, 0.03, (10 * RATE_HZ, 2)).astype(np.float32)
    time_T = np.arange(RATE_HZ) / RATE_HZ
    names = ["long", "b", "c", "d", "e", "f"]
    (root / "train_audio" / "a").mkdir(parents=True)
    for name in names:
        with soundfile.SoundFile(root / "train_audio" / "a" / f"{name}.flac", "w", RATE_HZ, 2) as file:
            for second in range(round(3600 * hours) if name == "long" else 3):
                start = rng.integers(0, 9 * RATE_HZ)
                tone_T = 0.2 * np.sin(2 * np.pi * (2000 + second % 3000) * time_T)
                file.write(noise_TC[start : start + RATE_HZ] + tone_T.astype(np.float32)[:, None])
    table = {"primary_label": "a", "filename": [f"a/{name}.flac" for name in names], "author": names}
    pd.DataFrame(table).to_csv(root / "train.csv", index=False)


def build(root: Path, cache_dir: Path) -> None:
    """Build a cache and print what that took; run in a process of its own."""
    from birdclef_core.data.cache import build_cache
    from birdclef_core.data.dataset import load_dataset

    dataset = load_dataset(root)
    first = own_mb()
    peaks = [first]
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.01):
            peaks.append(own_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started, started_cpu = time.perf_counter(), time.process_time()
    build_cache(dataset, cache_dir)
    elapsed_s, cpu_s = time.perf_counter() - started, time.process_time() - started_cpu
    is_over.set()
    watcher.join()
    print(
        f"{Path.cwd().name}: {max(peaks) - first:,.0f} MB more than the {first:,.0f} MB before; "
        f"{cpu_s:.1f} s of CPU time, {elapsed_s:.1f} s by the clock",
        flush=True,
    )


def own_mb() -> float:
    """Memory of this process that no other shares, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e3


def main() -> None:
    if sys.argv[1:2] == ["build"]:
        build(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("section", choices=["throughput", "memory"])
    parser.add_argument("--before", type=Path, help="working tree of an earlier version")
    parser.add_argument("--audio", type=Path, nargs="+", default=[], help="folders of recordings for `throughput`")
    parser.add_argument("--hours", type=float, default=3.0, help="length of the recording for `memory`")
    options = parser.parse_args()
    if options.section == "throughput" and not (options.before and options.audio):
        parser.error("throughput needs --before and --audio")
    print(
        f"Python {platform.python_version()}, numpy {np.__version__}, soundfile {soundfile.__version__} "
        f"({soundfile.__libsndfile_version__}), {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at the start"
    )
    if options.section == "throughput":
        throughput(options.before, options.audio)
    else:
        now = Path(__file__).resolve().parents[1]
        memory([checkout.resolve() for checkout in (options.before, now) if checkout], options.hours)


if __name__ == "__main__":
    main()
