"""Takes a checkpoint that was trained elsewhere into the store, so that trials can start from it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from birdclef_core.config import ModelConfig, StageName
from birdclef_core.errors import InputError
from birdclef_core.identity import canonical, file_sha256, fingerprint
from birdclef_core.models.detector import Detector
from birdclef_core.stages.store import WEIGHTS, StageRecord, StageStore
from birdclef_core.taxonomy import LabelSpace

IMPORTED = "imported"
SHOWN_KEYS = 5


def import_checkpoint(
    store: StageStore, path: Path, *, recipe: str, model: ModelConfig, stage: StageName, species: LabelSpace
) -> str:
    """Publishes the weights in `path` (safetensors, or a state dict of torch) as the end of a stage; gives its id.

    The id follows from the file's content, the model and the species: importing twice is importing once. Raises InputError when
    the file is no state dict or its entries are not those of the model with so many species.
    """
    weights = _read(path)
    _check(weights, model, species, path)
    identity = {
        "model": canonical(model),
        "stage": {"name": stage},
        "label_space": species.fingerprint,
        "data": IMPORTED,
        "parent": f"{IMPORTED}:{file_sha256(path)}",
        "code": IMPORTED,
    }
    stage_id = fingerprint(identity)
    record = StageRecord(
        stage_id=stage_id,
        parent_id=None,
        recipe=recipe,
        stage=stage,
        identity=identity,
        species=list(species.species),
        metrics={},
        history=[],
        cost_s=0.0,
        surgery=f"imported from {path.name}",
        environment={},
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    with store.publish(lambda: record, stage_id) as folder:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / WEIGHTS)
    return stage_id


def _read(path: Path) -> dict[str, Tensor]:
    """A state dict; a pickle is read without running what is in it."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has errors of its own
        raise InputError(
            f"A checkpoint must be safetensors or a state dict of torch, but {path} cannot be read: {error}"
        ) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(f"A checkpoint must be a state dict (names and tensors), but {path} holds something else.")
    return loaded


def _check(weights: Mapping[str, Tensor], model: ModelConfig, species: LabelSpace, path: Path) -> None:
    expected = Detector(model, len(species)).state_dict()
    problems = [f"{name} is missing" for name in expected if name not in weights]
    problems += [f"{name} is not one of the model's" for name in weights if name not in expected]
    problems += [
        f"{name} is {tuple(weights[name].shape)} and must be {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if problems:
        raise InputError(
            f"{path} must hold the weights of {model.head} on {model.encoder} for {len(species)} species, but {len(problems)} "
            f"entries differ: {'; '.join(problems[:SHOWN_KEYS])}."
        )
