"""Trains the best configuration of a sweep once more, on all recordings: a detector that has no score of its own."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from birdclef_core.code_version import code_version
from birdclef_core.config import ModelConfig, StageConfig
from birdclef_core.errors import InputError
from birdclef_core.identity import fingerprint, restore
from birdclef_core.models.encoders import RANDOM, PretrainedWeights, resolve_pretrained
from birdclef_core.stages.embeddings.recorded import encoders_of, first_encoder
from birdclef_core.stages.task import StageTask, parse_teachers, teachers_text
from birdclef_core.stages.training import train_stage
from birdclef_core.store.leases import Holder, Leases
from birdclef_core.store.stage_store import StageRecord, StageStore
from birdclef_core.store.storage import Storage
from sweeps.checkpoints.references import known_record, store_of
from sweeps.checkpoints.replay import check_sources, predictions_config, recording_finder, whole_stage
from sweeps.execution.recordings import FoundRecordings
from sweeps.execution.recordings_list import RecordingsList
from sweeps.objective import Objective
from sweeps.replicates import replicate_of
from sweeps.schedule.records import SweepRecords, TrialRecord, best_trials

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Refit:
    """A configuration that was trained on all recordings."""

    sweep: str
    trial: TrialRecord
    """The trial whose configuration it is."""
    objective: Objective
    stage_id: str
    """Id of the last stage."""
    location: str
    """Where its weights are."""
    num_recordings: int

    def lines(self) -> list[str]:
        """Return what to print: what it was trained on and chosen by, and how to name it."""
        return [
            f"No score of its own: trained on all {self.num_recordings:,} recordings. Its configuration is that of {self.sweep}/{self.trial.trial}, "
            f"whose {self.objective.score_name} was {self.trial.score:.3f} with its validation recordings left out.",
            f"Weights: {self.location}",
            f"Reference: {self.stage_id[:16]}",
        ]


def refit(storage: Storage, reference: str, folder: str | None, pretrained: str | None, cache_dir: str, say: Say) -> Refit:
    """Train the stages of the best trial of a sweep on all its recordings and publish them; what is in the store is reused.

    `reference`: a sweep, or SWEEP/TRIAL for another finished trial. `folder`: the data folder or packed set; None: where the sweep had
    it. `pretrained`: as in `--pretrained`; None: as the sweep had it. A stage that trials started from stays as it is, and so do embeddings,
    which hear all recordings anyway.

    Raises InputError for a trial that has not finished, a stage that ends by its validation score, stages that are no longer in the
    store, and other recordings or first weights than the trial had; StoreError for a damaged stage.
    """
    sweep, trial, objective = _chosen(storage, reference)
    store = store_of(storage)
    records = _records(store, trial)
    for record in records:
        if record.identity["stage"].get("early_stop_epochs") is not None:
            raise InputError(
                f"A stage that is trained on all recordings must end after a fixed number of epochs, but {record.stage} of {sweep}/{trial.trial} has "
                "early_stop_epochs: without validation recordings there is no score to stop by. Refit a trial without an early stop."
            )
    found = recording_finder(storage, folder, cache_dir).find(records[-1])
    if found.fingerprint != records[-1].identity["data"]:
        raise InputError(
            f"The recordings must be those of the trial (data {records[-1].identity['data'][:16]}), but those in {found.dataset.root} are "
            f"{found.fingerprint[:16]}: other files, labels, split or noise. Name the right folder with --data."
        )
    for record in records:
        check_sources(record, found)
    whole = found.dataset.all_training()
    data = found.cache.data_fingerprint(whole)
    again = _made_again(records)
    tasks = _tasks(store, again, [_first_weights(record, found, pretrained) for record in again], data)
    RecordingsList(store.storage, whole, data).keep()
    training_data = found.cache.build(whole)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run = uuid.uuid4().hex[:8]
    leases, holder = Leases(store.storage), Holder(sweep=f"refit-{run}", run=run, trial=trial.trial)
    for task in tasks:
        if store.open(task.stage_id) is not None:
            say(f"{task.config.name}: in the store")
            continue
        for needed in task.needs:
            whole_stage(store, needed)
        with leases.hold(task.stage_id, holder) as lease:
            if lease is None:
                raise InputError(
                    f"Another process trains {task.config.name} of {sweep}/{trial.trial} on all recordings now. Let it end."
                )
            name = f"{sweep}/refit-{trial.trial}"
            for epoch in train_stage(task, training_data, store, device, stop=lease.reason_to_stop, on_note=say, trained_by=name):
                if task.config.predicts:
                    say(f"{task.config.name}: {epoch.clips_per_s:.1f} windows/s")
                else:
                    say(f"{task.config.name}: epoch {epoch.epoch}/{task.config.epochs}, loss {epoch.train_loss:.4g}")
    last = tasks[-1].stage_id
    return Refit(
        sweep=sweep,
        trial=trial,
        objective=objective,
        stage_id=last,
        location=store.location(last),
        num_recordings=len(whole.recordings),
    )


def find_refit(store: StageStore, trial: TrialRecord, found: FoundRecordings) -> StageRecord | None:
    """Return the last stage of a trial's configuration as `refit` has trained it on all recordings; None where the store has none."""
    try:
        again = _made_again(_records(store, trial))
    except InputError:  # a stage that it was to be made like is gone
        return None
    # The first weights of a refit are those of the trial. Nothing is loaded here, so that their name is enough.
    weights = [RANDOM if first_encoder(record) is None else PretrainedWeights(record.identity["parent"]) for record in again]
    tasks = _tasks(store, again, weights, found.cache.data_fingerprint(found.dataset.all_training()))
    return store.record(tasks[-1].stage_id)


