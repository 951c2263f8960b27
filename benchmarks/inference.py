"""Time inference with the networks of the recipes: a whole file our way and as the 2023 solution did it, and the networks alone.

Everything runs in one process, ways in turn, each several times, and the least CPU time and wall time of each counts. Weights are random:
times do not depend on them. Other work on the machine moves the times of all ways, so compare ratios. Networks are converted once and are kept
in `--work`. With `--way NAME`, one way runs once in a process of its own and prints its peak memory.
"""

import argparse
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import soundfile
import torch
import torchaudio
from torch.utils.flop_counter import FlopCounterMode

from birdclef_core.audio.spectrogram import frequency_deltas
from birdclef_core.config import SAMPLE_RATE_HZ, ModelConfig
from birdclef_core.inference.bundle.conversion import to_openvino
from birdclef_core.inference.bundle.writing import processor
from birdclef_core.inference.deployed import DeployedDetector, Member
from birdclef_core.inference.networks.network import Network, input_shape
from birdclef_core.inference.networks.openvino_runtime import HINTS, OpenVinoRuntime
from birdclef_core.inference.networks.torch_runtime import TorchRuntime
from birdclef_core.inference.procedure import SOLUTION_2023
from birdclef_core.inference.sound import SoundFile
from birdclef_core.models.detector import Detector
from birdclef_core.recipes import RECIPES

FOUR = {"sed_v2s": 0.30, "sed_b3ns": 0.26, "cnn_b3ns": 0.22, "cnn_v2s": 0.22}
SEVEN = {name: RECIPES[name]().ensemble_weight for name in RECIPES}
NUM_SPECIES = 264
FILE_S, WINDOW_S, SIDE_S = 600, 5, 2.5
WINDOWS = FILE_S // WINDOW_S
CROPS = {"cnn_b3ns": (150, 450), "cnn_v2s": (250, 750), "cnn_resnet34d": (128, 384), "cnn_b0ns": (128, 384)}
PRECISIONS = ("float32", "bfloat16")
FILES, LIMIT_MIN = 200, 120


@dataclass(frozen=True)
class Spent:
    """What some work took."""

    cpu_s: float
    wall_s: float


def model_of(name: str) -> ModelConfig:
    return RECIPES[name]().model


def detector_of(name: str) -> Detector:
    torch.manual_seed(0)
    return Detector(model_of(name), NUM_SPECIES).eval()


def network_file(name: str, work: Path) -> Path:
    """Return the network of a recipe in OpenVINO with weights in float32, converting it where it is not there yet."""
    path = work / f"{name}.xml"
    if not path.exists():
        mel_BKFN = torch.rand(2, *input_shape(model_of(name), SOLUTION_2023))
        to_openvino(Network(detector_of(name)), mel_BKFN, path, "float32")
    return path


def sound_file(work: Path) -> Path:
    """Return 10 minutes of noise as OGG Vorbis."""
    path = work / "sound.ogg"
    if not path.exists():
        generator = np.random.default_rng(0)
        with soundfile.SoundFile(path, "w", SAMPLE_RATE_HZ, 1, format="OGG", subtype="VORBIS") as file:
            for _ in range(FILE_S):
                file.write((0.1 * generator.standard_normal(SAMPLE_RATE_HZ)).astype(np.float32))
    return path


class Ours:
    """This project: shared spectrograms, 64 windows at a time, four on each core."""

    def __init__(self, weights: dict[str, float], precision: str, threads: int, work: Path) -> None:
        members = [
            Member(
                model_id=name,
                config=model_of(name),
                species=tuple(f"s{number:03}" for number in range(NUM_SPECIES)),
                runtime=OpenVinoRuntime(network_file(name, work), precision, threads),
                weight=weight,
            )
            for name, weight in weights.items()
        ]
        self._detector = DeployedDetector(tuple(members), SOLUTION_2023)

    def __call__(self, path: Path) -> np.ndarray:
        sound = SoundFile(path, self._detector.procedure)
        return np.concatenate([heard.logits_BC for _, heard in self._detector.hear_stream(sound.blocks())])


