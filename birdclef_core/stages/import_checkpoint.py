"""Imports a checkpoint that was trained elsewhere into the store, so that trials can start from it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from birdclef_core.config import ModelConfig, StageName
from birdclef_core.errors import InputError
from birdclef_core.identity import canonical, file_sha256, fingerprint
from birdclef_core.models.detector import Detector
from birdclef_core.stages.surgery import label_axes
from birdclef_core.store.stage_store import WEIGHTS, StageRecord, StageStore
from birdclef_core.store.summary import IMPORTED
from birdclef_core.taxonomy import LabelSpace

SHOWN_KEYS = 4
"""An error names this many entries."""


def import_checkpoint(
    store: StageStore, path: Path, *, recipe: str, model: ModelConfig, stage: StageName, classes: Sequence[str]
) -> str:
    """Publish the weights in `path` (safetensors, or a state dict of torch) as a completed stage, and return its id.

    `classes`: species codes in the order of the head's classes; the head is sorted into the order of label spaces. The id depends on
    the file's content, the model and the classes, so a second import changes nothing. Raises InputError when the file is not a state
    dict, or its entries are not finite or not those of the model with this number of classes.
    """
    if len(set(classes)) != len(classes):
        raise InputError(
            f"The species of a checkpoint must be its classes, each named once, but {len(classes)} lines name {len(set(classes))} species."
        )
    species = LabelSpace.of("imported", classes)
    weights = _read(path)
    _check(weights, model, len(species), path)
    identity = {
        "model": canonical(model),
        "stage": {"name": stage},
        "label_space": fingerprint(list(classes)),
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
        save_file(_in_order(weights, model, classes, species), folder / WEIGHTS)
    return stage_id


def _read(path: Path) -> dict[str, Tensor]:
    """The state dict in a file; a pickle is read without running code in it."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # every format raises other errors
        reason = str(error).splitlines()[0].split(". ")[0] if str(error) else type(error).__name__
        raise InputError(
            f"A checkpoint must be safetensors or a state dict of torch, but {path} cannot be read as one ({reason})."
        ) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(f"A checkpoint must be a state dict (names and tensors), but {path} holds something else.")
    return loaded


def _in_order(
    weights: Mapping[str, Tensor], model: ModelConfig, classes: Sequence[str], species: LabelSpace
) -> dict[str, Tensor]:
    """The weights with the head's rows in the order of the label space."""
    axes = label_axes(partial(Detector, model))
    rows = torch.tensor([list(classes).index(code) for code in species.species])
    return {
        name: (tensor.index_select(axes[name], rows) if name in axes else tensor).contiguous() for name, tensor in weights.items()
    }


def _check(weights: Mapping[str, Tensor], model: ModelConfig, num_classes: int, path: Path) -> None:
    with torch.device("meta"):
        expected = Detector(model, num_classes).state_dict()
    problems = [f"{name} is missing" for name in expected if name not in weights]
    problems += [f"{name} is not one of the model's" for name in weights if name not in expected]
    for name, tensor in expected.items():
        if name in weights and weights[name].shape != tensor.shape:
            problems.append(f"{name} is {tuple(weights[name].shape)} and must be {tuple(tensor.shape)}")
        elif name in weights and not bool(torch.isfinite(weights[name]).all()):
            problems.append(f"{name} is not finite")
    if problems:
        raise InputError(
            f"{path} must hold finite weights of {model.head} on {model.encoder} for {num_classes} species, but {len(problems)} "
            f"entries do not fit: {'; '.join(problems[:SHOWN_KEYS])}."
        )
