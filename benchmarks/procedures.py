"""Score stages on labelled soundscapes by several procedures: how much is heard around a window, and how outputs become a score.

The control is what stages are scored by in training: 5 s alone, and a SED's clip output. Differences to it have a standard error, by a
jackknife over files. Logits are kept in the store, so a second run prints at once.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from birdclef_core.data.dataset import load_dataset
from birdclef_core.errors import InputError
from birdclef_core.evaluation.metrics import summarise
from birdclef_core.inference.deployed import DeployedDetector
from birdclef_core.inference.logits import deployed_logits
from birdclef_core.inference.procedure import SOLUTION_2023, Procedure
from birdclef_core.inference.stored import load_member
from birdclef_core.taxonomy import LabelSpace
from sweeps.checkpoints.references import existing_storage, resolve, store_of
from sweeps.checkpoints.replay import whole_stage
from sweeps.execution.audio_cache import AudioCache
from sweeps.options import DEFAULT_CACHE, DEFAULT_STORAGE

CONTROL = "5 s alone, clip"
PROCEDURES = {
    CONTROL: Procedure(context_s=5.0, pool="clip"),
    "5 s alone, frames": Procedure(context_s=5.0, side_weight=0.0),
    "7.5 s, frames": Procedure(context_s=7.5, side_weight=0.0),
    "10 s, frames": Procedure(context_s=10.0, side_weight=0.0),
    "10 s, frames, shifts": Procedure(context_s=10.0, side_weight=0.25),
    "10 s, clip": Procedure(context_s=10.0, pool="clip"),
    "15 s, frames": Procedure(context_s=15.0, side_weight=0.0),
    "15 s, frames, shifts": Procedure(context_s=15.0, side_weight=0.25, shift_share=1 / 12),
    "2023": SOLUTION_2023,
}
FOR_CNN = ("5 s alone, clip", "7.5 s, frames", "10 s, frames", "15 s, frames")
"""What differs for a CNN, which has no segments."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("references", nargs="+", metavar="REF")
    parser.add_argument("--data", type=Path, required=True, help="a data folder with labelled soundscapes")
    parser.add_argument("--storage", default=DEFAULT_STORAGE)
    parser.add_argument("--cache-dir", type=Path, default=Path(DEFAULT_CACHE))
    arguments = parser.parse_args()
    dataset = load_dataset(arguments.data)
    if dataset.soundscapes is None:
        raise InputError(f"{arguments.data} must have labelled soundscapes.")
    cache = AudioCache(folder=arguments.cache_dir.expanduser().resolve())
    data, fingerprint = cache.build(dataset), cache.data_fingerprint(dataset)
    file_R = dataset.soundscapes.windows["file"].to_numpy()
    storage = existing_storage(arguments.storage)
    store = store_of(storage)
    for reference in arguments.references:
        entry = whole_stage(store, resolve(storage, reference))
        member = load_member(entry, torch.device("cpu"))
        truth_RC = dataset.soundscapes.truth(LabelSpace.of("deployed", member.species))
        print(f"\n{reference}: {entry.record.recipe}, {entry.record.stage}; {len(truth_RC)} windows of {file_R.max() + 1} files")
        print(f"  {'':<24}{'cmAP':>8}{'padded':>8}{'AUROC':>8}   cmAP against the control")
        control_RC = None
        for name in PROCEDURES if member.config.head == "sed" else FOR_CNN:
            detector = DeployedDetector((member,), PROCEDURES[name])
            logits_RC = deployed_logits(store, detector, data, fingerprint).soundscapes_RC.astype(np.float64)
            score_RC = 1 / (1 + np.exp(-logits_RC))
            control_RC = score_RC if control_RC is None else control_RC
            figures = summarise(truth_RC, score_RC)
            difference = gain(truth_RC, score_RC, control_RC)
            error = jackknife_error(truth_RC, score_RC, control_RC, file_R)
            print(
                f"  {name:<24}{figures['cmap']:8.4f}{figures['cmap_pad5']:8.4f}{figures['auroc']:8.4f}   {difference:+.4f} ± {error:.4f}",
                flush=True,
            )


def gain(truth_RC: np.ndarray, score_RC: np.ndarray, control_RC: np.ndarray) -> float:
    """Return by how much the cmAP of scores is above that of the control."""
    return summarise(truth_RC, score_RC)["cmap"] - summarise(truth_RC, control_RC)["cmap"]


def jackknife_error(truth_RC: np.ndarray, score_RC: np.ndarray, control_RC: np.ndarray, file_R: np.ndarray) -> float:
    """Return the standard error of the gain: how much it varies with the file that is left out."""
    files = np.unique(file_R)
    gains = np.array([gain(truth_RC[rest], score_RC[rest], control_RC[rest]) for rest in (file_R != file for file in files)])
    return float(np.sqrt((len(files) - 1) * np.mean((gains - gains.mean()) ** 2)))


if __name__ == "__main__":
    main()
