"""Trains a stage again from its record alone and compares the result, so that a checkpoint can prove what made it."""

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
from birdclef_core.recipes import predictions
from birdclef_core.stages.embeddings.recorded import embeddings_configs, embeddings_data, encoders_of, first_encoder
from birdclef_core.stages.embeddings.stored import EMBEDDINGS
from birdclef_core.stages.task import StageTask, parse_teachers
from birdclef_core.stages.teachers.predictions import PREDICTIONS
from birdclef_core.stages.training import train_stage
from birdclef_core.store.stage_store import WEIGHTS, StageEntry, StageRecord, StageStore
from birdclef_core.store.storage import Storage
from birdclef_core.store.summary import IMPORTED
from sweeps.checkpoints.references import known_record, store_of, sweeps_in
from sweeps.execution.recordings import FoundRecordings, RecordingFinder
from sweeps.objective import STANDARD_ERROR
from sweeps.schedule.records import SweepRecords

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A stage as it was recorded and as it came out when it was trained again."""

    recorded: Mapping[str, float]
    """Scores in the stage's record."""
    replayed: Mapping[str, float]
    """Scores of the replay."""
    recorded_sha256: str
    """sha256 of the stage's weights file."""
    replayed_sha256: str
    """sha256 of the replay's weights file."""
    environment: Mapping[str, str]
    """Versions, device and threads of the replay."""
    changed: tuple[str, ...]
    """What is not as it was when the stage was trained: code, libraries, device."""

    @property
    def same_weights(self) -> bool:
        """Whether the weights are the same to the bit."""
        return self.recorded_sha256 == self.replayed_sha256

    @property
    def judged(self) -> list[str]:
        """The scores that have a standard error: other recordings of the same species would change one by about as much."""
        errors = {
            name.removesuffix(STANDARD_ERROR): error for name, error in self.recorded.items() if name.endswith(STANDARD_ERROR)
        }
        return [name for name, error in errors.items() if math.isfinite(self.recorded.get(name, math.nan) + error)]

    @property
    def is_exact(self) -> bool:
        return self.same_weights and self.recorded == self.replayed

    @property
    def agrees(self) -> bool:
        """Whether nothing differs, or no judged score by more than its standard error."""
        return self.is_exact or (bool(self.judged) and all(self.excess(name) <= 1 for name in self.judged))

    def difference(self, name: str) -> float:
        """Difference of a score; infinity where the replay does not have it."""
        difference = abs(self.recorded[name] - self.replayed.get(name, math.nan))
        return math.inf if math.isnan(difference) else difference

    def excess(self, name: str) -> float:
        """Difference of a score, in standard errors."""
        difference, error = self.difference(name), self.recorded[f"{name}{STANDARD_ERROR}"]
        return difference / error if error else math.inf if difference else 0.0


@dataclass(frozen=True, kw_only=True)
class PreparedReplay:
    """A stage that can be trained again: all that it was made of is at hand."""

    store: StageStore
    entry: StageEntry
    """The stage, every file verified."""
    found: FoundRecordings
    """Its recordings."""
    weights: PretrainedWeights
    """First weights of its encoder; random weights for a stage that has a parent, or an encoder in a file."""

    def run(self, say: Say) -> Replay:
        """Train the stage in a store of its own, which is removed afterwards, on this machine's GPU if it has one.

        Sets the process's number of threads to that of the record: sums of another number are added up in another order.
        """
        record = self.entry.record
        task = _task(self.store, self.entry, self.found, self.weights)
        made = EMBEDDINGS if task.config.embeds else PREDICTIONS if record.is_predictions else WEIGHTS
        say(f"Training {record.stage} of {record.recipe} again, on {self.found.dataset.root}.")
        torch.set_num_threads(int(record.environment["threads"]))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with tempfile.TemporaryDirectory(prefix="birdclef-replay-") as folder:
            own = StageStore(Storage.parse(folder))
            for stage_id in task.needs:
                own.publish_copy(whole_stage(self.store, stage_id))
            for epoch in train_stage(task, self.found.training_data(), own, device):
                if "cmap" in epoch.scores:
                    say(f"epoch {epoch.epoch}/{task.config.epochs}: cmap {epoch.scores['cmap']:.6f}")
            again = own.open(task.stage_id)
            assert again is not None
            return Replay(
                recorded=record.metrics,
                replayed=again.record.metrics,
                recorded_sha256=file_sha256(self.entry.folder / made),
                replayed_sha256=file_sha256(again.folder / made),
                environment=again.record.environment,
                changed=tuple(_changes(record, again.record.environment)),
            )


