"""Show which kinds of stages two versions of the code train to the same bits: `python benchmarks/equal_code.py OTHER_CHECKOUT`.

Both versions train one small stage of each kind on the same made-up recordings, each in a process of its own with one thread: SED and CNN,
cross-entropy and binary cross-entropy, all species and target species (started from the stage on all species), encoder frozen or not, and
one stage with micro-batches, clipped gradients and averaged weights. All other settings have their defaults. Weights and scores are compared by their
sha256. The exit status is 1 when a kind differs. It takes about two minutes on one core.

Git makes a checkout of an older commit: `git worktree add /tmp/older COMMIT`.
"""

import argparse
import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile

RATE_HZ = 32_000
PITCHES_HZ = {"low": 1000, "mid": 3000, "top": 9000}
TARGETS = ("low", "top")
AUTHORS = 4
SECONDS = 6


def make_data(root: Path) -> None:
    """Write a data folder: three species of different pitch, by four authors each, and a file of background noise."""
    rng = np.random.default_rng(0)
    rows = []
    for species, pitch_hz in PITCHES_HZ.items():
        for number in range(AUTHORS):
            time_T = np.arange(SECONDS * RATE_HZ) / RATE_HZ
            wave_T = 0.3 * np.sin(2 * np.pi * pitch_hz * time_T) + 0.02 * rng.standard_normal(len(time_T))
            write_wave(root / "train_audio" / species / f"{species}{number}.wav", wave_T)
            secondary = "['low']" if species == "mid" and number < 2 else "[]"
            rows.append((species, secondary, f"{species}/{species}{number}.wav", f"Author {number}", 2.0 + number))
    write_wave(root / "background_noise" / "wind" / "wind.wav", 0.1 * rng.standard_normal(SECONDS * RATE_HZ))
    table = pd.DataFrame(rows, columns=["primary_label", "secondary_labels", "filename", "author", "rating"])
    table.to_csv(root / "train.csv", index=False)
    (root / "target_species.txt").write_text("\n".join(TARGETS) + "\n")


def write_wave(path: Path, wave_T: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave_T.astype(np.float32), RATE_HZ)


def train_kinds(data_root: Path, folder: Path) -> dict[str, str]:
    """Train a stage of each kind with the code that Python finds, and return the sha256 of its weights by the name of the kind.

    It uses only what both versions have.
    """
    import torch

    from birdclef_core.config import ModelConfig, SpectrogramConfig, StageConfig
    from birdclef_core.data.cache import build_cache
    from birdclef_core.data.dataset import load_dataset
    from birdclef_core.models.encoders import RANDOM
    from birdclef_core.stages.training import StageTask, TrainingData, train_stage
    from birdclef_core.store.stage_store import StageStore
    from birdclef_core.store.storage import Storage

    torch.set_num_threads(1)
    dataset = load_dataset(data_root)
    data = TrainingData(dataset=dataset, cache=build_cache(dataset, folder / "cache"))
    store = StageStore(Storage.parse(str(folder / "store")))
    spectrogram = SpectrogramConfig(num_mels=32, n_fft=1024, hop_length=500, deltas=False)
    found: dict[str, str] = {}

    def train(kind: str, parent: str | None, head: Any, loss: Any, space: Any, **changes: Any) -> None:
        name: Any = f"{'pretrain' if space == 'all' else 'train'}_{loss}"
        config = StageConfig(
            name=name,
            label_space=space,
            loss=loss,
            epochs=2,
            learning_rate=3e-3,
            clip_s=5.0,
            batch_size=4,
            clips_per_epoch=8,
            seed=len(found),
            **changes,
        )
        task = StageTask(
            stage_id=kind,
            parent_id=parent,
            recipe="equal_code",
            model=ModelConfig(head=head, encoder="mobilenetv3_small_050", spectrogram=spectrogram),
            config=config,
            pretrained=RANDOM,
            identity={},
        )
        for _ in train_stage(task, data, store, torch.device("cpu")):
            pass
        entry = store.open(kind)
        assert entry is not None
        digest = hashlib.sha256()
        for key, tensor in sorted(entry.weights().items()):
            digest.update(key.encode() + tensor.contiguous().numpy().tobytes())
        digest.update(json.dumps(entry.record.metrics, sort_keys=True).encode())
        found[kind] = digest.hexdigest()

    for space, head, loss, frozen in itertools.product(("all", "target"), ("sed", "cnn"), ("ce", "bce"), (False, True)):
        kind = f"{head}-{loss}-{space}{'-frozen' if frozen else ''}"
        train(kind, f"{head}-{loss}-all" if space == "target" else None, head, loss, space, freeze_encoder=frozen)
    more: dict[str, Any] = {"micro_batch_size": 2, "clip_gradient_norm": 1.0, "ema_decay": 0.9}
    train("sed-bce-target-averaged", "sed-bce-all", "sed", "bce", "target", **more)
    return found


def hashes_of(checkout: Path, data_root: Path, folder: Path) -> dict[str, str]:
    """Train each kind with the code of a checkout, in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--train", str(data_root), str(folder), str(checkout)]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=checkout, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"Training with the code of {checkout} failed: its error is above.")
    return json.loads(done.stdout.splitlines()[-1])


def run_training(data_root: Path, folder: Path, checkout: Path) -> None:
    """Print the hashes as JSON. Stops when Python finds the code of another checkout."""
    import birdclef_core

    found = Path(str(birdclef_core.__file__)).resolve()
    if not found.is_relative_to(checkout.resolve()):
        raise SystemExit(f"The code must be that of {checkout}, but is {found}.")
    print(json.dumps(train_kinds(data_root, folder)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, nargs="?", help="a checkout of the other version of the code")
    parser.add_argument("--train", type=Path, nargs=3, metavar=("DATA", "FOLDER", "CHECKOUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        run_training(*options.train)
        return
    if options.other is None or not (options.other / "birdclef_core").is_dir():
        parser.error(f"OTHER must be a checkout with a folder birdclef_core, but is {options.other}.")
    own = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as place:
        make_data(Path(place, "data"))
        this, other = (
            hashes_of(checkout.resolve(), Path(place, "data"), Path(place, name))
            for name, checkout in (("this", own), ("other", options.other))
        )
    for kind, digest in this.items():
        print(f"{kind:<26} {'the same' if other[kind] == digest else 'DIFFERENT'}  {digest[:16]}  {other[kind][:16]}")
    differing = [kind for kind in this if this[kind] != other[kind]]
    print(f"{len(this) - len(differing)} of {len(this)} kinds are trained to the same bits.")
    raise SystemExit(1 if differing else 0)


if __name__ == "__main__":
    main()
