"""`birdclef store`: what is in a store, whether it is whole, what it takes, and what could go."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

from birdclef_core.config import STAGE_NAMES, StageName
from birdclef_core.data.dataset import read_target_list
from birdclef_core.errors import InputError
from birdclef_core.stages.catalogue import StageSummary
from birdclef_core.stages.gc import GarbagePlan, plan_garbage
from birdclef_core.stages.import_checkpoint import import_checkpoint
from birdclef_core.stages.leases import Leases
from birdclef_core.stages.recipes import small_budget
from birdclef_core.storage import Storage
from birdclef_core.taxonomy import LabelSpace
from sweeps.console import format_duration
from sweeps.plan_text import bytes_text
from sweeps.records import SweepRecords
from sweeps.references import best, store_of, sweeps_in
from sweeps.search import load_search, override

MAX_LISTED = 40


def list_stages(storage: Storage) -> list[str]:
    """A line for each published stage, by recipe, stage and score."""
    summaries = store_of(storage).summaries()
    if not summaries:
        return [f"The store in {storage.root} has no stages."]
    uses, _ = stage_uses(storage)
    ordered = sorted(summaries.values(), key=lambda item: (item.recipe, STAGE_NAMES.index(item.stage), -item.score))
    lines = [f"{'stage':<18}{'recipe':<20}{'of':<14}{'score':>7}{'epochs':>8}{'cost':>10}{'size':>11}{'uses':>6}  from"]
    for item in ordered:
        start = item.parent_id[:12] if item.parent_id else "-"
        lines.append(
            f"{item.stage_id[:16]:<18}{item.recipe:<20}{item.stage:<14}{item.score:>7.3f}{item.epochs:>8}"
            f"{format_duration(item.cost_s):>10}{bytes_text(item.num_bytes):>11}{uses.get(item.stage_id, 0):>6}  {start}"
        )
    total = sum(item.num_bytes for item in summaries.values())
    return [
        *lines,
        f"{len(summaries)} stages, {bytes_text(total)}, {format_duration(sum(item.cost_s for item in summaries.values()))} of device time",
    ]


def verify_stages(storage: Storage, on_done: Callable[[int, int], None]) -> list[str]:
    """A line for each stage whose files are not what was written; all files are read."""
    store = store_of(storage)
    stage_ids = store.known_ids()
    damaged = []
    for index, stage_id in enumerate(stage_ids):
        if store.is_published(stage_id) and (problem := store.check(stage_id)):
            damaged.append(f"{stage_id[:16]}: {problem}")
        on_done(index + 1, len(stage_ids))
    return damaged


def usage_lines(storage: Storage) -> list[str]:
    """Bytes by recipe and stage, and of what is not published."""
    store = store_of(storage)
    sizes: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for item in store.summaries().values():
        sizes[item.recipe, item.stage].append(item.num_bytes)
    lines = [
        f"{bytes_text(sum(found)):>11}  {len(found):>5} x {recipe} {stage}" for (recipe, stage), found in sorted(sizes.items())
    ]
    unfinished = store.unfinished()
    lines.append(f"{bytes_text(sum(unfinished.values())):>11}  {len(unfinished):>5} x epoch checkpoints of unfinished stages")
    total = sum(num_bytes for _, num_bytes in store.storage.files())
    return [*lines, f"{bytes_text(total):>11}  in all"]


def stage_uses(storage: Storage) -> tuple[Counter[str], set[str]]:
    """How many trials of all sweeps have each stage in their chain; and the stages that must stay.

    Those are the best trial's of each sweep, those of trials that have not ended, and those that are being trained now.
    """
    uses: Counter[str] = Counter()
    keep = {entry.stage_id for entry in Leases(store_of(storage).storage).entries()}
    for name in sweeps_in(storage):
        trials = SweepRecords(storage.at(name)).load_trials()
        for record in trials:
            uses.update(record.stage_ids)
            if not record.ended:
                keep.update(record.stage_ids)
        winner = best(trials)
        if winner is not None:
            keep.add(winner.stage_ids[-1])
    return uses, keep


def garbage_of(storage: Storage, budget_bytes: int) -> GarbagePlan:
    """What would have to go for the store to take no more than `budget_bytes`."""
    store = store_of(storage)
    uses, keep = stage_uses(storage)
    other = sum(store.unfinished().values())
    return plan_garbage(store.summaries(), uses, keep, budget_bytes=budget_bytes, other_bytes=other)


def garbage_lines(plan: GarbagePlan) -> list[str]:
    """What to print of a plan to remove stages."""
    if not plan.removals and plan.fits:
        return [f"Nothing has to go: the store takes {bytes_text(plan.bytes_before)} of {bytes_text(plan.budget_bytes)}."]
    lines = [_removal(item.summary, item.worth, item.uses) for item in plan.removals[:MAX_LISTED]]
    if len(plan.removals) > MAX_LISTED:
        lines.append(f"  ... and {len(plan.removals) - MAX_LISTED} more")
    lines.append(f"{len(plan.removals)} stages; from {bytes_text(plan.bytes_before)} to {bytes_text(plan.bytes_after)}")
    if not plan.fits:
        lines.append(
            f"That is more than {bytes_text(plan.budget_bytes)}, but what is left must stay: best or unfinished trials use it."
        )
    return lines


def _removal(item: StageSummary, worth: float, uses: int) -> str:
    return (
        f"  {item.stage_id[:16]}  {item.recipe} {item.stage}, {bytes_text(item.num_bytes)}, cost {format_duration(item.cost_s)}, "
        f"used by {uses} trials, worth {worth:.3g} s/MiB"
    )


def import_stage(
    storage: Storage,
    path: Path,
    *,
    search: str,
    recipe: str,
    stage: StageName,
    species: Path,
    small: bool,
    settings: Mapping[str, object],
) -> str:
    """Takes a checkpoint of one's own into the store; gives its stage id."""
    found = override(load_search(search), settings)
    known = [item.name for item in found.recipes]
    if recipe not in known:
        raise InputError(f"--recipe must be one of search {search}: {', '.join(known)}, but got {recipe!r}.")
    chosen = found.recipe(recipe)
    model = small_budget(chosen).model if small else chosen.model
    space = LabelSpace.of("imported", read_target_list(species))
    if not path.is_file():
        raise InputError(f"The checkpoint must be a file, but {path} is none.")
    return import_checkpoint(store_of(storage), path, recipe=recipe, model=model, stage=stage, species=space)
