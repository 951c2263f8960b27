"""The sweeps of a storage, one a line."""

from collections.abc import Sequence

from birdclef_core.errors import BirdclefError
from birdclef_core.store.storage import Storage
from sweeps.report.ranking import score_of
from sweeps.schedule.records import SweepRecord, SweepRecords, TrialRecord, best_trials
from sweeps.wording import aligned, counted, format_duration

COLUMNS = ("sweep", "state", "trials", "best", "compared by", "device time", "started", "tags and note")


def list_sweeps(storage: Storage) -> list[str]:
    """Return what to print of the sweeps of a storage, the newest first.

    One whose records cannot be read is named with the reason, and the others are listed all the same.
    """
    rows, broken = [], []
    for name in storage.names():
        records = SweepRecords(storage.at(name))
        if not records.exists():
            continue
        try:
            record = records.load_sweep()
            rows.append((record.started_at, _row(record, records.load_trials())))
        except BirdclefError as error:
            broken.append(f"{name}: {error}")
    if not rows and not broken:
        return [f"There is no sweep in {storage.root} yet."]
    ordered = [row for _, row in sorted(rows, key=lambda item: item[0], reverse=True)]
    return [*(line[2:].rstrip() for line in aligned([COLUMNS, *ordered])), *broken]


def _row(record: SweepRecord, trials: Sequence[TrialRecord]) -> tuple[str, ...]:
    best = next(iter(best_trials(trials, record.objective)), None)
    finished = sum(trial.score is not None for trial in trials)
    tags = [f"{key}={value}" for key, value in record.options.tags.items()]
    return (
        record.name,
        record.state,
        f"{counted(len(trials), 'trial')}, {finished} finished",
        f"{score_of(best, record.objective)} ({best.trial})" if best else "-",
        str(record.objective),
        format_duration(sum(trial.cost_s for trial in trials)),
        record.started_at[:16].replace("T", " "),
        " ".join([*tags, record.options.note or ""]).strip(),
    )
