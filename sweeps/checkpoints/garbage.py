"""`birdclef store gc`: which stages of a store sweeps still need, and what can go."""

import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from birdclef_core.errors import InputError
from birdclef_core.store.garbage import MUST_STAY, GarbagePlan, Removal, collect, plan_garbage
from birdclef_core.store.leases import Leases
from birdclef_core.store.leftovers import Leftover, find_leftovers
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from sweeps.checkpoints.references import best, store_of, sweeps_in
from sweeps.schedule.records import SweepRecords, TrialRecord
from sweeps.wording import bytes_text, cost_text

MAX_LISTED = 40


def needed_by(records: SweepRecords, trials: Sequence[TrialRecord]) -> set[str]:
    """Stages of a sweep's best and unended trials, and the one that all of them start from."""
    winner = best(trials)
    chains = [record.stage_ids for record in trials if not record.ended or record is winner]
    start = records.load_sweep()["options"].get("from_stage")
    return {start, *itertools.chain(*chains)} - {None}


def stages_in_training(store: StageStore) -> set[str]:
    """By anybody, now or until a moment ago."""
    return {entry.stage_id for entry in Leases(store.storage).entries()}


def needed_by_sweep(storage: Storage, name: str) -> tuple[set[str], Counter[str]]:
    """What a sweep needs, and how many of its trials have each stage in their chain.

    Raises InputError when its records cannot be read: then nobody knows what it still needs.
    """
    records = SweepRecords(storage.at(name))
    try:
        trials = records.load_trials()
        return needed_by(records, trials), Counter(stage_id for record in trials for stage_id in record.stage_ids)
    except InputError as error:
        raise InputError(
            f"To remove stages, it must be known what sweep {name} needs; if that is nothing any more, move its folder away. {error}"
        ) from None


def needed_by_all(storage: Storage) -> tuple[set[str], Counter[str]]:
    """What all sweeps need and what is being trained, and how many trials have each stage; raises as `needed_by_sweep`."""
    keep, uses = stages_in_training(store_of(storage)), Counter[str]()
    for name in sweeps_in(storage):
        more, counted = needed_by_sweep(storage, name)
        keep |= more
        uses.update(counted)
    return keep, uses


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """What collecting garbage would remove."""

    leftovers: tuple[Leftover, ...]
    plan: GarbagePlan | None
    """None where no budget was given."""

    @property
    def is_some(self) -> bool:
        return bool(self.leftovers or (self.plan and (self.plan.abandoned or self.plan.removals)))


def find_garbage(storage: Storage, budget_bytes: int | None) -> Garbage:
    """What nothing will read again and, for the store to take no more than `budget_bytes`, what is least worth keeping."""
    store = store_of(storage)
    keep, uses = needed_by_all(storage)
    leftovers = find_leftovers(store, keep, time.time())
    if budget_bytes is None:
        return Garbage(leftovers=tuple(leftovers), plan=None)
    gone = {item.place for item in leftovers}
    unfinished = {stage_id: size for stage_id, size in store.unfinished().items() if f"unfinished/{stage_id}" not in gone}
    plan = plan_garbage(store.summaries(), uses, keep, budget_bytes=budget_bytes, unfinished=unfinished)
    return Garbage(leftovers=tuple(leftovers), plan=plan)


def remove_garbage(storage: Storage, garbage: Garbage) -> None:
    """Carries it out."""
    store = store_of(storage)
    for leftover in garbage.leftovers:
        store.storage.delete(leftover.place)
    if garbage.plan is not None:
        collect(store, garbage.plan)


def garbage_lines(garbage: Garbage) -> list[str]:
    """What to print of it."""
    lines = []
    for kind, what in (
        ("attempt", "attempts that were cut off or set aside"),
        ("epochs", "epoch checkpoints that nothing needs"),
    ):
        found = [item.num_bytes for item in garbage.leftovers if item.kind == kind]
        if found:
            lines.append(f"{bytes_text(sum(found)):>11}  {len(found)} x {what}")
    plan = garbage.plan
    if plan is None:
        return lines or ["Nothing is left over. To make the store smaller, say how much it may take: --max-bytes 200G."]
    if plan.abandoned:
        lines.append(f"{bytes_text(sum(plan.abandoned.values())):>11}  {len(plan.abandoned)} x epoch checkpoints of ended trials")
    lines += [_removal(item) for item in plan.removals[:MAX_LISTED]]
    if len(plan.removals) > MAX_LISTED:
        lines.append(f"             ... and {len(plan.removals) - MAX_LISTED} stages more, each worth as much or more")
    after, budget = bytes_text(plan.bytes_after), bytes_text(plan.budget_bytes)
    if not lines:
        lines.append(f"Nothing has to go: the store takes {after} of {budget}.")
    elif plan.fits:
        lines.append(f"From {bytes_text(plan.bytes_before)} to {after}, within {budget}.")
    if not plan.fits:
        lines.append(f"What is left takes {after}, more than {budget}, but must stay: {MUST_STAY}.")
    return lines


def _removal(removal: Removal) -> str:
    item = removal.summary
    return (
        f"{bytes_text(item.num_bytes):>11}  {item.stage_id[:16]} {item.recipe} {item.stage}, score {item.score:.3f}, took "
        f"{cost_text(item.cost_s)}, in {removal.uses} trials, worth {removal.worth:.2g} s/MiB"
    )
