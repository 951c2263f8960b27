"""Imports a checkpoint that was trained elsewhere into the store, so that trials can start from it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from birdclef_core.config import ModelConfig, check_stage_name
from birdclef_core.errors import InputError
from birdclef_core.identity import canonical, file_sha256, fingerprint
from birdclef_core.models.detector import Detector
from birdclef_core.stages.layouts import Layout, layout_of
from birdclef_core.stages.surgery import label_axes
from birdclef_core.store.stage_store import WEIGHTS, StageRecord, StageStore
from birdclef_core.store.summary import IMPORTED
from birdclef_core.taxonomy import LabelSpace

SHOWN_KEYS = 4
"""An error names this many entries."""


@dataclass(frozen=True, kw_only=True)
class ImportedStage:
    """A stage that was made from a checkpoint, and what was taken from it."""

    stage_id: str
    layout: str
    """Whose names the entries of the checkpoint have."""
    num_taken: int
    """Number of entries that were taken, which are all of the model's."""
    not_needed: Mapping[str, str]
    """Entries of the checkpoint that were not taken, with the reason."""

    def summary(self) -> str:
        """Return what was taken and what was not, in one line."""
        taken = f"{self.num_taken} entries named as in {self.layout}"
        reasons: dict[str, list[str]] = {}
        for name, reason in self.not_needed.items():
            reasons.setdefault(reason, []).append(name)
        left = "; ".join(f"{len(names)} not needed ({reason}): {_some(names)}" for reason, names in reasons.items())
        return f"{taken}; {left}" if left else taken


def import_checkpoint(
    store: StageStore, path: Path, *, recipe: str, model: ModelConfig, stage: str, classes: Sequence[str]
) -> ImportedStage:
    """Publish the weights in `path` (safetensors, or a state dict of torch) as a completed stage.

    The entries have the names of this project, or of the 2023 solution (`layouts.py`). `classes`: species codes in the order of the
    head's classes; the head is sorted into the order of label spaces. The id depends on the file's content, the model and the classes,
    so a second import changes nothing. Raises InputError when the file is not a state dict, when an entry of the model is missing, not
    finite or of another shape, and when there are entries that have no place in the model.
    """
    check_stage_name(stage)
    if len(set(classes)) != len(classes):
        raise InputError(
            f"The species of a checkpoint must be its classes, each named once, but {len(classes)} lines name {len(set(classes))} species."
        )
    species = LabelSpace.of("imported", classes)
    entries = _read(path)
    with torch.device("meta"):
        empty = Detector(model, len(species))
    layout = layout_of(entries.keys(), empty)
    weights = _take(entries, empty, layout, len(species), path)
    identity = {
        "model": canonical(model),
        "stage": {"name": stage},
        "label_space": fingerprint(list(classes)),
        "data": IMPORTED,
        "parent": f"{IMPORTED}:{file_sha256(path)}",
        "code": IMPORTED,
    }
    imported = ImportedStage(
        stage_id=fingerprint(identity),
        layout=layout.title,
        num_taken=len(weights),
        not_needed={name: reason for name in entries if (reason := layout.reason(name)) is not None},
    )
    record = StageRecord(
        stage_id=imported.stage_id,
        parent_id=None,
        recipe=recipe,
        stage=stage,
        identity=identity,
        species=list(species.species),
        metrics={},
        history=[],
        cost_s=0.0,
        surgery=f"imported from {path.name}: {imported.summary()}",
        environment={},
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    with store.publish(lambda: record, imported.stage_id) as folder:
        save_file(_in_order(weights, model, classes, species), folder / WEIGHTS)
    return imported


def _read(path: Path) -> dict[str, Tensor]:
    """The state dict in a file; a pickle is read without running code in it."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # every format raises other errors
        if other := re.search(r"Unsupported global: GLOBAL (\S+)", str(error)):
            raise InputError(
                f"A checkpoint must hold only tensors and plain values, because nothing else is unpickled, but {path} has {other[1]}. If "
                "you trust it, save its weights alone: torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'weights.pt')."
            ) from error
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


def _take(entries: Mapping[str, Tensor], empty: Detector, layout: Layout, num_classes: int, path: Path) -> dict[str, Tensor]:
    """The entries of the model under its own names and in its own types. Problems have the names of the file."""
    known = set(layout.names.values())
    problems = layout.spectrogram_problems(entries)
    problems += [f"{name} is missing" for name in layout.names.values() if name not in entries]
    problems += [f"{name} is not one of the model's" for name in entries if name not in known and layout.reason(name) is None]
    weights: dict[str, Tensor] = {}
    for name, expected in empty.state_dict().items():
        own = layout.names[name]
        if own not in entries:
            continue
        if entries[own].shape != expected.shape:
            problems.append(f"{own} is {tuple(entries[own].shape)} and must be {tuple(expected.shape)}")
        elif not bool(torch.isfinite(entries[own]).all()):
            problems.append(f"{own} is not finite")
        else:
            weights[name] = entries[own].to(expected.dtype)
    if problems:
        raise InputError(
            f"{path} must hold finite weights of {empty.config.head} on {empty.config.encoder} for {num_classes} species, named as in "
            f"{layout.title}, but {len(problems)} entries do not fit: {_some(problems, '; ')}."
        )
    return weights


def _some(items: Sequence[str], separator: str = ", ") -> str:
    more = len(items) - SHOWN_KEYS
    return separator.join(items[:SHOWN_KEYS]) + (f"{separator}and {more} more" if more > 0 else "")
