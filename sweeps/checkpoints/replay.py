"""Trains a stage again from its record alone and compares what comes out, so that a checkpoint can prove what made it."""

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from birdclef_core.code_version import code_version
from birdclef_core.config import ModelConfig, StageConfig
from birdclef_core.errors import InputError, StoreError
from birdclef_core.identity import file_sha256, fingerprint, restore
from birdclef_core.models.encoders import RANDOM, PretrainedWeights, resolve_pretrained
from birdclef_core.stages.training import StageTask, train_stage
from birdclef_core.store.stage_store import WEIGHTS, StageEntry, StageRecord, StageStore
from birdclef_core.store.storage import Storage
from birdclef_core.store.summary import IMPORTED, SCORE
from sweeps.checkpoints.references import known_record, store_of
from sweeps.checkpoints.replay_data import FoundData, data_of_stage

STANDARD_ERROR = "_se"
"""Ending of the name under which a score's standard error is recorded."""

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A stage as it was recorded and as it came out again."""

    recorded: Mapping[str, float]
    replayed: Mapping[str, float]
    same_weights: bool
    """To the bit."""
    changed: tuple[str, ...]
    """What is not as it was then: code, libraries, device."""

    @property
    def difference(self) -> float:
        """Of the score that stages are compared by."""
        return abs(self.recorded[SCORE] - self.replayed.get(SCORE, math.nan))

    @property
    def allowed(self) -> float:
        """The score's standard error: what other recordings of the same species would change it by."""
        return self.recorded.get(f"{SCORE}{STANDARD_ERROR}", 0.0)

    @property
    def is_exact(self) -> bool:
        return self.same_weights and self.recorded == self.replayed

    @property
    def agrees(self) -> bool:
        return self.is_exact or self.difference <= self.allowed


def replay_reference(
    storage: Storage, stage_id: str, folder: Path | None, pretrained: str | None, cache_dir: str, say: Say
) -> Replay:
    """`replay` of a stage of a storage, on this machine's GPU if it has one, with recordings and first weights as a sweep had them.

    Raises InputError, before any audio is decoded, when the stage cannot be replayed.
    """
    store = store_of(storage)
    entry = _whole(store, stage_id)
    record = entry.record
    if record.identity.get("code") == IMPORTED:
        raise InputError(f"Stage {stage_id[:16]} was imported: there is no record of how it was trained.")
    found = data_of_stage(storage, record, folder, cache_dir)
    mode = pretrained or ("off" if record.identity["parent"] == RANDOM.name else found.pretrained)
    model = restore(ModelConfig, record.identity["model"])
    weights = RANDOM if record.parent_id else resolve_pretrained(model.encoder, mode)
    if record.parent_id:
        _whole(store, record.parent_id)
    say(f"Training {record.stage} of {record.recipe} again, on {found.root}.")
    return replay(store, entry, found, weights, torch.device("cuda" if torch.cuda.is_available() else "cpu"), say=say)


def replay(
    store: StageStore, entry: StageEntry, found: FoundData, weights: PretrainedWeights, device: torch.device, *, say: Say
) -> Replay:
    """Trains the stage from its parent in a store of its own, which is thrown away.

    Raises InputError when its parent, its data or its first weights are not at hand.
    """
    record = entry.record
    task = _task(record, found, weights)
    torch.set_num_threads(int(record.environment["threads"]))
    changed = [] if record.identity["code"] == code_version() else [f"code was {record.identity['code']}, is {code_version()}"]
    with tempfile.TemporaryDirectory(prefix="birdclef-replay-") as folder:
        own = StageStore(Storage.parse(folder))
        if task.parent_id is not None:
            own.adopt(_whole(store, task.parent_id))
        for epoch in train_stage(task, found.training_data(), own, device):
            say(f"epoch {epoch.epoch}/{task.config.epochs}: {SCORE} {epoch.scores[SCORE]:.6f}")
        again = own.open(task.stage_id)
        assert again is not None
        now = again.record.environment
        changed += [f"{key} was {value}, is {now.get(key)}" for key, value in record.environment.items() if now.get(key) != value]
        return Replay(
            recorded=record.metrics,
            replayed=again.record.metrics,
            same_weights=file_sha256(entry.folder / WEIGHTS) == file_sha256(again.folder / WEIGHTS),
            changed=tuple(changed),
        )


def _task(record: StageRecord, found: FoundData, weights: PretrainedWeights) -> StageTask:
    identity = record.identity
    model, config = restore(ModelConfig, identity["model"]), restore(StageConfig, identity["stage"])
    if identity["data"] != found.fingerprint:
        raise InputError(
            f"The recordings must be those of the record (data {identity['data'][:16]}), but those in {found.root} are "
            f"{found.fingerprint[:16]}: other files, labels, split or noise. Name the right folder with --data."
        )
    space = found.dataset.all_species if config.label_space == "all" else found.dataset.target_species
    if list(space.species) != record.species:
        raise InputError(
            f"The species must be the {len(record.species)} of the record, but those of {found.root} are {len(space)} "
            "(see target_species.txt)."
        )
    if record.parent_id is None and weights.name != identity["parent"]:
        raise InputError(f"The stage started from {identity['parent']} weights, but these are {weights.name}: see --pretrained.")
    # Under an id of its own: nothing may take it for the stage itself.
    return StageTask(
        stage_id=fingerprint(["replay", record.stage_id]),
        parent_id=record.parent_id,
        recipe=record.recipe,
        model=model,
        config=config,
        pretrained=weights,
        identity=identity,
    )


def _whole(store: StageStore, stage_id: str) -> StageEntry:
    """The stage; looked at before it is opened, because that would set a damaged one aside."""
    known_record(store, stage_id)
    problem = store.check(stage_id)
    entry = None if problem else store.open(stage_id)
    if entry is None:
        raise StoreError(f"Stage {stage_id[:16]} must be whole to be replayed or started from, but {problem or 'is gone'}")
    return entry


def replay_lines(result: Replay) -> list[str]:
    """What to print of a replay."""
    width = max(len(name) for name in result.recorded) + 2
    lines = [f"  {'':<{width}}{'recorded':>12}{'replayed':>12}"]
    for name, value in sorted(result.recorded.items()):
        again = result.replayed.get(name, math.nan)
        lines.append(f"  {name:<{width}}{value:>12.6f}{again:>12.6f}{'' if value == again else '  differs'}")
    lines += [f"  {remark}" for remark in result.changed]
    if result.is_exact:
        return [*lines, "The same: every score and every weight, to the bit."]
    expected = "" if result.changed else " Code, libraries and device are the same: a CPU is expected to give the same bits."
    verdict = "Agrees" if result.agrees else "DOES NOT AGREE"
    return [
        *lines,
        f"{verdict}: {SCORE} differs by {result.difference:.2g}, its standard error is {result.allowed:.2g}; weights are "
        f"{'the same' if result.same_weights else 'not the same'} to the bit.{expected}",
    ]