def replay_reference(
    storage: Storage, stage_id: str, folder: str | Path | None, pretrained: str | None, cache_dir: str, say: Say
) -> Replay:
    """Train a stage of a storage again and compare; raises as `prepare_replay` does."""
    return prepare_replay(store_of(storage), stage_id, recording_finder(storage, folder, cache_dir), pretrained).run(say)


def recording_finder(storage: Storage, folder: str | Path | None, cache_dir: str) -> RecordingFinder:
    """Return a finder of the recordings of a storage's stages: in `folder`, or where the sweeps of the storage had them."""
    return RecordingFinder([SweepRecords(storage.at(name)) for name in sweeps_in(storage)], folder=folder, cache_dir=cache_dir)


def prepare_replay(store: StageStore, stage_id: str, finder: RecordingFinder, pretrained: str | None) -> PreparedReplay:
    """Gather all that a replay needs, before any audio is decoded. `pretrained` is as in `--pretrained`; None: as a sweep had it.

    Raises InputError when the stage was imported, or its recordings, species or first weights are not those of its record or not
    at hand; StoreError when its files or its parent's are damaged.
    """
    record = known_record(store, stage_id)
    if record.identity.get("code") == IMPORTED:
        raise InputError(f"Stage {stage_id[:16]} was imported: there is no record of how it was trained.")
    found = finder.find(record)
    mode = pretrained or ("off" if record.identity["parent"] == RANDOM.name else found.pretrained)
    encoder = first_encoder(record)
    weights = resolve_pretrained(encoder, mode) if encoder else RANDOM
    for needed in record.needs:
        whole_stage(store, needed)
    entry = whole_stage(store, stage_id)
    for needed in _task(store, entry, found, weights).encoders:
        whole_stage(store, needed)
    return PreparedReplay(store=store, entry=entry, found=found, weights=weights)


def _task(store: StageStore, entry: StageEntry, found: FoundRecordings, weights: PretrainedWeights) -> StageTask:
    """The task of training the stage again. Raises InputError when recordings, species or first weights are not as recorded."""
    record = entry.record
    if "embeds" in record.identity["stage"]:
        return _task_of_embeddings(entry, found, weights)
    if record.is_predictions:
        return _task_of_predictions(store, record, found)
    identity = record.identity
    model, config = restore(ModelConfig, identity["model"]), restore(StageConfig, identity["stage"])
    if identity["data"] != found.fingerprint:
        raise InputError(
            f"The recordings must be those of the record (data {identity['data'][:16]}), but those in {found.dataset.root} are "
            f"{found.fingerprint[:16]}: other files, labels, split or noise. Name the right folder with --data."
        )
    check_sources(record, found)
    space = found.dataset.all_species if config.label_space == "all" else found.dataset.target_species
    if list(space.species) != record.species:
        raise InputError(
            f"The species must be the {len(record.species)} of the record, but those of {found.dataset.root} are {len(space)} "
            "(see target_species.txt)."
        )
    if record.parent_id is None and weights.name != identity["parent"]:
        raise InputError(f"The stage started from {identity['parent']} weights, but these are {weights.name}: see --pretrained.")
    # The id of the stage itself would let the replay be taken for it.
    return StageTask(
        stage_id=fingerprint(["replay", record.stage_id]),
        parent_id=record.parent_id,
        recipe=record.recipe,
        model=model,
        config=config,
        pretrained=weights,
        identity=identity,
        predictions_id=identity.get("teacher"),
        embeddings_id=identity.get("embeddings"),
    )


def check_sources(record: StageRecord, found: FoundRecordings) -> None:
    """Raise InputError when a stage draws by sources, and recordings came in others than they do now."""
    recorded, now = record.identity.get("sources", ""), found.dataset.sources_fingerprint
    if recorded and recorded != now:
        raise InputError(
            f"Stage {record.stage} draws recordings by their source, which must be as recorded ({recorded[:16]}), but in {found.dataset.root} "
            f"they are other ones ({now[:16] or 'not known'}). Name the folder as it was collected then with --data."
        )


