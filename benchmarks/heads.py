"""A trial that trains a head alone, on embeddings of 10,000 recordings: `python benchmarks/heads.py`.

Embeddings are random numbers (six windows a recording), so that the time is measured and nothing is learnt. The control is the pass over
all embeddings that no such trial can save: each is turned into float32 once an epoch, and multiplied with a matrix.
"""

import argparse
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from made_up_data import dataset_of, made_up_table

from birdclef_core.config import ModelConfig, StageConfig
from birdclef_core.models.encoders import RANDOM
from birdclef_core.stages.embeddings.head import train_head
from birdclef_core.stages.embeddings.stored import Embeddings
from birdclef_core.stages.task import StageTask
from birdclef_core.stages.training_data import TrainingData
from birdclef_core.store.stage_store import StageRecord, StageStore
from birdclef_core.store.storage import Storage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=10_000)
    parser.add_argument("--windows", type=int, default=6, help="windows of a recording")
    parser.add_argument("--numbers", type=int, default=1280, help="numbers of an embedding")
    parser.add_argument("--species", type=int, default=264)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}")
    dataset = dataset_of(Path(), made_up_table(options.recordings, options.species))
    count = options.recordings * options.windows
    made = Embeddings(
        row_W=np.repeat(np.arange(options.recordings), options.windows),
        start_W=np.tile(np.arange(options.windows) * 160_000, options.recordings),
        embedding_WD=np.random.default_rng(0).standard_normal((count, options.numbers)).astype(np.float16),
        scored_WD=np.zeros((0, options.numbers), np.float16),
    )
    with tempfile.TemporaryDirectory() as folder:
        store = StageStore(Storage.parse(folder))
        with store.publish(lambda: _record(), "embeddings") as place:
            made.save(place)
        data = TrainingData(dataset=dataset, cache=_NoSound())  # type: ignore[arg-type]
        for hidden in (0, 512):
            ours, control = [], []
            for number in range(options.rounds):
                started = time.perf_counter()
                rates = [
                    epoch.clips_per_s for epoch in train_head(_task(options, hidden, number), data, store, torch.device("cpu"))
                ]
                ours.append(time.perf_counter() - started)
                started = time.perf_counter()
                _bare(made, options, hidden)
                control.append(time.perf_counter() - started)
            print(
                f"hidden {hidden}: a trial of {options.epochs} epochs takes {min(ours):.1f} s (at most {max(ours):.1f}), "
                f"{min(ours) / min(control):.2f} x the bare passes ({min(control):.1f} s); {min(rates):,.0f} to {max(rates):,.0f} clips/s in training"
            )


class _NoSound:
    """A cache of recordings that could not be decoded, of which reports show silence."""

    def num_samples(self, row: int) -> int:
        return 0


def _task(options: argparse.Namespace, hidden: int, number: int) -> StageTask:
    config = StageConfig(
        name="head",
        label_space="target",
        loss="bce",
        epochs=options.epochs,
        learning_rate=1e-3,
        clip_s=5.0,
        batch_size=128,
        seed=number,
        embeddings="embeddings",
        head_hidden=hidden,
    )
    return StageTask(
        stage_id=f"head-{hidden}-{number}",
        parent_id=None,
        recipe="heads",
        model=ModelConfig(),
        config=config,
        pretrained=RANDOM,
        identity={"model": {"encoder": ""}, "stage": {}, "embeddings": "embeddings"},
        embeddings_id="embeddings",
    )


def _bare(made: Embeddings, options: argparse.Namespace, hidden: int) -> None:
    """As many clips as the epochs have, and the scored windows, through the first matrix of the head."""
    matrix = torch.randn(options.numbers, hidden or options.species)
    rng = np.random.default_rng(0)
    with torch.inference_mode():
        for _ in range(options.epochs * (options.recordings * 4 // 5) // 128):
            rows = rng.integers(0, len(made.embedding_WD), 128)
            torch.from_numpy(made.embedding_WD[rows].astype(np.float32)) @ matrix
        for _ in range(options.epochs):
            torch.from_numpy(made.embedding_WD[: len(made.embedding_WD) // 5]).float() @ matrix


def _record() -> StageRecord:
    return StageRecord(
        stage_id="embeddings",
        parent_id=None,
        recipe="heads",
        stage="embed",
        identity={"model": {}, "stage": {"embeds": "onnx"}},
        species=[],
        metrics={},
        history=[],
        cost_s=0.0,
        surgery="",
        environment={},
        finished_at="",
    )


if __name__ == "__main__":
    main()
