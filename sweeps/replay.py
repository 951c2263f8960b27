"""Trains a stage again from its record alone and compares what comes out, so that a checkpoint can prove what made it."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import torch

from birdclef_core.config import ModelConfig, StageConfig
from birdclef_core.errors import InputError
from birdclef_core.identity import code_version, file_sha256, fingerprint, restore
from birdclef_core.models.encoders import PretrainedWeights
from birdclef_core.stages.store import WEIGHTS, StageEntry, StageStore
from birdclef_core.stages.training import StageTask, TrainingData, environment, train_stage
from birdclef_core.storage import Storage

TOLERANCE = 1e-6
OTHER_DEVICE_TOLERANCE = 0.02
"""Another device or library adds up in another order, and training carries that on; see docs/benchmarks/stage_tree.md."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A stage as it was recorded and as it came out again."""

    scores: dict[str, tuple[float, float]]
    """Recorded and replayed, by name."""
    same_weights: bool
    """To the bit."""
    tolerance: float
    remarks: tuple[str, ...]

    @property
    def largest_difference(self) -> float:
        return max((abs(recorded - replayed) for recorded, replayed in self.scores.values()), default=0.0)

    @property
    def agrees(self) -> bool:
        return bool(self.scores) and self.largest_difference <= self.tolerance


def replay(
    store: StageStore,
    stage_id: str,
    data: TrainingData,
    data_fingerprint: str,
    pretrained: Callable[[str], PretrainedWeights],
    device: torch.device,
    *,
    on_epoch: Callable[[int, int], None] = lambda epoch, epochs: None,
) -> Replay:
    """Trains the stage from its parent in a store of its own, which is thrown away.

    `pretrained` gives an encoder's first weights. Raises InputError when the stage, its parent, its data or its first weights are
    not at hand, and StoreError as reading does.
    """
    entry = store.open(stage_id)
    if entry is None:
        raise InputError(f"Stage {stage_id[:16]} must be whole in the store to be replayed, but it is not.")
    task, remarks = _task(entry, data_fingerprint, pretrained)
    with tempfile.TemporaryDirectory(prefix="birdclef-replay-") as folder:
        own = StageStore(Storage.parse(folder))
        if task.parent_id is not None:
            _copy_parent(store, own, task.parent_id)
        for epoch in train_stage(task, data, own, device):
            on_epoch(epoch.epoch, task.config.epochs)
        again = own.open(task.stage_id)
        assert again is not None
        here = environment(device)
        changed = [
            f"{key} was {value}, is {here[key]}"
            for key, value in entry.record.environment.items()
            if here.get(key, value) != value
        ]
        host = [remark for remark in changed if not remark.startswith("host ")]
        return Replay(
            scores={
                name: (value, again.record.metrics[name])
                for name, value in entry.record.metrics.items()
                if name in again.record.metrics
            },
            same_weights=file_sha256(entry.folder / WEIGHTS) == file_sha256(again.folder / WEIGHTS),
            tolerance=OTHER_DEVICE_TOLERANCE if host or device.type != "cpu" else TOLERANCE,
            remarks=(*remarks, *changed),
        )


def _task(
    entry: StageEntry, data_fingerprint: str, pretrained: Callable[[str], PretrainedWeights]
) -> tuple[StageTask, tuple[str, ...]]:
    record, identity = entry.record, entry.record.identity
    model, config = restore(ModelConfig, identity["model"]), restore(StageConfig, identity["stage"])
    if identity["data"] != data_fingerprint:
        raise InputError(
            f"The recordings must be those of the record (data {identity['data'][:16]}), but these are {data_fingerprint[:16]}: "
            "name their folder with --data."
        )
    weights = pretrained(model.encoder)
    if record.parent_id is None and weights.name != identity["parent"]:
        raise InputError(f"The stage started from {identity['parent']} weights, but these are {weights.name}: see --pretrained.")
    remarks = []
    if identity["code"] != code_version():
        remarks.append(f"the code was {identity['code']}, is {code_version()}")
    # Under an id of its own: nothing may take it for the stage itself.
    task = StageTask(
        stage_id=fingerprint(["replay", record.stage_id]),
        parent_id=record.parent_id,
        recipe=record.recipe,
        model=model,
        config=config,
        pretrained=weights,
        identity=identity,
    )
    return task, tuple(remarks)


def _copy_parent(store: StageStore, own: StageStore, parent_id: str) -> None:
    parent = store.open(parent_id)
    if parent is None:
        raise InputError(f"The stage starts from {parent_id[:16]}, which must be whole in the store, but is not.")
    own.adopt(parent)


def replay_lines(result: Replay) -> list[str]:
    """What to print of a replay."""
    lines = [f"  {remark}" for remark in result.remarks]
    lines += [
        f"  {name:<16}{recorded:>12.6f} recorded {replayed:>12.6f} replayed"
        for name, (recorded, replayed) in sorted(result.scores.items())
    ]
    weights = "the same to the bit" if result.same_weights else "not the same to the bit"
    verdict = "agrees" if result.agrees else "DOES NOT AGREE"
    return [
        *lines,
        f"{verdict}: largest difference {result.largest_difference:.2g} (allowed {result.tolerance:g}); weights are {weights}.",
    ]
