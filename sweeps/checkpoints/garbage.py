"""`birdclef store gc`: finds what sweeps no longer need of a store, and removes it."""

import itertools
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from birdclef_core.errors import InputError
from birdclef_core.store.garbage import MUST_STAY, GarbageList, Removal, choose_garbage, collect
from birdclef_core.store.leases import Leases
from birdclef_core.store.leftovers import Leftover, find_leftovers
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from sweeps.checkpoints.references import store_of, sweeps_in
from sweeps.objective import Score
from sweeps.schedule.records import SweepRecords, TrialRecord, best_trials
from sweeps.wording import bytes_text, format_duration

MAX_LISTED = 40


def needed_by(records: SweepRecords, trials: Sequence[TrialRecord]) -> set[str]:
    """Return the stages of a sweep's best trials and of those that have not ended, and the stored stages that they start
    or learn from.

    The best trials are those of the Pareto front where the sweep has one.
    """
    sweep = records.load_sweep()
    needed = [*best_trials(trials, sweep.objective), *(record for record in trials if not record.ended)]
    return {*sweep.stored_before, *itertools.chain(*(record.stage_ids for record in needed))}


def stages_in_training(store: StageStore) -> set[str]:
    """Return the ids of the stages that any sweep trains now, or trained a moment ago."""
    return {entry.stage_id for entry in Leases(store.storage).entries()}


def needed_by_sweep(storage: Storage, name: str) -> tuple[set[str], Counter[str]]:
    """Return the stages that a sweep needs, and how many of its trials have each stage in their chain.

    Raises InputError when its records cannot be read, because what it needs is not known then.
    """
    records = SweepRecords(storage.at(name))
    try:
        trials = records.load_trials()
        return needed_by(records, trials), Counter(stage_id for record in trials for stage_id in record.stage_ids)
    except InputError as error:
        raise InputError(
            f"It is not known which stages sweep {name} needs, so none can be removed. {error} If you do not need {name} any more, move "
            "its folder away."
        ) from None


def needed_by_all(storage: Storage) -> tuple[set[str], Counter[str]]:
    """Return the stages that any sweep needs or trains, and how many trials have each stage; raises as `needed_by_sweep` does."""
    keep, uses = stages_in_training(store_of(storage)), Counter[str]()
    for name in sweeps_in(storage):
        more, counted = needed_by_sweep(storage, name)
        keep |= more
        uses.update(counted)
    return keep, uses


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """What `birdclef store gc` removes."""

    leftovers: tuple[Leftover, ...]
    chosen: GarbageList | None
    """What is removed to fit a budget; None when none was given."""

    @property
    def is_some(self) -> bool:
        return bool(self.leftovers or (self.chosen and (self.chosen.abandoned or self.chosen.removals)))


def find_garbage(storage: Storage, budget_bytes: int | None) -> Garbage:
    """Return what nothing will read again and, if the store must fit in `budget_bytes`, what is least worth keeping."""
    store = store_of(storage)
    keep, uses = needed_by_all(storage)
    leftovers = find_leftovers(store, keep, time.time())
    if budget_bytes is None:
        return Garbage(leftovers=tuple(leftovers), chosen=None)
    gone = {item.place for item in leftovers}
    unfinished = {stage_id: size for stage_id, size in store.unfinished().items() if f"unfinished/{stage_id}" not in gone}
    chosen = choose_garbage(store.summaries(), uses, keep, budget_bytes=budget_bytes, unfinished=unfinished)
    return Garbage(leftovers=tuple(leftovers), chosen=chosen)


def remove_garbage(storage: Storage, garbage: Garbage) -> None:
    """Remove the garbage from the store."""
    store = store_of(storage)
    for leftover in garbage.leftovers:
        store.storage.delete(leftover.place)
    if garbage.chosen is not None:
        collect(store, garbage.chosen)


def garbage_lines(garbage: Garbage) -> list[str]:
    """Return the lines to print about the garbage."""
    lines = []
    for kind, what in (
        ("attempt", "attempts at stages that were cut off or set aside: "),
        ("epochs", "stages whose epoch checkpoints nothing needs: "),
    ):
        found = [item.num_bytes for item in garbage.leftovers if item.kind == kind]
        if found:
            lines.append(f"{bytes_text(sum(found)):>11}  {what}{len(found)}")
    chosen = garbage.chosen
    if chosen is None:
        return lines or ["There is nothing to remove. To make the store smaller, give its largest size: --max-bytes 200G."]
    if chosen.abandoned:
        lines.append(
            f"{bytes_text(sum(chosen.abandoned.values())):>11}  stages of ended trials whose epoch checkpoints go: {len(chosen.abandoned)}"
        )
    lines += [_removal(item) for item in chosen.removals[:MAX_LISTED]]
    if len(chosen.removals) > MAX_LISTED:
        lines.append(f"             ... and {len(chosen.removals) - MAX_LISTED} more stages, each worth as much or more")
    after, budget = bytes_text(chosen.bytes_after), bytes_text(chosen.budget_bytes)
    if not lines:
        lines.append(f"Nothing must be removed: the store takes {after} of {budget}.")
    elif chosen.fits:
        lines.append(f"From {bytes_text(chosen.bytes_before)} to {after}, within {budget}.")
    if not chosen.fits:
        lines.append(f"The rest takes {after}, more than {budget}, but must stay: {MUST_STAY}.")
    return lines


def _removal(removal: Removal) -> str:
    item = removal.summary
    score = Score(item.metrics.get("cmap", math.nan))
    return (
        f"{bytes_text(item.num_bytes):>11}  {item.stage_id[:16]} {item.recipe} {item.stage}, cmap {score}, took "
        f"{format_duration(item.cost_s)}, in {removal.uses} trials, worth {removal.worth:.2g} s/MiB"
    )
