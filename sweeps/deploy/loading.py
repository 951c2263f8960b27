"""Loads a stored stage as a detector that predicts files."""

from pathlib import Path

import torch

from birdclef_core.errors import InputError
from birdclef_core.inference.deployed import DeployedDetector, load_member
from birdclef_core.inference.procedure import Procedure, get_procedure
from birdclef_core.inference.run.predictor import Predictor
from sweeps.checkpoints.references import existing_storage, resolve, store_of
from sweeps.checkpoints.replay import whole_stage
from sweeps.deploy.names import names_in_file, names_of_stage
from sweeps.options import DEFAULT_STORAGE

BATCH_SIZE, BATCH_SIZE_ON_GPU = 16, 64
"""Windows that are heard at once. More take more memory and are not faster."""


def load_detector(
    reference: str,
    *,
    storage: str = DEFAULT_STORAGE,
    procedure: str | Procedure = "default",
    device: str = "auto",
    names: Path | str | None = None,
    embeddings: bool = False,
) -> Predictor:
    """Return the stage that a reference stands for, ready to predict files: `load_detector("NAME").predict("recordings/")`.

    `reference`: what commands call REF, such as the name of a sweep (the last stage of its best trial). `storage`: the `--storage` of
    the sweeps. `procedure`: a name of `PROCEDURES` or settings of your own. `device`: `cpu`, `cuda`, or `auto` for a GPU if there is
    one. `names`: a table with the names of species; by default those of the recordings that trained the stage, as far as they
    are still there. Raises InputError for a reference, procedure or device that does not exist, and StoreError for a damaged stage.
    """
    place = existing_storage(storage)
    store = store_of(place)
    entry = whole_stage(store, resolve(place, reference))
    chosen = device_of(device)
    detector = DeployedDetector(
        (load_member(entry, chosen),),
        get_procedure(procedure) if isinstance(procedure, str) else procedure,
        chosen,
        names_in_file(Path(names)) if names is not None else names_of_stage(place, entry.record),
    )
    return Predictor(detector, BATCH_SIZE_ON_GPU if chosen.type == "cuda" else BATCH_SIZE, embeddings)


def device_of(name: str) -> torch.device:
    """Return a device by its name. Raises InputError when this machine does not have it."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise InputError(f"--device must be auto, cpu or cuda, but got {name!r}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda needs a GPU that torch can use, but this machine has none: give --device cpu.")
    return torch.device(name)
