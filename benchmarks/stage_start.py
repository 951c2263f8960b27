"""Time a stage from its call to the end of its first step, in a process that has trained before: `python benchmarks/stage_start.py`.

The made-up data set has the size of the complete metadata (119,292 recordings of 834 species), the model is that of a recipe, and the
parent is in a local store. The first step is small (two clips of one second), so that nearly all of the time is the start.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from made_up_data import dataset_of, made_up_table
from numpy.typing import NDArray
from safetensors.torch import save_file

from birdclef_core.config import SAMPLE_RATE_HZ, Recipe
from birdclef_core.models.detector import Detector
from birdclef_core.models.encoders import RANDOM
from birdclef_core.recipes import RECIPES
from birdclef_core.stages.interruption import StageInterrupted
from birdclef_core.stages.task import StageTask
from birdclef_core.stages.training import train_stage
from birdclef_core.stages.training_data import TrainingData
from birdclef_core.store.stage_store import WEIGHTS, StageRecord, StageStore
from birdclef_core.store.storage import Storage
from birdclef_core.taxonomy import LabelSpace

NUM_RECORDINGS, NUM_SPECIES, NUM_TARGETS = 119_292, 834, 264
PARENT = "parent"


@dataclass(frozen=True)
class SilentCache:
    """A cache that has lengths of recordings but no audio."""

    recording_samples: NDArray[np.int64]
    noise_samples: NDArray[np.int64]

    def num_samples(self, row: int) -> int:
        return int(self.recording_samples[row])

    def read(self, row: int, start: int, count: int) -> NDArray[np.int16]:
        return np.zeros(count, np.int16)


def make_data() -> TrainingData:
    table = made_up_table(NUM_RECORDINGS, NUM_SPECIES)
    dataset = dataset_of(Path("made-up"), table)
    targets = LabelSpace.of("target", dataset.all_species.species[:NUM_TARGETS])
    lengths = (table["duration_s"].to_numpy() * SAMPLE_RATE_HZ).astype(np.int64)
    cache: Any = SilentCache(lengths, np.empty(0, np.int64))
    return TrainingData(dataset=replace(dataset, target_species=targets), cache=cache)


def publish_parent(recipe: Recipe, data: TrainingData, store: StageStore) -> None:
    model = Detector(recipe.model, NUM_SPECIES)
    record = StageRecord(
        stage_id=PARENT,
        parent_id=None,
        recipe=recipe.name,
        stage="pretrain_bce",
        identity={},
        species=list(data.dataset.all_species.species),
        metrics={},
        history=[],
        cost_s=0.0,
        surgery="",
        environment={},
        finished_at="",
    )
    with store.publish(lambda: record, PARENT) as folder:
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / WEIGHTS)


def start(recipe: Recipe, data: TrainingData, store: StageStore, parent_id: str | None) -> float:
    """Seconds of the clock until the first step is done."""
    stage = replace(recipe.stages[2], clip_s=5.0 if recipe.model.head == "cnn" else 1.0, batch_size=2)
    names: dict[str, Any] = {"recipe": recipe.name, "pretrained": RANDOM, "identity": {}}
    task = StageTask(stage_id=str(time.monotonic_ns()), parent_id=parent_id, model=recipe.model, config=stage, **names)
    done_at: list[float] = []
    started = time.perf_counter()

    def stop() -> str:
        done_at.append(time.perf_counter())
        return "that was the first step"

    try:
        next(train_stage(task, data, store, torch.device("cuda" if torch.cuda.is_available() else "cpu"), stop=stop))
    except StageInterrupted:
        store.drop_epoch_checkpoints(task.stage_id)
    return done_at[0] - started


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} s ({min(values):.2f} - {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=["sed_v2s", "sed_b3ns", "cnn_resnet34d"])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}, torch {torch.__version__}", flush=True
    )
    data = make_data()
    for name in options.recipes:
        recipe = RECIPES[name]()
        with tempfile.TemporaryDirectory() as folder:
            store = StageStore(Storage.parse(folder))
            publish_parent(recipe, data, store)
            first = start(recipe, data, store, PARENT)
            child = [start(recipe, data, store, PARENT) for _ in range(options.repeats)]
            fresh = [start(recipe, data, store, None) for _ in range(options.repeats)]
        print(f"{name:<15} first in a process {first:.2f} s   from a parent {spread(child)}   fresh {spread(fresh)}", flush=True)


if __name__ == "__main__":
    main()
