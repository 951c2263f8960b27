"""Resolves what a user calls a checkpoint: the beginning of a stage id, a sweep, a trial of it, or one stage of a trial."""

import re

from birdclef_core.errors import InputError
from birdclef_core.store.stage_store import StageRecord, StageStore
from birdclef_core.store.storage import Storage
from sweeps.schedule.records import SweepRecords, best_trials
from sweeps.wording import REFERENCE

MAX_NAMED = 12
"""An error lists this many names and counts the others."""


def store_of(storage: Storage) -> StageStore:
    """Return the stage store of a storage."""
    return StageStore(storage.at("store"))


def existing_storage(place: str) -> Storage:
    """Return the storage at a place where sweeps have run. Raises InputError when it cannot be read or has no store."""
    storage = Storage.parse(place)
    try:
        if storage.exists("store"):
            return storage
    except OSError as error:  # no such bucket, no access, no network
        raise InputError(f"The storage {place} must be readable, but is not: {str(error).splitlines()[0]}") from None
    raise InputError(f"There is no store in {storage.root}: --storage must name the folder or URI that sweeps were given.")


def resolve(storage: Storage, reference: str) -> str:
    """Return the stage id that a reference stands for.

    Raises InputError, which names the stages or sweeps that exist, when it stands for none or for several.
    """
    parts = reference.strip("/").split("/")
    if len(parts) == 1 and re.fullmatch(r"[0-9a-f]{4,64}", parts[0]):
        found = [stage_id for stage_id in store_of(storage).known_ids() if stage_id.startswith(parts[0])]
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(
                f"{reference!r} must be the beginning of one stage id, but {len(found)} begin with it: "
                f"{_names([stage_id[:16] for stage_id in found])}."
            )
    if len(parts) > 3 or not parts[0] or not SweepRecords(storage.at(parts[0])).exists():
        raise InputError(
            f"{reference!r} must be {REFERENCE}, but {storage.root} has no such stage or sweep. Its sweeps: {_names(sweeps_in(storage))}."
        )
    return _of_sweep(storage, *parts)


def _of_sweep(storage: Storage, sweep: str, trial: str = "", stage: str = "") -> str:
    records = SweepRecords(storage.at(sweep))
    trials = {record.trial: record for record in records.load_trials()}
    record = trials.get(trial) if trial else next(iter(best_trials(list(trials.values()), records.load_sweep().objective)), None)
    if record is None:
        what = f"no trial {trial!r}; it has {_names(list(trials))}" if trial else "no finished trial"
        raise InputError(f"Sweep {sweep} has {what}.")
    if stage:
        if stage not in record.stages:
            raise InputError(f"Trial {record.trial} has no stage {stage!r}; it has {', '.join(record.stages)}.")
        return record.stage_ids[record.stages.index(stage)]
    if not record.stage_scores:
        raise InputError(f"Trial {record.trial} of {sweep} has finished no stage yet ({record.status}).")
    return record.stage_ids[len(record.stage_scores) - 1]


def known_record(store: StageStore, stage_id: str) -> StageRecord:
    """Return the record of a stage. Raises InputError when the store has none."""
    record = store.record(stage_id)
    if record is None:
        raise InputError(f"Stage {stage_id[:16]} must be in the store, but is not: it has not been trained, or was removed.")
    return record


def _names(names: list[str]) -> str:
    """Return the first names as text."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return (", ".join(names[:MAX_NAMED]) or "none") + more


def sweeps_in(storage: Storage) -> list[str]:
    """Return the names of the sweeps of a storage."""
    return [name for name in storage.names() if SweepRecords(storage.at(name)).exists()]
