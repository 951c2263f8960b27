"""Measure on one GPU what cannot be known without one: `python benchmarks/gpu.py --out gpu.json`. It takes less than 8 minutes.

Its parts run in this order, and a part that would begin after `--minutes` is left out and named at the end:

tests      the tests that are marked `gpu`
steps      a training step of each recipe, at its own batch size, against the encoder alone on a ready spectrogram (benchmarks/train.py)
stages     a stage of each recipe as a trial trains it: cache, feed, augmentation, step, scoring
largest    how much memory a clip takes, and how many fit at once
memory     a stage that has too little memory
sharing    two trials on the GPU, against one
inference  a soundscape of ten minutes, the GPU against the CPU
learning   the five stages at the small budget on the demo set: does the precision change what is learnt?
compile    torch.compile of the encoder

The share of the time in which the GPU works is that of its kernels and copies, by torch's profiler, over the time of the same steps
without the profiler. With `--tiny`, a small model takes the place of the recipes: that shows that the script runs, on a CPU as well.
"""

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import torch
from made_up_data import dataset_of, made_up_table, write_recordings
from train import make_batch, make_case, timed, to_device_memory

from birdclef_core.config import SAMPLE_RATE_HZ, ModelConfig, Precision, Recipe, SpectrogramConfig, StageConfig
from birdclef_core.data.cache import build_cache
from birdclef_core.data.dataset import load_dataset
from birdclef_core.data.feed import TrainBatch
from birdclef_core.data.prefetch import READER_THREADS
from birdclef_core.demo.demo_set import make_demo
from birdclef_core.inference.deployed import DeployedDetector, Member
from birdclef_core.inference.networks.torch_runtime import TorchRuntime
from birdclef_core.inference.procedure import DEFAULT
from birdclef_core.inference.windows import stream_windows
from birdclef_core.models.detector import Detector
from birdclef_core.models.encoders import RANDOM
from birdclef_core.recipes import RECIPES, small_budget, with_all_stages
from birdclef_core.stages.compilation import compile_if_faster
from birdclef_core.stages.precision import Arithmetic
from birdclef_core.stages.task import StageTask
from birdclef_core.stages.throughput import peak_memory_bytes, reset_peak_memory
from birdclef_core.stages.training import train_stage
from birdclef_core.stages.training_data import TrainingData
from birdclef_core.stages.training_step import TrainingStep
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage

GIB = 2**30
NUM_SPECIES = 264
SOUNDSCAPE_S = 600
INFERENCE_RECIPES = ("sed_v2s", "sed_b3ns", "cnn_v2s", "cnn_b3ns")
SHARED, COMPILED, IN_OTHER_PRECISIONS = "sed_v2s", "sed_v2s", "sed_v2s"
"""The recipe with which two trials share the GPU, that is compiled, and that is trained in the other precisions."""
Row = dict[str, object]


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    recipes: Mapping[str, Recipe]
    rounds: int = 5
    """Rounds of a step and its controls, in turn."""
    free_steps: int = 12
    """Steps without a pause."""
    shared_s: float = 8.0
    """Seconds in which two trials share the GPU."""
    num_recordings: int = 800
    """Recordings of 30 s from which stages are trained."""
    steps_per_epoch: int = 16
    soundscape_s: int = SOUNDSCAPE_S
    small_epochs: int | None = None
    """Epochs of each stage of the small budget; None: its own."""


def full() -> Scale:
    return Scale({name: make() for name, make in RECIPES.items()})


def tiny() -> Scale:
    model = ModelConfig(encoder="mobilenetv3_small_050", spectrogram=SpectrogramConfig(num_mels=32, hop_length=1000))
    recipe = small_budget(replace(with_all_stages(RECIPES["sed_b3ns"]()), model=model))
    stages = tuple(replace(stage, batch_size=4, clips_per_epoch=8) for stage in recipe.stages)
    recipes = {name: replace(recipe, name=name, stages=stages) for name in ("sed_v2s", "sed_b3ns")}
    return Scale(
        recipes,
        rounds=2,
        free_steps=2,
        shared_s=1.0,
        num_recordings=20,
        steps_per_epoch=2,
        soundscape_s=20,
        small_epochs=1,
    )


