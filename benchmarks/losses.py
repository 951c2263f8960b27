"""Time a training step with each loss and optimiser against one with `bce` and `adam`: `python benchmarks/losses.py`.

The steps of all losses run in turn in one process on the same batches, each with a model of its own; ratios are within each round, and between the least times of all rounds, which other work on the machine changes least. Two
rows of `bce` with `adam` say how much of a ratio is noise. Then each loss is timed alone, forward and backward, at the batch size of a
recipe. Without a GPU the time is processor time.
"""

import argparse
import os
import platform
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import torch
from train import NUM_SPECIES, Work, make_batch, spread, timed, to_device_memory

from birdclef_core.config import LossName, OptimizerName, Recipe, StageConfig
from birdclef_core.models.detector import Detector
from birdclef_core.models.heads import Output
from birdclef_core.models.losses import batch_share_of_loss
from birdclef_core.recipes import RECIPES
from birdclef_core.stages.optimizers import build_optimizer
from birdclef_core.stages.precision import Arithmetic
from birdclef_core.stages.training_step import TrainingStep

CONTROL = "bce, adam"
AGAIN = "bce, adam again"


def step_of(recipe: Recipe, stage: StageConfig, device: torch.device) -> Work:
    """Return a call that trains a new model on the next of a few batches."""
    batches = [to_device_memory(make_batch(stage, seed), device) for seed in range(4)]
    model = Detector(recipe.model, NUM_SPECIES).to(device).train()
    model.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer(model, stage)
    step = TrainingStep(model, optimizer, stage, Arithmetic(stage.precision, device), device, on_note=print)
    numbers = iter(range(10**9))

    def work() -> None:
        number = next(numbers)
        step(batches[number % len(batches)], number)

    return work


def loss_of(stage: StageConfig, clips: int, species: int, device: torch.device) -> Callable[[], object]:
    """Return a call of a SED's loss and its gradient."""
    generator = torch.Generator().manual_seed(0)
    logits_BC, segments_BC = (torch.randn(clips, species, generator=generator).to(device).requires_grad_() for _ in range(2))
    target_BC = (torch.rand(clips, species, generator=generator) < 0.01).float().to(device)
    weight_B = torch.ones(clips, device=device)

    def work() -> None:
        output = Output(logits_BC, segments_BC, None)
        batch_share_of_loss(stage, output, target_BC, weight_B, weight_B.sum()).backward()

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=RECIPES, default="sed_seresnext26t")
    parser.add_argument("--batch", type=int, default=4, help="clips per batch of the steps (default 4)")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()}, {os.cpu_count()} cores"
    print(f"{name}, 1 thread; Python {platform.python_version()}, torch {torch.__version__}")
    recipe = RECIPES[options.recipe]()
    base = replace(recipe.stages[0], batch_size=options.batch, clips_per_epoch=None, loss="bce")
    losses: dict[str, dict[str, Any]] = {f"{loss}, adam": {"loss": loss} for loss in get_args(LossName)}
    optimizers = {f"bce, {kind}": {"optimizer": kind} for kind in get_args(OptimizerName)}
    cases = {CONTROL: {}, AGAIN: {}, **losses, **optimizers, "bce, adam, layer_decay": {"layer_decay": 0.8}}
    steps = {name: step_of(recipe, replace(base, **changes), device) for name, changes in cases.items()}
    for step in steps.values():
        step()
    rounds = [{name: timed(step, device) for name, step in steps.items()} for _ in range(options.repeats)]
    print(
        f"{options.recipe}, {options.batch} x {base.clip_s:g} s: seconds a step, ratios to the first row in each round, and of the least times"
    )
    least = {name: min(times[name] for times in rounds) for name in steps}
    for name in steps:
        ratios = [times[name] / times[CONTROL] for times in rounds]
        print(
            f"{name:<24} {spread([times[name] for times in rounds], 3)} s  {spread(ratios, 3)}  {least[name] / least[CONTROL]:.3f}"
        )
    print("forward and backward of the loss alone, milliseconds")
    for clips, species in ((96, 264), (96, 834), (1024, 264)):
        alone = {loss: loss_of(replace(base, loss=loss), clips, species, device) for loss in get_args(LossName)}
        milliseconds = {loss: 1000 * statistics.median(timed(work, device) for _ in range(7)) for loss, work in alone.items()}
        print(f"{clips:>5} x {species}:  " + "  ".join(f"{loss} {value:.1f}" for loss, value in milliseconds.items()))


if __name__ == "__main__":
    main()