class Originals:
    """A re-creation of how the 2023 solution did it: for each model the spectrograms of all overlapping windows at once, with torchaudio,
    and its network in OpenVINO on all 120 windows at once, all threads in one stream. Its logits are those of this project.
    """

    def __init__(self, weights: dict[str, float], precision: str, threads: int, work: Path) -> None:
        self._weights = weights
        core = openvino.Core()
        settings = {"INFERENCE_PRECISION_HINT": HINTS[precision], "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        self._networks, self._spectrograms = {}, {}
        for name in weights:
            model = core.read_model(network_file(name, work))
            model.reshape([WINDOWS, *input_shape(model_of(name), SOLUTION_2023)])
            self._networks[name] = core.compile_model(model, "CPU", settings)
            spectrogram = model_of(name).spectrogram
            self._spectrograms[name] = torch.nn.Sequential(
                torchaudio.transforms.MelSpectrogram(
                    sample_rate=SAMPLE_RATE_HZ,
                    n_fft=spectrogram.n_fft,
                    hop_length=spectrogram.hop_length,
                    f_min=spectrogram.f_min_hz,
                    f_max=spectrogram.f_max_hz,
                    n_mels=spectrogram.num_mels,
                    center=True,
                    pad_mode="constant",
                    norm="slaney",
                    mel_scale="slaney",
                    power=2.0,
                )
            )

    def __call__(self, path: Path) -> np.ndarray:
        wave_T, _ = soundfile.read(path, dtype="float32")
        side = round(SIDE_S * SAMPLE_RATE_HZ)
        padded_T = np.concatenate([np.zeros(side, np.float32), wave_T[: FILE_S * SAMPLE_RATE_HZ], np.zeros(side, np.float32)])
        step, context = WINDOW_S * SAMPLE_RATE_HZ, WINDOW_S * SAMPLE_RATE_HZ + 2 * side
        wave_BT = torch.from_numpy(np.stack([padded_T[number * step : number * step + context] for number in range(WINDOWS)]))
        total_BC = np.zeros((WINDOWS, NUM_SPECIES))
        with torch.inference_mode():
            for name, weight in self._weights.items():
                total_BC += weight / sum(self._weights.values()) * self._logits(name, wave_BT)
        return total_BC

    def _logits(self, name: str, wave_BT: torch.Tensor) -> np.ndarray:
        config = model_of(name).spectrogram
        db_B1FN = torchaudio.functional.amplitude_to_DB(
            self._spectrograms[name](wave_BT).unsqueeze(1), multiplier=10.0, amin=1e-10, db_multiplier=0.0, top_db=80.0
        )
        db_BFN = db_B1FN.squeeze(1)
        if name in CROPS:
            db_BFN = db_BFN[:, :, slice(*CROPS[name])]
        mel_BFN = (db_BFN + 80) / 80 if config.db_scale == "unit" else db_BFN / 255
        channels = [mel_BFN]
        if config.deltas:
            channels += [frequency_deltas(mel_BFN), frequency_deltas(frequency_deltas(mel_BFN))]
        outputs = self._networks[name]([torch.stack(channels, dim=1).numpy()])
        if name in CROPS:
            return outputs[0].copy()
        segments_BSC = outputs[1]
        count = segments_BSC.shape[1]
        first, last, shift = int(count / 2 - count / 4), int(count / 2 - count / 4 + count / 2), -(-count // 8)
        parts = [segments_BSC[:, first + by : last + by].max(axis=1) for by in (0, -shift, shift)]
        probability = sum(share / (1 + np.exp(-part)) for share, part in zip((0.5, 0.25, 0.25), parts, strict=True))
        return np.log(probability / (1 - probability))


WAYS: dict[str, tuple[type, dict[str, float]]] = {
    "original, four models": (Originals, FOUR),
    "ours, four models": (Ours, FOUR),
    "ours, seven models": (Ours, SEVEN),
}


def spent(work: Callable[[], Any]) -> Spent:
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return Spent(time.process_time() - cpu, time.perf_counter() - wall)


def interleaved(works: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[Spent]]:
    """Return what each work took in each round: all of them one after the other, round by round."""
    found: dict[str, list[Spent]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            found[name].append(spent(work))
    return found


def line(name: str, found: list[Spent], control: list[Spent]) -> str:
    cpu, wall = min(item.cpu_s for item in found), min(item.wall_s for item in found)
    ratio = min(item.cpu_s for item in control) / cpu
    spread = max(item.cpu_s for item in found) / cpu
    return f"  {name:<30}{cpu:9.2f} s CPU{wall:9.2f} s{ratio:8.2f} x   (largest / least {spread:.2f})"


def time_file(arguments: argparse.Namespace, precision: str) -> None:
    path = sound_file(arguments.work)
    ways = {name: kind(weights, precision, arguments.threads, arguments.work) for name, (kind, weights) in WAYS.items()}
    four = [ways[name](path)[1 : WINDOWS - 1] for name in ("original, four models", "ours, four models")]
    print(
        f"\nA file of 10 minutes, {precision}, {arguments.threads} threads; the four models' logits differ by {np.abs(four[0] - four[1]).max():.2g}"
    )
    found = interleaved({name: (lambda way=way: way(path)) for name, way in ways.items()}, arguments.rounds)
    for name in WAYS:
        print(line(name, found[name], found["original, four models"]), flush=True)
    left = {name: min(item.wall_s for item in found[name]) * FILES / 60 for name in WAYS}
    print(f"  {FILES} files: " + "; ".join(f"{name} {minutes:.0f} of {LIMIT_MIN} minutes" for name, minutes in left.items()))


def matrix_gflops() -> float:
    """Return the billions of operations in float32 that a core does in a second at its best, which is in a product of matrices."""
    size, times = 1024, []
    matrix = torch.rand(size, size)
    for _ in range(50):
        times.append(spent(lambda: matrix @ matrix).cpu_s)
    return 2 * size**3 / min(times) / 1e9


def gflop_of(name: str) -> float:
    """Return the billions of operations of a network for a window."""
    network = Network(detector_of(name))  # which is run once as it is made
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.rand(1, *input_shape(model_of(name), SOLUTION_2023)))
    return float(counter.get_total_flops()) / 1e9


def time_networks(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    speed = matrix_gflops()
    print("\nNetworks alone, CPU ms a window of 10 s, one thread, 8 windows at a time")
    print(f"A product of matrices in float32 does {speed:.0f} GFLOP/s; `least`: what a network would take at that speed")
    print(f"  {'':<18}{'least':>9}{'torch':>9}{'OpenVINO float32':>24}{'bfloat16':>24}")
    sums = {"least": 0.0, "torch": 0.0, "float32": 0.0, "bfloat16": 0.0}
    for name in RECIPES:
        mel_BKFN = torch.rand(8, *input_shape(model_of(name), SOLUTION_2023))
        runtimes: dict[str, Any] = {"torch": TorchRuntime(detector_of(name), torch.device("cpu"))}
        for precision in PRECISIONS:
            runtimes[precision] = OpenVinoRuntime(network_file(name, arguments.work), precision, 1)
        runtimes["torch"](mel_BKFN)
        found = interleaved(
            {key: (lambda run=run, mel_BKFN=mel_BKFN: run(mel_BKFN)) for key, run in runtimes.items()}, arguments.rounds
        )
        ms = {key: 1000 * min(item.cpu_s for item in items) / len(mel_BKFN) for key, items in found.items()}
        ms["least"] = 1000 * gflop_of(name) / speed
        sums = {key: sums[key] + ms[key] for key in sums}
        print(
            f"  {name:<18}{ms['least']:9.1f}{ms['torch']:9.1f}"
            + "".join(f"{ms[p]:15.1f} ({ms['torch'] / ms[p]:4.1f} x)" for p in PRECISIONS),
            flush=True,
        )
    print(
        f"  {'sum':<18}{sums['least']:9.1f}{sums['torch']:9.1f}"
        + "".join(f"{sums[p]:15.1f} ({sums['torch'] / sums[p]:4.1f} x)" for p in PRECISIONS)
    )
    torch.set_num_threads(arguments.threads)


def time_streams(arguments: argparse.Namespace) -> None:
    """One stream a core against all cores in one stream, for the four models in float32."""
    runs: dict[str, Callable[[], Any]] = {}
    core = openvino.Core()
    for name, streams in (("one stream a core", 2), ("two threads in one stream", 1)):
        queues = []
        for model_name in FOUR:
            model = core.read_model(network_file(model_name, arguments.work))
            model.reshape([4, *input_shape(model_of(model_name), SOLUTION_2023)])
            settings = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": 2}
            queue = openvino.AsyncInferQueue(core.compile_model(model, "CPU", settings), streams)
            queues.append(
                (queue, np.random.default_rng(0).random((4, *input_shape(model_of(model_name), SOLUTION_2023)), np.float32))
            )

        def run(queues: list = queues) -> None:
            for queue, array in queues:
                for _ in range(4):
                    queue.start_async({0: array})
                queue.wait_all()

        run()
        runs[name] = run
    print("\nStreams, four networks in float32, two threads, CPU ms a window and model")
    for name, items in interleaved(runs, arguments.rounds).items():
        print(
            f"  {name:<30}{1000 * min(item.cpu_s for item in items) / 16 / 4:7.1f} CPU{1000 * min(item.wall_s for item in items) / 16 / 4:7.1f} wall"
        )


def time_starts(arguments: argparse.Namespace) -> None:
    print("\nLoading and compiling a network in OpenVINO, two streams, seconds (CPU, wall)")
    for precision in PRECISIONS:
        items = []
        for name in RECIPES:
            path = network_file(name, arguments.work)
            runs = [spent(lambda path=path, precision=precision: OpenVinoRuntime(path, precision, 2)) for _ in range(2)]
            items.append(min(runs, key=lambda item: item.cpu_s))
        mean = (np.mean([item.cpu_s for item in items]), np.mean([item.wall_s for item in items]))
        print(
            f"  {precision:<10} mean {mean[0]:.2f}, {mean[1]:.2f}; most {max(i.cpu_s for i in items):.2f}, {max(i.wall_s for i in items):.2f}"
        )


def measure_memory(arguments: argparse.Namespace) -> None:
    print("\nPeak resident memory, a process each, four models unless said")
    for precision in PRECISIONS:
        for name in WAYS:
            command = [
                sys.executable,
                __file__,
                "--way",
                name,
                "--precision",
                precision,
                "--work",
                str(arguments.work),
                "--threads",
                str(arguments.threads),
            ]
            result = subprocess.run(command, capture_output=True, text=True, check=True)
            print(f"  {precision:<10}{name:<30}{result.stdout.strip()}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("benchmark-inference"), help="folder for networks and sound")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=PRECISIONS, help="only this one, for the file")
    parser.add_argument("--way", choices=list(WAYS), help="run one way once and print its peak memory")
    parser.add_argument("--only", choices=("networks", "streams", "starts", "file", "memory"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    if arguments.way:
        kind, weights = WAYS[arguments.way]
        kind(weights, arguments.precision, arguments.threads, arguments.work)(sound_file(arguments.work))
        # Not `ru_maxrss`: a process inherits that of the one that started it.
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        print(f"{int(peak.split()[1]) / 2**20:.2f} GiB")
        return
    print(
        f"{processor()}, Python {platform.python_version()}, torch {torch.__version__}, OpenVINO {openvino.__version__}; load {Path('/proc/loadavg').read_text().split()[0]}"
    )
    for name in SEVEN:
        network_file(name, arguments.work)
    if arguments.only in (None, "networks"):
        time_networks(arguments)
    if arguments.only in (None, "streams"):
        time_streams(arguments)
    if arguments.only in (None, "starts"):
        time_starts(arguments)
    if arguments.only in (None, "file"):
        for precision in [arguments.precision] if arguments.precision else PRECISIONS:
            time_file(arguments, precision)
    if arguments.only in (None, "memory"):
        measure_memory(arguments)


if __name__ == "__main__":
    main()
