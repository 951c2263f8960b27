"""Time the data layer against the usual ways to do the same: `python benchmarks/data.py [tables] [clips] [build] [memory] [formats]`.

Every figure is a median with its range, over repeats in which both sides run alternately, and a ratio. Times are CPU seconds of one
thread unless another unit is printed. librosa and audiomentations are not dependencies of the project: when they cannot be imported,
the rows that need them are skipped with a message. `--audio DIR` uses real recordings instead of made-up ones.
"""

import argparse
import importlib
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import soundfile
from made_up_data import dataset_of, made_up_table, write_recordings

from birdclef_core.data.dataset import Dataset
from birdclef_core.data.recording_folds import divide
from birdclef_core.data.targets import training_table

RECORDINGS, SPECIES = 119_292, 834
CLIP_S, RATE_HZ = 10, 32_000
Work = Callable[[], object]


def compare(
    name: str,
    ours: Work,
    control: Work,
    *,
    repeats: int,
    clock: Callable[[], float],
    per: int = 1,
    unit: str,
    tidy: Work = lambda: None,
) -> None:
    """Print one row: median and range of both sides, and their ratio. One call does `per` units of work; `tidy` is not timed."""
    mine, theirs = [], []
    for _ in range(repeats):
        mine.append(timed(ours, clock) / per)
        tidy()
        theirs.append(timed(control, clock) / per)
    ratio = statistics.median(theirs) / statistics.median(mine)
    print(f"{name:<58} {spread(mine, unit)}   {spread(theirs, unit)}   {ratio:7.2f}x", flush=True)


def timed(work: Work, clock: Callable[[], float]) -> float:
    started = clock()
    work()
    return clock() - started


def spread(times_s: Sequence[float], unit: str) -> str:
    scale = {"s": 1, "ms": 1e3, "us": 1e6}[unit]
    low, middle, high = (scale * value for value in (min(times_s), statistics.median(times_s), max(times_s)))
    return f"{middle:9.3f} {unit} ({low:.3f}-{high:.3f})"


def header(title: str) -> None:
    print(f"\n{title}\n{'':<58} {'here':<28}   {'control':<28}   ratio")


def optional(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"{name} is not installed: the rows that need it are skipped")
        return None


# Tables


