"""What sweeps that were killed at random moments must have left."""

import statistics
import time

from crash_place import SWEEPS, Place, make_chain_builder
from made_up_stage import score_of, weights_of

from birdclef_core.store.stage_store import WEIGHTS, StageStore
from sweeps.schedule.records import TrialRecord
from sweeps.search.chains import Chain
from sweeps.tracking.events import EpochFinished, Event, StageFinished, from_line
from sweeps.tracking.journal import JOURNAL_NAME, JournalCopy


def check(place: Place, ended_workers: int) -> dict[str, int]:
    """Raises AssertionError where a sweep's promise was broken; else figures."""
    chains = {}
    trained: dict[str, list[str]] = {}
    finished = set()
    for sweep in SWEEPS:
        records = place.records(sweep).load_trials()
        builder = make_chain_builder(sweep)
        assert [record.trial for record in records] == [f"t{index:04d}" for index in range(place.samples)], "lost or doubled"
        assert len({record.stage_ids[-1] for record in records}) == place.samples, "the same configuration twice"
        for record in records:
            assert record.ended, record
            chains[record.stage_ids[-1]] = chain = builder.chain(record.recipe, record.params)
            finished |= {f"{sweep}/{record.trial}"} if record.status == "finished" else set()
            for stage_id in record.trained_ids:
                trained.setdefault(stage_id, []).append(f"{sweep}/{record.trial}")
            _check_record(record, [task.config.epochs for task in chain], [weights_of(own) for own in replicates_of(chain)])
        events = [from_line(line, file=JOURNAL_NAME)[0] for line in _journal(place, sweep).splitlines()]
        _check_journal(events, records)
        _check_epochs(events, place.store)
    _check_charges(place.store, trained, finished)
    return _check_store(place, chains, ended_workers)


def replicates_of(chain: Chain) -> list[Chain]:
    """The chain of each replicate."""
    return [
        tuple(task for task in chain if task.replicate in ("", name)) for name in dict.fromkeys(task.replicate for task in chain)
    ]


def _check_record(record: TrialRecord, epochs: list[int], weights: list[str]) -> None:
    if record.status == "finished":
        assert record.score == statistics.fmean(map(score_of, weights))
        assert record.epochs_done == sum(epochs), f"{record.trial}: {record.epochs_done} epochs of {sum(epochs)}"
        assert list(record.stage_scores) == record.stages
    elif record.status == "failed":
        assert "worker lost" in record.reason, record.reason
    assert len(set(record.trained_ids)) == len(record.trained_ids)


def _check_charges(store: StageStore, trained: dict[str, list[str]], finished: set[str]) -> None:
    """Each stage is charged once, to the trial that published it. (One that did not come to its end may not know.)"""
    for stage_id, record in ((stage_id, store.record(stage_id)) for stage_id in store.known_ids()):
        if record is not None and (trials := trained.get(stage_id, [])) != [record.trained_by]:
            assert not trials and record.trained_by not in finished, (
                f"{record.stage} by {record.trained_by} is charged to {trials}"
            )


def _check_store(place: Place, chains: dict, ended_workers: int) -> dict[str, int]:
    tasks = {task.stage_id: task for chain in chains.values() for task in chain}
    begun, published = place.log.count("epoch"), place.log.count("published")
    for stage_id in place.store.known_ids():
        assert place.store.check(stage_id) in ("", "it is not published")
    lost = 0
    for stage_id in {stage_id for stage_id, _ in begun}:
        task = tasks[stage_id]
        counts = [begun[stage_id, epoch] for epoch in range(1, task.config.epochs + 1)]
        lost += sum(count - 1 for count in counts if count)
        if place.store.is_published(stage_id):
            assert min(counts) >= 1, counts
        assert published[stage_id, task.config.epochs] <= 1, f"{task.config.name} was published twice"
    for own in (own for chain in chains.values() for own in replicates_of(chain)):
        entry = place.store.open(own[-1].stage_id)
        assert entry is None or (entry.folder / WEIGHTS).read_text() == weights_of(own)
    assert lost <= ended_workers, f"{lost} epochs lost by the end of {ended_workers} workers"
    time.sleep(place.lease_s)
    alive = [entry for entry in place.leases.entries() if not place.leases.is_dead(entry, time.time())]
    assert not alive, f"leases that nobody holds: {alive}"
    return {"epochs": sum(begun.values()), "unique": len(begun), "lost": lost, "stages": len({stage for stage, _ in begun})}


def _journal(place: Place, sweep: str) -> bytes:
    """The journal of a sweep; on S3 its copy there, which is all that every machine has."""
    if not place.address:
        return (place.folder / sweep / JOURNAL_NAME).read_bytes()
    copy = JournalCopy(place.folder / f"{sweep}-checked", place.storage.at(sweep))
    assert copy.was_fetched
    return (place.folder / f"{sweep}-checked" / JOURNAL_NAME).read_bytes()


def _check_journal(events: list[Event], records: list[TrialRecord]) -> None:
    """Each trial begins before anything is said of it, and its last word is how it ended."""
    last: dict[str, str] = {}
    for event in events:
        kind, trial = type(event).__name__, getattr(event, "trial", None)
        if trial is None:
            continue
        assert trial in last or kind == "TrialStarted", f"{kind} of {trial} before it began"
        last[trial] = event.status if kind == "TrialFinished" else kind
    assert last == {record.trial: record.status for record in records}


def _check_epochs(events: list[Event], store: StageStore) -> None:
    """Of a stage that is published, every epoch has been told before its end, in order, with the time that the stage's record has.

    What drivers tell again is the same, so that MLflow keeps it once.
    """
    times: dict[str, dict[int, float]] = {}
    for event in events:
        if isinstance(event, EpochFinished):
            told = times.setdefault(event.execution, {})
            assert event.epoch <= len(told) + 1, f"{event.execution}: epoch {event.epoch} follows {len(told)}"
            assert told.setdefault(event.epoch, event.time_s) == event.time_s, (
                f"{event.execution}: epoch {event.epoch} is there twice"
            )
        elif isinstance(event, StageFinished) and event.status == "finished":
            record = store.record(event.stage_id)
            assert record is not None and times[event.execution] == {epoch["epoch"]: epoch["time_s"] for epoch in record.history}