@dataclass
class Page:
    """What has been measured: printed as it comes, and written as JSON after each part."""

    out: Path | None
    deadline: float
    facts: dict[str, str]
    tables: dict[str, list[Row]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def part(self, name: str, rows: Callable[[], Iterator[Row]]) -> None:
        """Measure a part row by row. One that fails has its error as a row, and the next part follows."""
        if time.monotonic() > self.deadline:
            self.left_out.append(name)
            return
        started = time.monotonic()
        print(f"\n{name}", flush=True)
        table = self.tables.setdefault(name, [])
        try:
            for row in rows():
                table.append(row)
                print("  " + "  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
                if time.monotonic() > self.deadline:
                    self.left_out.append(f"rest of {name}")
                    break
        except Exception as error:
            traceback.print_exc()
            table.append({"failed": f"{type(error).__name__}: {error}"})
        print(f"  ({time.monotonic() - started:.0f} s)", flush=True)
        if self.out is not None:
            facts = {"facts": self.facts, "tables": self.tables, "left_out": self.left_out}
            self.out.write_text(json.dumps(facts, indent=1) + "\n")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def facts(device: torch.device) -> dict[str, str]:
    found = {name: version(name) for name in ("torch", "torchaudio", "timm", "numpy")}
    found |= {"python": platform.python_version(), "cores": str(os.cpu_count()), "threads": str(torch.get_num_threads())}
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        found |= {"card": card.name, "memory": f"{card.total_memory / GIB:.1f} GiB", "cuda": str(torch.version.cuda)}
        found |= {"cudnn": str(torch.backends.cudnn.version()), "driver": _driver()}
    return found


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def gpu_tests() -> Iterator[Row]:
    files = [str(path) for path in sorted(Path("tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout[-4000:] + done.stderr[-2000:])
    yield {"files": len(files), "result": done.stdout.strip().splitlines()[-1]}


def stage_of(recipe: Recipe, precision: Precision) -> StageConfig:
    return replace(recipe.stages[0], precision=precision, clips_per_epoch=None)


def steps(scale: Scale, device: torch.device) -> Iterator[Row]:
    """Compare in bfloat16, then one recipe in the other two precisions."""
    for name, recipe in scale.recipes.items():
        yield compare(name, recipe, stage_of(recipe, "bfloat16"), device, scale)
    others: tuple[Precision, ...] = ("tf32", "float32")
    recipe = scale.recipes[IN_OTHER_PRECISIONS]
    for precision in others:
        yield compare(recipe.name, recipe, stage_of(recipe, precision), device, scale)


def compare(name: str, recipe: Recipe, stage: StageConfig, device: torch.device, scale: Scale) -> Row:
    case = make_case(recipe, stage, device, batches=2)
    works = (case.plain, case.step, case.tuned)
    for work in works:
        for _ in range(2):
            work()
    rounds = [tuple(timed(work, device) for work in works) for _ in range(scale.rounds)]
    plain, step, tuned = (np.array(column) for column in zip(*rounds, strict=True))
    reset_peak_memory(device)
    passed_s = free_running_s(case.step, scale.free_steps, device)
    peak = peak_memory_bytes(device)
    row: Row = {
        "recipe": name,
        "precision": stage.precision,
        "clips": f"{stage.batch_size} x {stage.clip_s:g} s",
        "step_ms": spread(step * 1000),
        "plain_ms": spread(plain * 1000),
        "tuned_ms": spread(tuned * 1000),
        "to_plain": spread(step / plain, 2),
        "to_tuned": spread(step / tuned, 2),
        "clips_per_s": round(scale.free_steps * stage.batch_size / passed_s),
        "peak_gib": round(peak / GIB, 1),
    }
    if device.type == "cuda":
        row["gpu_works"] = round(kernel_s(case.step, 5) * scale.free_steps / 5 / passed_s, 2)
    return row


def spread(values: np.ndarray, digits: int = 1) -> str:
    return f"{np.median(values):.{digits}f} ({values.min():.{digits}f} - {values.max():.{digits}f})"


def free_running_s(work: Callable[[], object], count: int, device: torch.device) -> float:
    synchronize(device)
    started = time.perf_counter()
    for _ in range(count):
        work()
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def kernel_s(work: Callable[[], object], count: int) -> float:
    """Return the seconds of all kernels and copies of some calls."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(count):
            work()
        torch.cuda.synchronize()
    return sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6


def made_up_recordings(folder: Path, scale: Scale) -> TrainingData:
    table = made_up_table(scale.num_recordings, min(NUM_SPECIES, scale.num_recordings // 3))
    write_recordings(folder, count=len(table), distinct=min(40, len(table)), duration_s=30.0, audio=None)
    table["path"] = [f"{row}.ogg" for row in range(len(table))]
    table["duration_s"] = 30.0
    dataset = dataset_of(folder, table)
    return TrainingData(dataset=dataset, cache=build_cache(dataset, folder / "cache"))


def stages(scale: Scale, device: torch.device) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        data = made_up_recordings(Path(folder) / "data", scale)
        hours = scale.num_recordings * 30 / 3600
        yield {"cache": f"{hours:.1f} hours of audio made and decoded in {time.perf_counter() - started:.1f} s"}
        store = StageStore(Storage.parse(str(Path(folder) / "store")))
        for name, recipe in scale.recipes.items():
            stage = stage_of(recipe, "bfloat16")
            stage = replace(stage, epochs=2, clips_per_epoch=scale.steps_per_epoch * stage.batch_size)
            begun = time.perf_counter()
            first, second = train_stage(task_of(recipe, stage), data, store, device)
            train_s = scale.steps_per_epoch * stage.batch_size / second.clips_per_s
            yield {
                "recipe": name,
                "clips_per_s": round(second.clips_per_s),
                "first_epoch_clips_per_s": round(first.clips_per_s),
                "waited_for_data": round(second.waited_s / train_s, 2),
                "in_steps": round(second.device_s / train_s, 2),
                "score_s": round(second.evaluate_s, 1),
                "peak_gib": round(second.memory_bytes / GIB, 1),
                "stage_s": round(time.perf_counter() - begun, 1),
                "bottleneck": second.bottleneck,
            }


def task_of(recipe: Recipe, stage: StageConfig, parent_id: str | None = None) -> StageTask:
    return StageTask(
        stage_id=f"{recipe.name}-{stage.name}-{stage.precision}-{time.monotonic_ns()}",
        parent_id=parent_id,
        recipe=recipe.name,
        model=recipe.model,
        config=stage,
        pretrained=RANDOM,
        identity={},
    )


def make_step(recipe: Recipe, stage: StageConfig, device: torch.device, notes: list[str]) -> tuple[Detector, TrainingStep]:
    model = Detector(recipe.model, NUM_SPECIES).to(device).train()
    model.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    return model, TrainingStep(model, optimizer, stage, Arithmetic(stage.precision, device), device, on_note=notes.append)


def largest(scale: Scale, device: torch.device) -> Iterator[Row]:
    """Say how much memory a clip takes, by two numbers of clips, and try nineteen twentieths of what that promises."""
    for name, recipe in scale.recipes.items():
        stage = stage_of(recipe, "bfloat16")
        _, step = make_step(recipe, stage, device, [])
        few = make_batch(replace(stage, batch_size=16), 0)
        peaks = [peak_of(step, few, clips, device) for clips in (32, 64)]
        per_clip = (peaks[1] - peaks[0]) / 32
        row: Row = {"recipe": name, "precision": stage.precision, "clip_s": stage.clip_s, "recipe_uses": stage.batch_size}
        row |= {"mib_per_clip": round(per_clip / 2**20), "gib_without_clips": round((peaks[0] - 32 * per_clip) / GIB, 2)}
        if device.type == "cuda":
            memory = torch.cuda.get_device_properties(device).total_memory
            promised = int(0.95 * (memory - peaks[0] + 32 * per_clip) / per_clip)
            peak = peak_of(step, few, promised, device)
            row |= {"tried": promised, "fits": step.micro_batch_size == promised, "peak_gib": round(peak / GIB, 1)}
        yield row
        del step
        if device.type == "cuda":
            torch.cuda.empty_cache()


def peak_of(step: TrainingStep, few: TrainBatch, clips: int, device: torch.device) -> int:
    """Return the peak memory of a step with so many clips, which are those of a small batch again and again.

    Only the small batch's own clips have background noise: to make a batch takes longer than to train on it.
    """
    repeats = -(-clips // len(few.wave_BT))
    batch = replace(
        few,
        wave_BT=few.wave_BT.repeat(repeats, 1)[:clips],
        target_BC=few.target_BC.repeat(repeats, 1)[:clips],
        weight_B=few.weight_B.repeat(repeats)[:clips],
        rows_B=few.rows_B.repeat(repeats)[:clips],
    )
    step.micro_batch_size = clips
    reset_peak_memory(device)
    step(batch, 0)
    return peak_memory_bytes(device)


def too_little_memory(scale: Scale, device: torch.device) -> Iterator[Row]:
    """Train steps with all of the memory, and with a third of what they need."""
    recipe = next(iter(scale.recipes.values()))
    stage = stage_of(recipe, "bfloat16")
    batch = to_device_memory(make_batch(stage, 0), device)
    losses, notes = [], []
    for is_short in (False, True):
        torch.manual_seed(0)
        _, step = make_step(recipe, stage, device, notes)
        if is_short:
            needed = peak_memory_bytes(device)
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(needed / 3 / torch.cuda.get_device_properties(device).total_memory)
        reset_peak_memory(device)
        losses.append([step(batch, seed).item() for seed in range(3)])
        passed_s = free_running_s(lambda step=step: step(batch, 3), 3, device) / 3  # type: ignore[misc]
        yield {
            "memory": "a third" if is_short else "all",
            "at_once": step.micro_batch_size,
            "step_ms": round(passed_s * 1000),
            "peak_gib": round(peak_memory_bytes(device) / GIB, 1),
            "losses": " ".join(f"{loss:.4f}" for loss in losses[-1]),
        }
        del step
        if device.type == "cuda" and is_short:
            torch.cuda.set_per_process_memory_fraction(1.0)
            yield {"notes": " | ".join(notes)}
        if device.type == "cpu":
            return


def sharing(scale: Scale, device: torch.device) -> Iterator[Row]:
    alone, together = (side_by_side(scale.recipes[SHARED], count, scale, device) for count in (1, 2))
    yield {
        "recipe": SHARED,
        "one_trial_clips_per_s": f"{sum(alone):.0f}",
        "two_trials_clips_per_s": " + ".join(f"{value:.0f}" for value in together),
        "ratio": round(sum(together) / sum(alone), 2),
    }


def side_by_side(recipe: Recipe, count: int, scale: Scale, device: torch.device) -> list[float]:
    """Return the clips per second of each of some processes that train steps at the same time."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(count), context.Queue()
    arguments = (recipe, scale.shared_s, str(device), barrier, results)
    processes = [context.Process(target=train_for_a_while, args=arguments, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    return found


def train_for_a_while(recipe: Recipe, seconds: float, where: str, barrier: Barrier, results: Any) -> None:
    device, stage = torch.device(where), stage_of(recipe, "bfloat16")
    torch.set_num_threads(4)
    work = make_case(recipe, stage, device, batches=2).step
    for _ in range(3):
        work()
    synchronize(device)
    barrier.wait(timeout=100)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        work()
        done += 1
        if done % 4 == 0:
            synchronize(device)
    synchronize(device)
    results.put(done * stage.batch_size / (time.perf_counter() - started))


def inference(scale: Scale, device: torch.device) -> Iterator[Row]:
    rng = np.random.default_rng(0)
    sound_T = (0.02 * rng.standard_normal(scale.soundscape_s * SAMPLE_RATE_HZ)).astype(np.float32)
    heard_WT = np.stack([wave_T for _, wave_T in stream_windows([sound_T], DEFAULT)])
    chosen = {name: scale.recipes[name] for name in INFERENCE_RECIPES if name in scale.recipes}
    for name, recipes in {**{name: {name: recipe} for name, recipe in chosen.items()}, "all of these": chosen}.items():
        row: Row = {"model": name, "windows": len(heard_WT)}
        for place in dict.fromkeys((device, torch.device("cpu"))):
            detector = DeployedDetector(tuple(member_of(recipe, place) for recipe in recipes.values()), device=place)
            windows_WT = heard_WT if place.type == "cuda" else heard_WT[:16]
            for at_once in (16, 64) if place.type == "cuda" else (16,):
                detector.hear(windows_WT[:at_once])
                times = []
                for _ in range(3):
                    started = time.perf_counter()
                    for first in range(0, len(windows_WT), at_once):
                        detector.hear(windows_WT[first : first + at_once])
                    times.append(time.perf_counter() - started)
                row[f"{place.type}_ms_per_window_by_{at_once}"] = round(min(times) / len(windows_WT) * 1000, 2)
        yield row


def member_of(recipe: Recipe, device: torch.device) -> Member:
    model = Detector(recipe.model, NUM_SPECIES)
    species = tuple(f"sp{number:04d}" for number in range(NUM_SPECIES))
    return Member(model_id=recipe.name, config=recipe.model, species=species, runtime=TorchRuntime(model, device))


def learning(scale: Scale, device: torch.device) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        dataset = load_dataset(make_demo(root / "demo"))
        data = TrainingData(dataset=dataset, cache=build_cache(dataset, root / "cache"))
        recipe = small_budget(with_all_stages(RECIPES["sed_b3ns"]())) if scale.small_epochs is None else scale.recipes["sed_b3ns"]
        precisions: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")
        for precision in precisions:
            store = StageStore(Storage.parse(str(root / precision)))
            started, parent_id, scores = time.perf_counter(), None, []
            for stage in recipe.stages:
                chosen = replace(stage, precision=precision, epochs=scale.small_epochs or stage.epochs)
                task = task_of(recipe, chosen, parent_id)
                *_, last = train_stage(task, data, store, device)
                parent_id = task.stage_id
                scores.append(last.scores["cmap"])
            yield {
                "recipe": recipe.name,
                "precision": precision,
                "cmap_by_stage": " ".join(f"{score:.3f}" for score in scores),
                "error": round(last.scores.get("cmap_se", float("nan")), 3),
                "chance": round(last.scores["cmap_chance"], 3),
                "chain_s": round(time.perf_counter() - started, 1),
            }


def compilation(scale: Scale, device: torch.device) -> Iterator[Row]:
    recipe = scale.recipes[COMPILED]
    stage = stage_of(recipe, "bfloat16")
    notes: list[str] = []
    model, step = make_step(recipe, stage, device, notes)
    compile_if_faster(model, step, to_device_memory(make_batch(stage, 0), device), notes.append)
    yield {"recipe": COMPILED, "note": notes[-1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    parser.add_argument("--minutes", type=float, default=7.0, help="no part begins after so many minutes (default 7)")
    parser.add_argument("--parts", nargs="+", metavar="PART", help="only these parts")
    parser.add_argument("--tiny", action="store_true", help="a small model for a few steps: shows that the script runs")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.tiny:
        parser.exit(2, "There is no CUDA device here, so nothing was measured (--tiny runs on a CPU).\n")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scale = tiny() if options.tiny else full()
    torch.set_num_threads(min(8, os.cpu_count() or 1))
    page = Page(options.out, time.monotonic() + 60 * options.minutes, facts(device) | {"reader_threads": str(READER_THREADS)})
    print("  ".join(f"{name} {value}" for name, value in page.facts.items()), flush=True)
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "tests": gpu_tests,
        "steps": lambda: steps(scale, device),
        "stages": lambda: stages(scale, device),
        "largest": lambda: largest(scale, device),
        "memory": lambda: too_little_memory(scale, device),
        "sharing": lambda: sharing(scale, device),
        "inference": lambda: inference(scale, device),
        "learning": lambda: learning(scale, device),
        "compile": lambda: compilation(scale, device),
    }
    for name, rows in parts.items():
        if not options.parts or name in options.parts:
            page.part(name, rows)
    print(f"\nLeft out: {', '.join(page.left_out) or 'nothing'}.")


if __name__ == "__main__":
    main()