def tables(options: argparse.Namespace, scratch: Path) -> None:
    """Make split, targets, weights and sampling weights from a manifest in memory."""
    recordings = made_up_table(RECORDINGS, SPECIES)
    dataset = dataset_of(scratch, recordings)
    part = dataset_of(scratch, recordings.iloc[: options.loop_rows].reset_index(drop=True))

    def both() -> None:
        divide(recordings, [""] * len(recordings), None)
        training_table(dataset, dataset.all_species)

    scale = options.loop_rows / RECORDINGS
    header(
        f"{RECORDINGS:,} recordings x {SPECIES} species, CPU time; control: a cell at a time, {options.loop_rows:,} rows, scaled"
    )
    works: dict[str, Work] = {"tables": lambda: training_table(dataset, dataset.all_species), "split and tables": both}
    for accessor in ("at", "loc"):
        loop: list[float] = []
        ours: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(options.repeats):
            loop.append(timed(lambda a=accessor: table_by_cell(part, a), time.process_time) / scale)
            for name, work in works.items():
                ours[name].append(timed(work, time.process_time))
        for name, mine in ours.items():
            ratio = statistics.median(loop) / statistics.median(mine)
            print(f"{f'{name}, control by .{accessor}':<58} {spread(mine, 's')}   {spread(loop, 's')}   {ratio:7.2f}x")
    print(f"largest memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def table_by_cell(dataset: Dataset, accessor: str) -> pd.DataFrame:
    """Make targets, weights and sampling weights as the 2023 solution does: data frames filled row by row and cell by cell."""
    recordings, species = dataset.recordings, dataset.all_species.species
    targets = pd.DataFrame(0.0, index=recordings.index, columns=list(species))
    weights = pd.DataFrame(0.0, index=recordings.index, columns=["weight", "sampling"])
    counts = dict.fromkeys(species, 0.0)
    cells, weight_cells = getattr(targets, accessor), getattr(weights, accessor)
    best = recordings["rating"].max()
    for row in recordings.index:
        primary = recordings["primary_label"].iat[row]
        for code in recordings["secondary_labels"].iat[row]:
            cells[row, code] = 0.9
            counts[code] += 0.5
        cells[row, primary] = 1.0
        counts[primary] += 1
        weight_cells[row, "weight"] = np.clip(recordings["rating"].iat[row] / best, 0.1, 1)
    for row in recordings.index:
        weight_cells[row, "sampling"] = 1 / counts[recordings["primary_label"].iat[row]]
    return pd.concat([targets, weights], axis=1)


# Clips


def clips(options: argparse.Namespace, scratch: Path) -> None:
    """Read a training clip into a float batch: from the feed and by decoding OGG, then both with noise and gain."""
    import torch

    from birdclef_core.augment_config import AugmentConfig, NoiseGroup
    from birdclef_core.config import StageConfig
    from birdclef_core.data.buffers import WaveBuffers
    from birdclef_core.data.cache import build_cache
    from birdclef_core.data.feed import TrainFeed
    from birdclef_core.stages.training_step import augmented_waves

    torch.set_num_threads(1)
    librosa, audiomentations = optional("librosa"), optional("audiomentations")
    root, batches, batch_size = scratch / "clips", 8, 32
    paths = write_recordings(root, count=64, distinct=8, duration_s=60, audio=options.audio)
    noise = write_recordings(root / "noise", count=16, distinct=8, duration_s=10, audio=options.audio)
    table = made_up_table(64, 8).assign(path=paths, duration_s=60.0, is_validation=False)
    table["secondary_labels"] = [()] * 64
    dataset = dataset_of(root, table, [f"noise/{name}" for name in noise], 10.0)
    cache = build_cache(dataset, scratch / "cache")
    every = batches * batch_size
    float_BT, cpu, buffers = torch.zeros(batch_size, CLIP_S * RATE_HZ), torch.device("cpu"), WaveBuffers(1, "float32")
    augment = {name: 0.0 for name in AugmentConfig.__dataclass_fields__ if name.endswith("_prob")}
    gain_only = AugmentConfig(**augment | {"gain_prob": 1.0})
    rng = np.random.default_rng(0)

    def stage(prob: float) -> StageConfig:
        values = {"label_space": "all", "loss": "ce", "epochs": 1, "learning_rate": 1e-3, "clip_s": CLIP_S, "seed": 0}
        return StageConfig(
            name="train_ce", batch_size=batch_size, clips_per_epoch=every, noise=(NoiseGroup(prob=prob),), **values
        )

    def read_floats() -> None:
        for number in range(every):
            start = int(rng.integers(0, (60 - CLIP_S) * RATE_HZ))
            clip_T = torch.from_numpy(cache.read(number % len(paths), start, CLIP_S * RATE_HZ))
            float_BT[number % batch_size].copy_(clip_T)

    def feed_all(feed: TrainFeed) -> None:
        for _ in feed.epoch(0):
            pass

    def feed_noisy(feed: TrainFeed) -> None:
        generator = torch.Generator().manual_seed(0)
        for batch in feed.epoch(0):
            augmented_waves(batch, gain_only, cpu, generator, buffers)

    def decode_each(load: Callable[[Path, float], np.ndarray]) -> Work:
        def work() -> None:
            for number in range(every):
                path = root / paths[number % len(paths)]
                float_BT[number % batch_size] = torch.from_numpy(load(path, float(rng.uniform(0, 60 - CLIP_S))))

        return work

    def by_soundfile(path: Path, offset_s: float) -> np.ndarray:
        with soundfile.SoundFile(str(path)) as file:
            file.seek(round(offset_s * RATE_HZ))
            return file.read(CLIP_S * RATE_HZ, dtype="float32")

    def by_librosa(path: Path, offset_s: float) -> np.ndarray:
        return librosa.load(path, sr=RATE_HZ, offset=offset_s, duration=CLIP_S)[0]

    print(f"\ncopying {CLIP_S} s of int16 in memory, which other work on this machine slows down: {copy_us():.0f} us")
    header(f"one {CLIP_S} s clip from 60 s OGG, 32 kHz mono: CPU time, all threads together")
    setting = {"repeats": options.repeats, "clock": time.process_time, "per": every, "unit": "us"}
    controls = {"soundfile seek + read": by_soundfile} | ({"librosa.load(offset)": by_librosa} if librosa else {})
    one_thread = partial(TrainFeed, dataset, cache, dataset.all_species, threads=1)
    with one_thread(stage(0.0)) as feed, one_thread(stage(0.0), floats=True) as float_feed:
        for name, load in controls.items():
            compare(f"cache to a row of a float batch; {name}", read_floats, decode_each(load), **setting)
            compare(f"feed to a float batch; {name}", lambda: feed_all(float_feed), decode_each(load), **setting)
            compare(f"feed to an int16 batch; {name}", lambda: feed_all(feed), decode_each(load), **setting)
    if librosa and audiomentations:
        chain = audiomentations.Compose(
            [
                audiomentations.AddBackgroundNoise(str(root / "noise"), min_snr_db=3.0, max_snr_db=30.0, p=1.0),
                audiomentations.Gain(min_gain_db=-12.0, max_gain_db=12.0, p=1.0),
            ]
        )
        control = decode_each(lambda path, offset_s: chain(by_librosa(path, offset_s), sample_rate=RATE_HZ))
        with one_thread(stage(1.0)) as feed, one_thread(stage(1.0), floats=True) as float_feed:
            compare("with noise + gain on a GPU; librosa + audiomentations", lambda: feed_all(feed), control, **setting)
            compare("with noise + gain on the CPU; librosa + audiomentations", lambda: feed_noisy(float_feed), control, **setting)
    print("\nclips/s of the feed as int16, by reader threads")
    for threads in (1, 2, 4):
        with TrainFeed(dataset, cache, dataset.all_species, stage(0.0), threads=threads) as feed:
            rates = sorted(every / timed(lambda feed=feed: feed_all(feed), time.perf_counter) for _ in range(options.repeats))
        print(f"  {threads} threads: {statistics.median(rates):,.0f} ({rates[0]:,.0f}-{rates[-1]:,.0f})")


def copy_us() -> float:
    """Return the median time to copy a clip between batches that are larger than the processor's caches, in microseconds."""
    from_BT, to_BT = (np.ones((64, CLIP_S * RATE_HZ), np.int16) for _ in range(2))
    return 1e6 * statistics.median(
        timed(lambda row=row: np.copyto(to_BT[row], from_BT[row]), time.process_time) for row in range(64)
    )


# Build


def build(options: argparse.Namespace, scratch: Path) -> None:
    """Build the complete cache, and only decode the files with soundfile, both on all cores."""
    from birdclef_core.data.cache import build_cache
    from birdclef_core.data.cache_estimate import num_cores

    count = 128
    paths = write_recordings(scratch / "build", count=count, distinct=8, duration_s=60, audio=options.audio)
    table = made_up_table(count, 8).assign(path=paths, duration_s=60.0)
    dataset = dataset_of(scratch / "build", table)

    def ours() -> None:
        build_cache(dataset, Path(tempfile.mkdtemp(dir=scratch)))

    def decode_only(name: str) -> int:
        with soundfile.SoundFile(str(scratch / "build" / name)) as file:
            return len(file.read(dtype="float32"))

    def control() -> None:
        with ThreadPoolExecutor(num_cores()) as pool:
            list(pool.map(decode_only, paths))

    def remove() -> None:
        for folder in scratch.glob("tmp*"):
            shutil.rmtree(folder)

    header(f"{count} files of 60 s OGG, 32 kHz mono, {num_cores()} threads each; a ratio of .8 is the aim")
    for name, clock in (("CPU time a file", time.process_time), ("time a file", time.perf_counter)):
        compare(name, ours, control, repeats=options.repeats, clock=clock, per=count, unit="ms", tidy=remove)


# Memory


def memory(options: argparse.Namespace, scratch: Path) -> None:
    """Measure the memory of a feed with 1,000 and with 119,292 recordings, in a process other than the one that built the cache."""
    print("\nMemory of a feed (anonymous: without what it shares with other processes)")
    for count in (1_000, RECORDINGS):
        write_recordings(scratch / f"{count}", count=count, distinct=64, duration_s=0.5, audio=options.audio)
        command = [sys.executable, __file__, "--one-trial", str(count), "--scratch", str(scratch)]
        for _ in range(2):
            print(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout, end="", flush=True)


def one_trial(count: int, scratch: Path) -> None:
    """Open or build the cache of a number of files, read batches for a while, and print the memory in use."""
    import torch

    from birdclef_core.config import StageConfig
    from birdclef_core.data.cache import build_cache
    from birdclef_core.data.feed import TrainFeed

    torch.set_num_threads(1)
    cache_dir = scratch / f"cache-{count}"
    what = "opened" if cache_dir.exists() else "built"
    before = anonymous_mb()
    table = made_up_table(count, min(SPECIES, count // 4))
    table = table.assign(path=[f"{row}.ogg" for row in range(count)], duration_s=0.5)
    dataset = dataset_of(scratch / f"{count}", table)
    with_table = anonymous_mb()
    started, cpu_started = time.perf_counter(), time.process_time()
    cache = build_cache(dataset, cache_dir)
    start_s, start_cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    stage = StageConfig(
        name="train_ce", label_space="all", loss="ce", epochs=1, learning_rate=1e-3, clip_s=10, batch_size=32, seed=0, noise=()
    )
    with TrainFeed(dataset, cache, dataset.all_species, stage) as feed:
        batches = feed.epoch(0)
        opened = anonymous_mb()
        for _ in range(20):
            next(batches)
        fed = anonymous_mb()
    print(
        f"  {count:>7,} recordings: table {with_table - before:4.0f} MB, cache and feed {opened - with_table:4.0f} MB, "
        f"batches {fed - opened:4.0f} MB; {what} in {start_s:6.2f} s ({start_cpu_s:.2f} s of CPU)"
    )


def anonymous_mb() -> float:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024


# Formats


def formats(options: argparse.Namespace, scratch: Path) -> None:
    """Compare a cache of one file per recording with one large file: open and read at random among 119,292 recordings."""
    size, folder = 16_384, scratch / "formats"
    content = np.random.default_rng(0).bytes(size)
    names = [f"{folder}/{number % 256:02x}/{number}" for number in range(RECORDINGS)]
    for number in range(256):
        (folder / f"{number:02x}").mkdir(parents=True)
    for name in names:
        Path(name).write_bytes(content)
    with (folder / "shard").open("wb") as file:
        for _ in names:
            file.write(content)
    shard = np.memmap(folder / "shard", dtype=np.int16, mode="r")
    opened, room, samples = os.open(folder / "shard", os.O_RDONLY), np.empty(size // 2, np.int16), size // 2
    order = np.random.default_rng(1).permutation(RECORDINGS)[:50_000].tolist()

    def by_file(number: int) -> None:
        file = os.open(names[number], os.O_RDONLY)
        os.preadv(file, [room.data], 0)
        os.close(file)

    def by_shard(number: int) -> None:
        os.preadv(opened, [room.data], number * size)

    def by_map(number: int) -> None:
        room[:] = shard[number * samples : (number + 1) * samples]

    header(f"16 KB from one of {RECORDINGS:,} recordings, CPU time; control: one shard")
    for name, read in (("a file each; shard by pread", by_shard), ("a file each; shard by memory map", by_map)):
        work = [lambda one=one: [one(number) for number in order] for one in (by_file, read)]
        setting = {"repeats": options.repeats, "clock": time.process_time, "per": len(order), "unit": "us"}
        compare(name, work[0], work[1], **setting)
    os.close(opened)


SECTIONS = {"tables": tables, "clips": clips, "build": build, "memory": memory, "formats": formats}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="default: all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--audio", type=Path, help="a folder of recordings to use instead of made-up sound")
    parser.add_argument("--loop-rows", type=int, default=4_000, help="rows for the control of `tables` (its time is scaled)")
    parser.add_argument("--scratch", type=Path, default=None, help="folder for temporary files (4 GB for `memory`)")
    parser.add_argument("--one-trial", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_trial:
        one_trial(options.one_trial, options.scratch)
        return
    if len(options.sections) != 1:
        arguments = [argument for argument in sys.argv[1:] if argument not in SECTIONS]
        for name in options.sections or SECTIONS:  # in processes of their own, so that each has its own memory figures
            subprocess.run([sys.executable, __file__, name, *arguments], check=True)
        return
    print(
        f"Python {platform.python_version()}, numpy {np.__version__}, pandas {pd.__version__}, soundfile {soundfile.__version__} "
        f"({soundfile.__libsndfile_version__}), {platform.machine()}, {len(os.sched_getaffinity(0))} cores, "
        f"load {os.getloadavg()[0]:.1f} at the start"
    )
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        SECTIONS[options.sections[0]](options, Path(folder))


if __name__ == "__main__":
    main()
