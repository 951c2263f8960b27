"""What a user calls a checkpoint: the beginning of a stage id, a sweep, a trial of it, or one stage of a trial."""

import re

from birdclef_core.errors import InputError
from birdclef_core.stages.store import StageStore
from birdclef_core.storage import Storage
from sweeps.records import SweepRecords, TrialRecord

MIN_ID_LENGTH = 4
HELP = "the beginning of a stage id, SWEEP (its best trial), SWEEP/TRIAL (its last stage) or SWEEP/TRIAL/STAGE"


def store_of(storage: Storage) -> StageStore:
    """The stage store of a storage place."""
    return StageStore(storage.at("store"))


def resolve(storage: Storage, reference: str) -> str:
    """The stage id that a reference stands for. Raises InputError, naming what there is, when it stands for none or several."""
    parts = reference.strip("/").split("/")
    if len(parts) == 1 and re.fullmatch(r"[0-9a-f]{4,64}", parts[0]):
        found = [stage_id for stage_id in store_of(storage).known_ids() if stage_id.startswith(parts[0])]
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(
                f"{reference!r} must be the beginning of one stage id, but is that of {', '.join(i[:16] for i in found)}."
            )
    if not SweepRecords(storage.at(parts[0])).exists():
        raise InputError(f"A reference must be {HELP}, but {storage.root} has no stage or sweep {reference!r}.")
    return _of_sweep(storage, *parts)


def _of_sweep(storage: Storage, sweep: str, trial: str = "", stage: str = "") -> str:
    trials = {record.trial: record for record in SweepRecords(storage.at(sweep)).load_trials()}
    record = trials.get(trial) if trial else best(list(trials.values()))
    if record is None:
        what = f"no trial {trial!r}; it has {', '.join(trials)}" if trial else "no finished trial"
        raise InputError(f"Sweep {sweep} has {what}.")
    if not stage:
        return record.stage_ids[max(0, len(record.stage_scores) - 1)]
    if stage not in record.stages:
        raise InputError(f"Trial {record.trial} has no stage {stage!r}; it has {', '.join(record.stages)}.")
    return record.stage_ids[record.stages.index(stage)]


def best(trials: list[TrialRecord]) -> TrialRecord | None:
    """The trial with the best score; None when none has finished."""
    return max((record for record in trials if record.score is not None), key=lambda record: record.score or 0.0, default=None)


def sweeps_in(storage: Storage) -> list[str]:
    """Names of the sweeps of a storage place."""
    return [name for name in storage.names() if SweepRecords(storage.at(name)).exists()]