def _records(store: StageStore, trial: TrialRecord) -> list[StageRecord]:
    """The stages of a trial, of one replicate. Raises InputError when one is no longer in the store."""
    replicate = replicate_of(trial.stages[-1])
    return [
        known_record(store, stage_id)
        for stage_id, name in zip(trial.stage_ids, trial.stages, strict=True)
        if replicate_of(name) in ("", replicate)
    ]


def _made_again(records: Sequence[StageRecord]) -> list[StageRecord]:
    """The stages of a trial that other recordings change: all but embeddings, which are of each recording by itself."""
    return [record for record in records if "embeds" not in record.identity["stage"]]


def _tasks(store: StageStore, records: Sequence[StageRecord], weights: Sequence[PretrainedWeights], data: str) -> list[StageTask]:
    """The tasks of making stages of a trial on all recordings. `data`: their fingerprint."""
    tasks: dict[str, StageTask] = {}
    for record, first in zip(records, weights, strict=True):
        before = {old: task.stage_id for old, task in tasks.items()}
        tasks[record.stage_id] = _task(store, record, first, data, before)
    return list(tasks.values())


def _chosen(storage: Storage, reference: str) -> tuple[str, TrialRecord, Objective]:
    """The sweep, the trial of it that is meant, and what its trials were compared by."""
    sweep, _, name = reference.strip("/").partition("/")
    records = SweepRecords(storage.at(sweep))
    objective, trials = records.load_sweep().objective, records.load_trials()
    if not name:
        best = best_trials(trials, objective)
        if not best:
            raise InputError(f"A sweep must have a finished trial to be trained on all recordings, but {sweep} has none.")
        return sweep, best[0], objective
    trial = next((trial for trial in trials if trial.trial == name), None)
    if trial is None or trial.score is None:
        state = f"is {trial.status}" if trial else "does not exist"
        raise InputError(f"The trial to train on all recordings must have finished, but {sweep}/{name} {state}.")
    return sweep, trial, objective


def _first_weights(record: StageRecord, found: FoundRecordings, pretrained: str | None) -> PretrainedWeights:
    """The weights that a stage starts from which has no parent: the same as those of the trial."""
    before, encoder = record.identity["parent"], first_encoder(record)
    if encoder is None or before == RANDOM.name:
        return RANDOM
    weights = resolve_pretrained(encoder, pretrained or found.pretrained)
    if weights.name != before:
        raise InputError(
            f"The stages must start from the weights of the trial, {before}, but these are {weights.name} ({weights.found}): see --pretrained."
        )
    return weights


def _task(store: StageStore, record: StageRecord, weights: PretrainedWeights, data: str, own: Mapping[str, str]) -> StageTask:
    """The task of making a stage from other data. `own`: the ids of the stages before it that were made so, by the ids of the trial."""
    if record.is_predictions:
        return _task_of_predictions(store, record, data, own)
    parent_id = own.get(record.parent_id, record.parent_id) if record.parent_id else None
    identity = record.identity | {"data": data, "parent": parent_id or weights.name, "code": code_version()}
    if (teacher := record.identity.get("teacher")) is not None:
        identity["teacher"] = own.get(teacher, teacher)
    if (embeddings := record.identity.get("embeddings")) is not None:
        identity["embeddings"] = own.get(embeddings, embeddings)
    return StageTask(
        stage_id=fingerprint(identity),
        parent_id=parent_id,
        recipe=record.recipe,
        model=restore(ModelConfig, identity["model"]),
        config=restore(StageConfig, identity["stage"]),
        pretrained=weights,
        identity=identity,
        predictions_id=identity.get("teacher"),
        embeddings_id=identity.get("embeddings"),
    )


def _task_of_predictions(store: StageStore, record: StageRecord, data: str, own: Mapping[str, str]) -> StageTask:
    stage, before = record.identity["stage"], parse_teachers(record.identity["parent"])
    teachers = tuple((own.get(stage_id, stage_id), weight) for stage_id, weight in before)
    is_one = len(teachers) == 1
    identity: dict[str, Any] = record.identity | {
        "data": data if stage["predicts_on"] == "recordings" else record.identity["data"],
        "parent": teachers[0][0] if is_one else teachers_text(teachers),
        "code": code_version(),
    }
    return StageTask(
        stage_id=fingerprint(identity),
        parent_id=teachers[0][0] if is_one else None,
        recipe=record.recipe,
        model=ModelConfig(),
        config=predictions_config(record, identity["parent"]),
        pretrained=RANDOM,
        identity=identity,
        teachers=teachers,
        encoders=encoders_of(filter(None, (store.record(stage_id) for stage_id, _ in before))),
    )
