"""Which detector a command uses and where it runs: the options that such commands share, and loading it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from birdclef_core.errors import InputError
from sweeps.options import DEFAULT_STORAGE
from sweeps.wording import REFERENCE

if TYPE_CHECKING:  # torch takes seconds to import: --help is printed before that
    from birdclef_core.inference.run.predictor import Predictor

MODEL_HELP = f"{REFERENCE}; the path of an ensemble.json; or the folder of a bundle"


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a detector is loaded and where it runs. The detector itself is `arguments.model`."""
    parser.add_argument(
        "--procedure",
        metavar="NAME",
        help="how windows are cut and scored: default, or 2023 for that of the 2023 solution (default: that of the ensemble or bundle, else default)",
    )
    parser.add_argument(
        "--device", default="auto", metavar="auto|cpu|cuda", help="where it runs (default: a GPU if there is one)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="number of CPU threads (default: all cores)")
    parser.add_argument(
        "--storage",
        metavar="DIR|URI",
        help=f"the sweeps' --storage (default: the one that the ensemble names, else {DEFAULT_STORAGE})",
    )


def add_calibration_option(parser: argparse.ArgumentParser, what_for: str) -> None:
    """Add `--calibration`."""
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help=f"the calibration.json that birdclef calibrate made for this model, {what_for}",
    )


def load_model(
    arguments: argparse.Namespace, *, calibration: Path | None = None, names: Path | None = None, embeddings: bool = False
) -> "Predictor":
    """Return the detector that the arguments ask for, ready to predict.

    Raises InputError for a number of threads below 1, and as `load_detector` does.
    """
    if arguments.threads is not None and arguments.threads < 1:
        raise InputError(f"--threads >= 1 must hold, but got {arguments.threads}.")

    import torch

    from sweeps.deploy.loading import load_detector

    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    return load_detector(
        arguments.model,
        storage=arguments.storage,
        procedure=arguments.procedure,
        device=arguments.device,
        names=names,
        embeddings=embeddings,
        calibration=calibration,
    )
