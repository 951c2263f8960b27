"""Teacher predictions against the bare encoder: what everything around the network costs.

A stage of predictions reads decoded sound, makes spectrograms, runs encoder and head, and publishes logits. The control runs the
encoder alone on spectrograms that are ready, in the same batches, for as many windows. Both are run in turn; the least of the rounds counts.

    python benchmarks/teacher.py --recipe sed_v2s --minutes 5
"""

import argparse
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.data.cache import build_cache, build_unlabelled_cache
from birdclef_core.data.dataset import load_dataset
from birdclef_core.identity import canonical
from birdclef_core.models.detector import Detector
from birdclef_core.models.encoders import RANDOM
from birdclef_core.recipes import get_recipe, predictions
from birdclef_core.stages.precision import Arithmetic
from birdclef_core.stages.task import StageTask
from birdclef_core.stages.teachers.predicting import CPU_BATCH_SIZE, predict_stage
from birdclef_core.stages.training_data import TrainingData
from birdclef_core.store.stage_store import WEIGHTS, StageRecord, StageStore
from birdclef_core.store.storage import Storage

FILE_S = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="sed_v2s")
    parser.add_argument("--minutes", type=int, default=5, help="minutes of soundscapes")
    parser.add_argument("--window-s", type=float, default=5.0)
    parser.add_argument("--species", type=int, default=264)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {options.threads} threads"
    print(f"{options.recipe}, {options.precision}, {name}, torch {torch.__version__}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        run(options, Path(folder), device)


def run(options: argparse.Namespace, folder: Path, device: torch.device) -> None:
    """Hear all minutes and a fifth of them in each round: the difference has no start and no end in it, as in many hours of sound."""
    lengths = (options.minutes, options.minutes // 5)
    data = {minutes: make_data(folder / str(minutes), minutes, options.species) for minutes in lengths}
    recipe = get_recipe(options.recipe)
    model = Detector(recipe.model, options.species).eval()
    store = StageStore(Storage.parse(str(folder / "store")))
    publish_teacher(store, recipe.name, model)
    config = predictions("labels", of="teacher", window_s=options.window_s, precision=options.precision)
    batch_size = CPU_BATCH_SIZE if device.type == "cpu" else config.evaluation_batch_size
    ours: dict[int, list[tuple[float, float]]] = {minutes: [] for minutes in lengths}
    bare: dict[int, list[tuple[float, float]]] = {minutes: [] for minutes in lengths}
    for number in range(options.rounds):
        for minutes in lengths:
            task = StageTask(
                stage_id=f"labels{minutes}-{number}",
                parent_id="teacher",
                recipe=recipe.name,
                model=recipe.model,
                config=config,
                pretrained=RANDOM,
                identity={"model": {}, "stage": {}, "parent": "teacher"},
                teachers=(("teacher", 1.0),),
            )
            began = clocks()
            list(predict_stage(task, data[minutes], store, device))
            ours[minutes].append(since(began))
            windows = int(minutes * 60 // options.window_s)
            arithmetic = Arithmetic(config.precision, device)
            bare[minutes].append(encoder_s(model, windows, config.clip_samples, batch_size, arithmetic, device))
            told = ", ".join(
                f"{what} {wall:.2f} s ({cpu:.2f} s of CPU)"
                for what, (wall, cpu) in (("predictions", ours[minutes][-1]), ("bare encoder", bare[minutes][-1]))
            )
            print(f"  round {number + 1}, {minutes} minutes: {told}", flush=True)
    most, few = lengths
    tell(f"{most} minutes", least(ours[most]), least(bare[most]))
    longer = [least(times[most]) - least(times[few]) for times in (ours, bare)]
    tell("without start and end", *longer)
    print(f"1,000 minutes take {1000 * longer[0][0] / (most - few) / 60:.1f} minutes")


def least(times: list[tuple[float, float]]) -> np.ndarray:
    """The least wall and CPU seconds of several runs."""
    return np.min(times, axis=0)


def tell(what: str, ours: np.ndarray, bare: np.ndarray) -> None:
    wall, cpu = ours / bare
    print(f"{what}: {wall:.3f} x the bare encoder in wall time, {cpu:.3f} x in CPU time")


def make_data(folder: Path, minutes: int, num_species: int) -> TrainingData:
    """Noise as soundscapes, and one short recording a species, of two authors so that a fold can be made."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(8):
        path = folder / "data" / "train_audio" / f"s{number}" / "a.wav"
        path.parent.mkdir(parents=True)
        soundfile.write(path, generator.normal(0, 0.1, 3200), SAMPLE_RATE_HZ)
        rows.append((f"s{number % 2}", "[]", f"s{number}/a.wav", f"author {number}", 4.0))
    columns = ["primary_label", "secondary_labels", "filename", "author", "rating"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "data" / "train.csv", index=False)
    (folder / "data" / "unlabelled_soundscapes").mkdir()
    for number in range(minutes):
        wave_T = generator.normal(0, 0.1, FILE_S * SAMPLE_RATE_HZ).astype(np.float32)
        soundfile.write(folder / "data" / "unlabelled_soundscapes" / f"{number:04d}.flac", wave_T, SAMPLE_RATE_HZ)
    dataset = load_dataset(folder / "data")
    assert dataset.unlabelled is not None
    cache = build_unlabelled_cache(dataset.unlabelled, folder / "cache")
    return TrainingData(dataset=dataset, cache=build_cache(dataset, folder / "cache"), make_unlabelled_cache=lambda _: cache)


def publish_teacher(store: StageStore, recipe: str, model: Detector) -> None:
    from safetensors.torch import save_file

    record = StageRecord(
        stage_id="teacher",
        parent_id=None,
        recipe=recipe,
        stage="train_bce",
        identity={"model": canonical(model.config), "stage": {"loss": "bce"}},
        species=[f"s{number:03d}" for number in range(num_classes(model))],
        metrics={},
        history=[],
        cost_s=0.0,
        surgery="",
        environment={},
        finished_at="",
    )
    with store.publish(lambda: record, "teacher") as folder:
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / WEIGHTS)


def num_classes(model: Detector) -> int:
    with torch.inference_mode():
        return model(model.spectrograms(torch.zeros(1, 5 * SAMPLE_RATE_HZ))).logits_BC.shape[1]


@torch.inference_mode()
def encoder_s(
    model: Detector, windows: int, clip_samples: int, batch_size: int, arithmetic: Arithmetic, device: torch.device
) -> tuple[float, float]:
    """Wall and CPU seconds of the encoder alone, on spectrograms that are ready."""
    encoder = model.encoder.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    wave_BT = 0.1 * torch.randn(min(batch_size, windows), clip_samples)
    mel_BKFN = model.spectrograms(wave_BT).to(device)
    if device.type == "cuda":
        torch.cuda.synchronize()
    began, done = clocks(), 0
    while done < windows:
        count = min(len(mel_BKFN), windows - done)
        with arithmetic.autocast():
            encoder(mel_BKFN[:count])
        done += count
    if device.type == "cuda":
        torch.cuda.synchronize()
    return since(began)


def clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def since(began: tuple[float, float]) -> tuple[float, float]:
    """Wall and CPU seconds since then."""
    wall, cpu = clocks()
    return wall - began[0], cpu - began[1]


if __name__ == "__main__":
    main()
