"""A trial is in one state at a time, changes only as the table allows, and has what belongs to its state and nothing else."""

import itertools

import pytest
from made_up import make_chain_builder

from sweeps.plan.simulate import MemoryRecords, SimulatedStore, SimulatedView
from sweeps.sampling.draws import Draw
from sweeps.schedule.pruning import Rung, Stopped
from sweeps.schedule.records import TrialRecord
from sweeps.schedule.trials import MOVES, Failed, Finished, IllegalMove, Interrupted, Pruned, Trial, TrialBook

STOPPED = Stopped(stage_id="x", rung=Rung("train_ce"), score=0.1, reason="its 0.100 was below 0.200")
ENDINGS = {
    "finished": Finished(0.5),
    "pruned": Pruned(STOPPED),
    "failed": Failed("no memory"),
    "interrupted": Interrupted("stopped"),
}


def make_trial(name: str = "t0000") -> Trial:
    chains = make_chain_builder()
    recipe = chains.search.recipes[0]
    params = chains.search.baseline(recipe)
    chain = chains.chain(recipe.name, params)
    record = TrialRecord(
        trial=name,
        recipe=recipe.name,
        params=params,
        stages=[task.config.name for task in chain],
        stage_ids=[task.stage_id for task in chain],
    )
    return Trial(record=record, chain=chain, draw=Draw(ticket=0, recipe=recipe.name, params=params))


def make_book(records: MemoryRecords | None = None) -> TrialBook:
    return TrialBook(records or MemoryRecords(), SimulatedView(SimulatedStore(), "s"))


def in_state(book: TrialBook, status: str) -> Trial:
    """A trial that has come to a state."""
    trial = make_trial()
    book.add(trial)
    assert book.pop_startable() is trial
    book.start(trial)
    if status == "waiting":
        book.hold(trial, "a stage of another sweep")
    if status in ENDINGS:
        book.end(trial, ENDINGS[status])
    return trial


def go_to(book: TrialBook, trial: Trial, status: str) -> None:
    if status == "running":
        book.start(trial)
    elif status == "waiting":
        book.reopen(trial)
    else:
        book.end(trial, ENDINGS[status])


@pytest.mark.parametrize(("before", "after"), list(itertools.product(MOVES, MOVES)))
def test_every_pair_of_states_is_allowed_or_refused_as_the_table_says(before, after):
    book = make_book()
    trial = in_state(book, before)
    if after in MOVES[before] or before == after == "waiting":
        go_to(book, trial, after)
        assert trial.record.status == after
    else:
        with pytest.raises(IllegalMove, match=f"is {before} and cannot become {after}"):
            go_to(book, trial, after)
        assert trial.record.status == before
    assert (book.num_waiting, book.num_running) == (trial.record.status == "waiting", trial.record.status == "running")
    assert book.open_trials == ([trial] if trial.record.status in ("waiting", "running") else [])


def test_each_ending_leaves_what_belongs_to_it():
    for status in ENDINGS:
        record = in_state(make_book(), status).record
        assert (record.score is not None) == (status == "finished")
        assert (record.stopped is not None) == (status == "pruned")
        assert bool(record.reason) == (status != "finished")


def test_a_worker_that_was_lost_on_the_way_is_no_reason_of_a_finished_trial():
    book = make_book()
    trial = in_state(book, "running")
    trial.record.reason = "worker lost: killed"
    book.end(trial, Finished(0.5))
    assert trial.record.reason == ""


def test_what_a_trial_had_claimed_is_free_when_it_ends():
    book = make_book()
    first, second = make_trial("t0000"), make_trial("t0001")
    book.add(first)
    book.add(second)
    book.start(book.pop_startable())
    assert book.pop_startable() is None, "the other one waits for the same prefix"
    book.end(first, Failed("no memory"))
    assert book.pop_startable() is second


def test_a_held_trial_waits_until_the_stage_is_free():
    store = SimulatedStore()
    book = TrialBook(MemoryRecords(), SimulatedView(store, "s"))
    trial = in_state(book, "running")
    stage_id = trial.record.stage_ids[0]
    store.trained_by[stage_id] = "another sweep"
    book.hold(trial, stage_id)
    assert trial.record.status == "waiting" and book.pop_startable() is None
    del store.trained_by[stage_id]
    assert book.pop_startable() is trial


def test_a_removed_stage_has_to_be_trained_again():
    store = SimulatedStore()
    book = TrialBook(MemoryRecords(), SimulatedView(store, "s"))
    first, second = make_trial("t0000"), make_trial("t0001")
    book.stage_published(first.record.stage_ids[0])
    book.stage_removed(first.record.stage_ids[0])
    book.add(first)
    book.add(second)
    book.start(book.pop_startable())
    assert first.record.stage_ids[0] not in store.published
    assert book.pop_startable() is None


def test_a_record_is_written_when_it_is_saved_and_all_that_have_changed_with_it():
    written: list[list[str]] = []
    records = MemoryRecords()
    book = make_book(records)
    first, second = in_state(book, "finished"), in_state(book, "interrupted")
    book.save_changed()
    records.save_trials = lambda trials: written.append([trial.trial for trial in trials])
    book.mark_changed(second.record)
    assert written == [] and not book.all_saved
    book.save(first.record)
    assert written == [["t0001", "t0000"]] and book.all_saved
    book.save_changed()
    assert written == [["t0001", "t0000"]]


def test_a_draw_that_waits_has_no_record_and_gets_the_next_name_when_it_begins():
    records = MemoryRecords()
    book = make_book(records)
    kept, dropped = make_trial("draw 5"), make_trial("draw 3")
    for trial in (dropped, kept):
        book.add(trial)
    assert (book.num_waiting, book.num_drawn, book.records, book.open_trials) == (2, 2, {}, [dropped, kept])
    assert book.pop_startable() is dropped and not book.has_begun(dropped)
    book.drop(dropped)
    assert book.pop_startable() is kept
    book.start(kept)
    assert book.has_begun(kept) and kept.record.trial == "t0000", "the one that never began leaves no gap"
    assert (book.num_waiting, book.num_drawn, book.open_trials) == (0, 0, [kept])
    assert list(records.trials) == list(book.records) == ["t0000"]


def test_the_view_of_the_store_hears_of_a_stage_that_another_sweep_trains(monkeypatch):
    leased: list[str] = []
    monkeypatch.setattr(SimulatedView, "mark_leased", lambda self, stage_id: leased.append(stage_id))
    book = make_book()
    trial = in_state(book, "running")
    book.hold(trial, trial.record.stage_ids[0])
    assert leased == [trial.record.stage_ids[0]], "the held trial itself is not the one that trains it"


def test_a_trial_is_on_record_as_soon_as_it_runs():
    records = MemoryRecords()
    in_state(make_book(records), "running")
    assert list(records.trials) == ["t0000"]