def _task_of_predictions(store: StageStore, record: StageRecord, found: FoundRecordings) -> StageTask:
    """The task of making predictions again. Raises InputError when what they were made of is not as recorded."""
    identity, stage = record.identity, record.identity["stage"]
    unlabelled = found.dataset.unlabelled
    own = found.fingerprint if stage["predicts_on"] == "recordings" else unlabelled.fingerprint if unlabelled else "none"
    if identity["data"] != own:
        raise InputError(
            f"The {stage['predicts_on']} must be those of the record (data {identity['data'][:16]}), but those in {found.dataset.root} are "
            f"{own[:16]}. Name the right folder with --data."
        )
    return StageTask(
        stage_id=fingerprint(["replay", record.stage_id]),
        parent_id=record.parent_id,
        recipe=record.recipe,
        model=ModelConfig(),
        config=predictions_config(record, identity["parent"]),
        pretrained=RANDOM,
        identity=identity,
        teachers=(teachers := parse_teachers(identity["parent"])),
        encoders=encoders_of(known_record(store, stage_id) for stage_id, _ in teachers),
    )


def _task_of_embeddings(entry: StageEntry, found: FoundRecordings, weights: PretrainedWeights) -> StageTask:
    """The task of making embeddings again. Raises InputError when recordings, species or first weights are not as recorded."""
    record, identity = entry.record, entry.record.identity
    data = embeddings_data(found.dataset, found.fingerprint)
    if identity["data"] != data:
        raise InputError(
            f"The recordings and species must be those of the record (data {identity['data'][:16]}), but those in {found.dataset.root} are "
            f"{data[:16]}. Name the right folder with --data."
        )
    if first_encoder(record) and weights.name != identity["parent"]:
        raise InputError(f"The encoder had {identity['parent']} weights, but these are {weights.name}: see --pretrained.")
    model, config = embeddings_configs(entry)
    return StageTask(
        stage_id=fingerprint(["replay", record.stage_id]),
        parent_id=None,
        recipe=record.recipe,
        model=model,
        config=config,
        pretrained=weights,
        identity=identity,
    )


def predictions_config(record: StageRecord, teachers: str) -> StageConfig:
    """Return the configuration of recorded predictions, of some teachers (see `teachers_text`)."""
    stage = record.identity["stage"]
    return predictions(
        record.stage,
        of=teachers,
        on=stage["predicts_on"],
        window_s=stage["clip_s"],
        label_space=stage["label_space"],
        precision=stage["precision"],
    )


def whole_stage(store: StageStore, stage_id: str) -> StageEntry:
    """Return a stage with every file verified. Raises InputError when the store has none, StoreError when it is damaged.

    A damaged stage stays where it is: a replay sets nothing aside.
    """
    known_record(store, stage_id)
    problem = store.check(stage_id)
    entry = None if problem else store.open(stage_id)
    if entry is None:
        raise StoreError(
            f"Stage {stage_id[:16]} must be whole to be replayed, started from or used to predict, but {problem or 'is gone'}"
        )
    return entry


def _changes(record: StageRecord, now: Mapping[str, str]) -> list[str]:
    code, current = record.identity["code"], code_version()
    changes = [] if code == current else [f"code was {code}, is {current}"]
    return changes + [
        f"{key} was {value}, is {now.get(key)}" for key, value in record.environment.items() if now.get(key) != value
    ]


def replay_lines(result: Replay) -> list[str]:
    """Return what to print of a replay: scores side by side, what has changed since, and the verdict."""
    width = max((len(name) for name in result.recorded), default=0) + 2
    lines = [f"  {'':<{width}}{'recorded':>12}{'replayed':>12}"] if result.recorded else []
    for name, value in sorted(result.recorded.items()):
        again = result.replayed.get(name, math.nan)
        lines.append(f"  {name:<{width}}{value:>12.6f}{again:>12.6f}{'' if value == again else '  differs'}")
    lines += [f"  {remark}" for remark in result.changed]
    if result.is_exact:
        what = "every score and every weight" if result.recorded else "every number"
        return [*lines, f"The same: {what}, to the bit."]
    expected = "" if result.changed else " Code, libraries and device are the same: a CPU is expected to give the same bits."
    verdict = "Agrees" if result.agrees else "DOES NOT AGREE"
    weights = f"weights are {'the same' if result.same_weights else 'not the same'} to the bit"
    if not result.judged:
        return [*lines, f"{verdict}: no score has a standard error to judge by; {weights}.{expected}"]
    most = max(result.judged, key=result.excess)
    error = result.recorded[f"{most}{STANDARD_ERROR}"]
    return [
        *lines,
        f"{verdict}: of the scores with a standard error, {most} differs most for it: by {result.difference(most):.2g}, its standard "
        f"error is {error:.2g}; {weights}.{expected}",
    ]
