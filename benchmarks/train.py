"""Time a complete training step against the encoder alone on a ready spectrogram: `python benchmarks/train.py`.

A step is what `TrainingStep` does with a batch from the feed: noise, gain, mixing, spectrogram, masks, forward, loss, backward,
optimiser. Two controls run alternately with it in the same process: forward, backward and step of the same encoder as a plain script
writes it (torch's default layout and Adam), and the same with the layout and the fused Adam that a stage uses. Without a GPU the time
is processor time, because other work may be running; with a GPU it is elapsed time.

`benchmarks/gpu.py` measures the same, and what else there is to know of a GPU, in one run.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import timm
import torch
from torch import Tensor

from birdclef_core.config import Recipe, StageConfig
from birdclef_core.data.clips import NoisePool, draw_batch
from birdclef_core.data.feed import TrainBatch
from birdclef_core.models.detector import PIECE_S, Detector
from birdclef_core.recipes import RECIPES
from birdclef_core.stages.precision import Arithmetic
from birdclef_core.stages.training_step import TrainingStep

NUM_SPECIES = 264
Work = Callable[[], object]


def make_batch(stage: StageConfig, seed: int) -> TrainBatch:
    """Return a batch of noise with chirps, and the background noise that the stage draws for it."""
    rng = np.random.default_rng(seed)
    pools = [NoisePool(group, np.arange(8)) for group in stage.noise]
    plan = draw_batch(seed, 0, 0, cumulative_weights=np.arange(1.0, 101.0), batch_size=stage.batch_size, noise=pools)
    target_BC = torch.zeros(stage.batch_size, NUM_SPECIES)
    target_BC[torch.arange(stage.batch_size), torch.from_numpy(rng.integers(NUM_SPECIES, size=stage.batch_size))] = 1
    return TrainBatch(
        wave_BT=make_waves(rng, stage.batch_size, stage.clip_samples),
        target_BC=target_BC,
        weight_B=torch.from_numpy(rng.uniform(0.2, 1, stage.batch_size)).float(),
        rows_B=torch.from_numpy(plan.position_B),
        noise_clip_M=torch.from_numpy(plan.noise_clip_M),
        noise_wave_MT=make_waves(rng, len(plan.noise_clip_M), stage.clip_samples),
        noise_snr_db_M=torch.from_numpy(plan.noise_snr_db_M),
    )


def make_waves(rng: np.random.Generator, count: int, num_samples: int) -> Tensor:
    time_T = np.arange(num_samples) / 32_000
    chirp_T = 8000 * np.sin(2 * np.pi * (1500 + 300 * time_T) * time_T)
    return torch.from_numpy((chirp_T + 500 * rng.standard_normal((count, num_samples))).astype(np.int16))


@dataclass(frozen=True)
class Case:
    """The step and the two controls of one recipe."""

    step: Work
    plain: Work
    tuned: Work


def make_case(recipe: Recipe, stage: StageConfig, device: torch.device, *, batches: int = 8) -> Case:
    made = [to_device_memory(make_batch(stage, seed), device) for seed in range(batches)]
    calls = iter(range(10**9))
    model = Detector(recipe.model, NUM_SPECIES).to(device).train()
    model.encoder.to(memory_format=torch.channels_last)
    arithmetic = Arithmetic(stage.precision, device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, weight_decay=stage.weight_decay, fused=True)
    training_step = TrainingStep(model, optimizer, stage, arithmetic, device, on_note=print)

    def step() -> None:
        number = next(calls)
        training_step(made[number % batches], number)

    with torch.no_grad():
        mel_BKFN = training_step.prepare(made[0], torch.Generator().manual_seed(0)).mel_BKFN
    return Case(step, bare(recipe, mel_BKFN, arithmetic, tuned=False), bare(recipe, mel_BKFN, arithmetic, tuned=True))


def to_device_memory(batch: TrainBatch, device: torch.device) -> TrainBatch:
    """Return the batch in the memory in which the feed delivers it, from which a GPU can copy."""
    if device.type != "cuda":
        return batch
    return TrainBatch(**{name: value.pin_memory() for name, value in vars(batch).items()})


def bare(recipe: Recipe, mel_BKFN: Tensor, arithmetic: Arithmetic, *, tuned: bool) -> Work:
    """Return a call that runs forward, backward and step of the encoder alone."""
    encoder = Detector(recipe.model, NUM_SPECIES).encoder.to(mel_BKFN.device).train()
    if recipe.model.head == "cnn":
        pieces = round(recipe.stages[0].clip_s) // PIECE_S
        mel_BKFN = mel_BKFN.unflatten(3, (pieces, -1)).movedim(3, 1).flatten(0, 1).contiguous()
    if tuned:
        encoder.to(memory_format=torch.channels_last)
        mel_BKFN = mel_BKFN.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-4, weight_decay=1e-3, fused=tuned)

    def work() -> None:
        optimizer.zero_grad()
        with arithmetic.autocast():
            loss = encoder(mel_BKFN).mean()
        loss.backward()
        optimizer.step()

    return work


def timed(work: Work, device: torch.device) -> float:
    """Return the seconds of a call: processor time of all threads, or elapsed time until the GPU has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        started = time.perf_counter()
        work()
        torch.cuda.synchronize(device)
        return time.perf_counter() - started
    started = time.process_time()
    work()
    return time.process_time() - started


def spread(values: Sequence[float], digits: int = 2) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} - {max(values):.{digits}f})"


def compare(name: str, recipe: Recipe, stage: StageConfig, device: torch.device, repeats: int) -> None:
    """Print one row: times of a step and of both controls, and the ratios within each round."""
    case = make_case(recipe, stage, device)
    for work in (case.step, case.plain, case.tuned):
        work()
    rounds = [tuple(timed(work, device) for work in (case.plain, case.step, case.tuned)) for _ in range(repeats)]
    plain, step, tuned = zip(*rounds, strict=True)
    print(
        f"{name:<17} {stage.batch_size:>3} x {stage.clip_s:g} s  step {spread(step)} s  plain {spread(plain)} s  "
        f"tuned {spread(tuned)} s  to plain {spread([s / p for s, p in zip(step, plain, strict=True)])}  "
        f"to tuned {spread([s / t for s, t in zip(step, tuned, strict=True)])}  "
        f"{stage.batch_size / statistics.median(step):.1f} clips/s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--batch", type=int, default=4, help="clips per batch (default 4; 0: the recipe's own number)")
    parser.add_argument("--precision", choices=("float32", "tf32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()}, {os.cpu_count()} cores"
    print(
        f"{name}, {options.threads} threads; Python {platform.python_version()}, torch {torch.__version__}, timm {timm.__version__}"
    )
    print(
        f"{options.precision}; medians and ranges of {options.repeats} rounds in turn; processor time without a GPU", flush=True
    )
    for recipe_name in options.recipes:
        recipe = RECIPES[recipe_name]()
        stage = replace(recipe.stages[0], precision=options.precision, clips_per_epoch=None)
        stage = replace(stage, batch_size=options.batch or stage.batch_size)
        compare(recipe_name, recipe, stage, device, options.repeats)


if __name__ == "__main__":
    main()
